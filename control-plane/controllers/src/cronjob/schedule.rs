//! Schedules: five fields of minutes, hours, days, months and weekdays, or a name for some of them.
//! Pure.
//!
//! Times are looked for along the real clock of a zone. What falls into the hour that is left out in
//! spring does not happen, and what falls into the one that comes twice in autumn happens twice.

use std::time::Duration;

use k8s_openapi::jiff::civil::{DateTime, Time as ClockTime};
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Span, Timestamp, ToSpan as _};

/// Later than this nothing is looked for: the 30th of February never comes.
const HORIZON_YEARS: i16 = 9;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When things happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    Fields(Fields),
    Every(Duration),
}

/// Allowed values as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Neither days nor weekdays are left open: one of them is enough then.
    either_day: bool,
}

/// Why a schedule is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unparseable(pub(super) String);

fn wrong(why: impl Into<String>) -> Unparseable {
    Unparseable(why.into())
}

/// One field: a list of `*`, numbers, names and ranges, with steps. Tells too whether it is left open.
fn field(text: &str, low: u32, high: u32, words: &[&str]) -> Result<(u64, bool), Unparseable> {
    let number = |text: &str| -> Result<u32, Unparseable> {
        let word = words.iter().position(|w| w.eq_ignore_ascii_case(text));
        let named = word.and_then(|at| u32::try_from(at).ok()).map(|at| at + low);
        let value =
            named.or_else(|| text.parse().ok()).ok_or_else(|| wrong(format!("no number: {text:?}")))?;
        if (low..=high).contains(&value) {
            Ok(value)
        } else {
            Err(wrong(format!("{value} is not within {low} and {high}")))
        }
    };
    let (mut bits, mut open) = (0u64, false);
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let every = match step {
            None => 1,
            Some(step) => step
                .parse::<u32>()
                .ok()
                .filter(|step| *step > 0)
                .ok_or_else(|| wrong(format!("no step: {step:?}")))?,
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => {
                open |= every == 1;
                (low, high)
            }
            Some((from, to)) => (number(from)?, number(to)?),
            // A step after a single number goes on to the end.
            None => (number(range)?, if step.is_some() { high } else { number(range)? }),
        };
        if from > to {
            return Err(wrong(format!("a range that goes backwards: {range:?}")));
        }
        let mut value = from;
        while value <= to {
            bits |= 1 << value;
            value = value.saturating_add(every);
        }
    }
    Ok((bits, open))
}

impl Schedule {
    pub(super) fn parse(text: &str) -> Result<Self, Unparseable> {
        let text = text.trim();
        let text = match text.strip_prefix('@') {
            None => text,
            Some("yearly" | "annually") => "0 0 1 1 *",
            Some("monthly") => "0 0 1 * *",
            Some("weekly") => "0 0 * * 0",
            Some("daily" | "midnight") => "0 0 * * *",
            Some("hourly") => "0 * * * *",
            Some(name) => {
                let every = name.strip_prefix("every ").and_then(skep_api::duration::parse);
                let every = every.ok_or_else(|| wrong(format!("unknown name: @{name}")))?;
                // Whole seconds, and at least one.
                return Ok(Self::Every(Duration::from_secs(every.as_secs().max(1))));
            }
        };
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts.as_slice() else {
            return Err(wrong(format!("expected exactly 5 fields, found {}: [{text}]", parts.len())));
        };
        let ((days, any_day), (weekdays, any_weekday)) =
            (field(days, 1, 31, &[])?, field(weekdays, 0, 6, &WEEKDAYS)?);
        Ok(Self::Fields(Fields {
            minutes: field(minutes, 0, 59, &[])?.0,
            hours: field(hours, 0, 23, &[])?.0,
            days,
            months: field(months, 1, 12, &MONTHS)?.0,
            weekdays,
            either_day: !any_day && !any_weekday,
        }))
    }

