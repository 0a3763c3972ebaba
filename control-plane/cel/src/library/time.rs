//! The parts of timestamps and durations.

use jiff::Zoned;

use super::{Outcome, fail, mismatch};
use crate::functions::{Body, Declare};
use crate::value::{Value, time};

pub(super) fn declare(declare: Declare<'_>) {
    let parts: [(&str, &str, Body); 10] = [
        ("year", "getFullYear", |args| part(args, |at| i64::from(at.year()))),
        ("month", "getMonth", |args| part(args, |at| i64::from(at.month()) - 1)),
        ("day_of_year", "getDayOfYear", |args| part(args, |at| i64::from(at.day_of_year()) - 1)),
        ("day_of_month", "getDayOfMonth", |args| part(args, |at| i64::from(at.day()) - 1)),
        ("day_of_month_1_based", "getDate", |args| part(args, |at| i64::from(at.day()))),
        ("day_of_week", "getDayOfWeek", |args| {
            part(args, |at| i64::from(at.weekday().to_sunday_zero_offset()))
        }),
        ("hours", "getHours", |args| part(args, |at| i64::from(at.hour()))),
        ("minutes", "getMinutes", |args| part(args, |at| i64::from(at.minute()))),
        ("seconds", "getSeconds", |args| part(args, |at| i64::from(at.second()))),
        ("milliseconds", "getMilliseconds", |args| part(args, |at| i64::from(at.millisecond()))),
    ];
    for (id, name, body) in parts {
        declare(&format!("timestamp_to_{id}"), &format!("(timestamp).{name}() -> int"), body);
        let with_zone = format!("(timestamp).{name}(string) -> int");
        declare(&format!("timestamp_to_{id}_with_tz"), &with_zone, body);
    }
    let spans: [(&str, &str, Body); 4] = [
        ("hours", "getHours", |args| span(args, |nanos| nanos / 3_600_000_000_000)),
        ("minutes", "getMinutes", |args| span(args, |nanos| nanos / 60_000_000_000)),
        ("seconds", "getSeconds", |args| span(args, |nanos| nanos / 1_000_000_000)),
        ("milliseconds", "getMilliseconds", |args| span(args, |nanos| nanos / 1_000_000)),
    ];
    for (id, name, body) in spans {
        declare(&format!("duration_to_{id}"), &format!("(duration).{name}() -> int"), body);
    }
}

fn part<'a>(args: &[Value<'a>], of: fn(&Zoned) -> i64) -> Outcome<'a> {
    let (at, zone) = match args {
        [Value::Timestamp(at)] => (at, jiff::tz::TimeZone::UTC),
        [Value::Timestamp(at), Value::String(name)] => match time::zone(name) {
            Some(zone) => (at, zone),
            None => {
                let name: String = name.chars().take(64).collect();
                return fail(format!("unknown time zone {name}"));
            }
        },
        _ => return mismatch(),
    };
    Ok(Value::Int(of(&at.to_zoned(zone))))
}

fn span<'a>(args: &[Value<'a>], of: fn(i64) -> i64) -> Outcome<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(of(*nanos))),
        _ => mismatch(),
    }
}