    /// The first time after `after`.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(every) => after.checked_add(*every).ok(),
            Self::Fields(fields) => fields.next(after, zone),
        }
    }

    /// The last time after `after` and not after `now`.
    pub(super) fn latest(&self, after: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let first = self.next(after, zone).filter(|first| *first <= now)?;
        if let Self::Every(every) = self {
            let every = i64::try_from(every.as_secs()).ok()?;
            let passed = now.duration_since(after).as_secs() / every * every;
            return after.checked_add(SignedDuration::from_secs(passed)).ok();
        }
        // Looks back further and further: all times since long ago may be very many.
        let second = self.next(first, zone).unwrap_or(now);
        let mut back = second.duration_since(first).max(SignedDuration::from_mins(1));
        loop {
            let from = now.checked_sub(back).ok().filter(|from| *from > after).unwrap_or(after);
            let mut last = None;
            let mut at = from;
            while let Some(next) = self.next(at, zone).filter(|next| *next <= now) {
                last = Some(next);
                at = next;
            }
            if last.is_some() || from == after {
                return last;
            }
            back = back.checked_mul(2)?;
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = 60 - after.as_second().rem_euclid(60);
        let mut at = Timestamp::from_second(after.as_second() + minute).ok()?;
        let end = zone.to_datetime(after).year().saturating_add(HORIZON_YEARS);
        loop {
            let clock = zone.to_datetime(at);
            if clock.year() > end {
                return None;
            }
            let has = |bits: u64, value: i8| u32::try_from(value).is_ok_and(|v| bits & (1 << v) != 0);
            let next = if !has(self.months, clock.month()) {
                start_of(zone, clock.first_of_month(), 1.month())?
            } else if !self.has_day(clock) {
                start_of(zone, clock, 1.day())?
            } else if !has(self.hours, clock.hour()) {
                let left = i64::from(60 - clock.minute()) * 60 - i64::from(clock.second());
                at.checked_add(SignedDuration::from_secs(left)).ok()?
            } else if !has(self.minutes, clock.minute()) || clock.second() != 0 {
                at.checked_add(SignedDuration::from_secs(60 - i64::from(clock.second()))).ok()?
            } else {
                return Some(at);
            };
            // Where clocks are set back at midnight, a day's start may lie behind.
            at = next.max(at.checked_add(SignedDuration::from_mins(1)).ok()?);
        }
    }

    fn has_day(&self, clock: DateTime) -> bool {
        let day = self.days & (1 << clock.day()) != 0;
        let weekday = self.weekdays & (1 << clock.weekday().to_sunday_zero_offset()) != 0;
        if self.either_day { day || weekday } else { day && weekday }
    }
}

/// The first moment of the day that is a span after a date.
fn start_of(zone: &TimeZone, date: DateTime, later: Span) -> Option<Timestamp> {
    let start = date.date().checked_add(later).ok()?.to_datetime(ClockTime::midnight());
    zone.to_timestamp(start).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn next_times() {
        // The schedule, the zone's offset in hours, after when, and then.
        let cases = [
            ("*/15 * * * *", "2026-01-01T00:00:00Z", Some("2026-01-01T00:15:00Z")),
            ("*/15 * * * *", "2026-01-01T00:14:59Z", Some("2026-01-01T00:15:00Z")),
            ("0 3 * * *", "2026-01-01T03:00:00Z", Some("2026-01-02T03:00:00Z")),
            ("30 4 1,15 * 5", "2026-01-01T05:00:00Z", Some("2026-01-02T04:30:00Z")),
            ("30 4 */2 * 5", "2026-01-03T05:00:00Z", Some("2026-01-05T04:30:00Z")),
            ("0 0 * * mon", "2026-01-01T00:00:00Z", Some("2026-01-05T00:00:00Z")),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", Some("2028-02-29T00:00:00Z")),
            ("0 0 30 feb *", "2026-01-01T00:00:00Z", None),
            ("5/20 * * * ?", "2026-01-01T00:25:00Z", Some("2026-01-01T00:45:00Z")),
            ("@hourly", "2026-12-31T23:30:00Z", Some("2027-01-01T00:00:00Z")),
            ("@yearly", "2026-12-31T23:30:00Z", Some("2027-01-01T00:00:00Z")),
            ("@every 90s", "2026-01-01T00:00:00Z", Some("2026-01-01T00:01:30Z")),
        ];
        for (text, after, want) in cases {
            let schedule = Schedule::parse(text).expect("a schedule");
            assert_eq!(schedule.next(at(after), &TimeZone::UTC), want.map(at), "{text} after {after}");
        }
    }

    #[test]
    fn what_is_no_schedule() {
        for text in ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
        for text in ["*/0 * * * *", "5-1 * * * *", "a * * * *", "@sometimes", "@every x", "* * * * * *"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn clocks_that_are_set() {
        // Middle Europe, written as a rule: the tests need no time zone database.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        let cases = [
            ("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
            ("0 * * * *", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"),
            ("0 * * * *", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
            ("0 9 * * *", "2026-07-01T00:00:00Z", "2026-07-01T07:00:00Z"),
            ("0 9 * * *", "2026-12-01T00:00:00Z", "2026-12-01T08:00:00Z"),
        ];
        for (text, after, want) in cases {
            let schedule = Schedule::parse(text).expect("a schedule");
            assert_eq!(schedule.next(at(after), &zone), Some(at(want)), "{text} after {after}");
        }
    }

    proptest! {
        /// The latest time is what going through all of them one by one ends at.
        #[test]
        fn latest_is_the_last_of_all(
            text in prop::sample::select(vec!["*/7 * * * *", "0 */5 * * *", "15 1 * * 2", "@every 10m", "0 0 30 2 *"]),
            start in 0i64..4_000_000,
            length in 0i64..2_000_000,
        ) {
            let schedule = Schedule::parse(text).expect("a schedule");
            let after = Timestamp::from_second(start).expect("a time");
            let now = Timestamp::from_second(start + length).expect("a time");
            let mut last = None;
            let mut time = after;
            while let Some(next) = schedule.next(time, &TimeZone::UTC).filter(|next| *next <= now) {
                prop_assert!(next > time);
                last = Some(next);
                time = next;
            }
            prop_assert_eq!(schedule.latest(after, now, &TimeZone::UTC), last);
        }
    }
}
