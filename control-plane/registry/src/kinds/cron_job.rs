//! CronJob: a Job at certain times.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::workload::{self, counts};
use super::{job, namespaced, status};
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, default_to};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["cj"],
    categories: &["all"],
    generation: &["spec"],
    subresources: &[status("batch", "v1", "CronJob")],
    ..namespaced("batch", "v1", "CronJob", "cronjobs", &CronJob)
};

/// A job's name is the CronJob's and eleven more characters.
const MAX_NAME: usize = 52;

struct CronJob;

/// Whether one field of a schedule is a list of `*`, numbers, ranges and steps within bounds.
fn field(text: &str, low: u32, high: u32, words: &[&str]) -> bool {
    let number = |t: &str| {
        let word = words.iter().position(|w| w.eq_ignore_ascii_case(t));
        word.and_then(|i| u32::try_from(i).ok()).map(|i| i + low).or_else(|| t.parse().ok())
    };
    let within = |n: Option<u32>| n.is_some_and(|n| (low..=high).contains(&n));
    !text.is_empty()
        && text.split(',').all(|part| {
            let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
            let steps = step.is_none_or(|s| s.parse::<u32>().is_ok_and(|n| n > 0));
            let range = match range.split_once('-') {
                _ if range == "*" || range == "?" => true,
                Some((a, b)) => within(number(a)) && within(number(b)) && number(a) <= number(b),
                None => within(number(range)),
            };
            steps && range
        })
}

/// What is wrong with a schedule.
fn parse_schedule(text: &str) -> Result<(), String> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let plain = ["TZ=", "CRON_TZ="].iter().find_map(|prefix| text.strip_prefix(prefix));
    let plain = match plain {
        None => text,
        Some(rest) => {
            let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            if jiff::tz::TimeZone::get(zone).is_err() {
                return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
            }
            rest.trim()
        }
    };
    if let Some(name) = plain.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every = name.strip_prefix("every ");
        let fine = every.map_or_else(|| known.contains(&name), |e| skep_api::duration::parse(e).is_some());
        return match (fine, every) {
            (true, _) => Ok(()),
            (false, Some(_)) => Err(format!("failed to parse duration {plain}")),
            (false, None) => Err(format!("unrecognized descriptor: {plain}")),
        };
    }
    let fields: Vec<&str> = plain.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    };
    let parts: [(&str, u32, u32, &[&str]); 5] = [
        (minute, 0, 59, &[]),
        (hour, 0, 23, &[]),
        (day, 1, 31, &[]),
        (month, 1, 12, &MONTHS),
        (weekday, 0, 6, &DAYS),
    ];
    match parts.iter().find(|(part, low, high, words)| !field(part, *low, *high, words)) {
        Some((part, low, high, _)) => Err(format!("failed to parse {part}: must lie in {low}-{high}")),
        None => Ok(()),
    }
}

fn rules(object: &Value, old: Option<&Value>) -> ErrorList {
    check(object, |root| {
        let spec = root.child("spec");
        schedule(&spec, old);
        counts(&spec, &["startingDeadlineSeconds"]);
        let zone = spec.child("timeZone");
        let kept =
            old.is_some_and(|old| old.at(&["spec", "timeZone"]).unwrap_or(&Value::Null) == zone.value());
        if zone.is_set() && !kept {
            time_zone(&zone);
        }
        spec.child("concurrencyPolicy").require_one_of(&["Allow", "Forbid", "Replace"]);
        let job_spec = spec.down(&["jobTemplate", "spec"]);
        job::rules::spec(&job_spec);
        if job_spec.child("selector").is_set() {
            job_spec.child("selector").invalid("`selector` will be auto-generated");
        }
        let manual = job_spec.child("manualSelector");
        if manual.flag() {
            manual.error(Error::not_supported(manual.path(), true, &["nil", "false"]));
        }
        counts(&spec, &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"]);
    })
}

/// A zone in a schedule is of old: it may stay, without the field for it.
fn schedule(spec: &At<'_>, old: Option<&Value>) {
    let schedule = spec.child("schedule");
    if !schedule.require() {
        return;
    }
    let text = schedule.text();
    if let Err(detail) = parse_schedule(text) {
        schedule.invalid(detail);
    }
    let kept = old.is_some_and(|old| old.text(&["spec", "schedule"]).contains("TZ"));
    if text.contains("TZ") && !kept {
        schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if text.contains("TZ") && spec.child("timeZone").is_set() {
        schedule.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule");
    }
}

fn time_zone(zone: &At<'_>) {
    let name = zone.text();
    if name.is_empty() {
        zone.invalid("timeZone must be nil or non-empty string");
        return;
    }
    let fine = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        !part.is_empty() && part != "." && part != ".." && !part.starts_with('-') && part.chars().all(known)
    };
    if !name.split('/').all(fine) {
        zone.invalid(format!("unknown time zone {name}"));
        return;
    }
    if name.eq_ignore_ascii_case("Local") {
        zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    }
    if !name.eq_ignore_ascii_case("Local") && jiff::tz::TimeZone::get(name).is_err() {
        zone.invalid(format!("unknown time zone {name}"));
    }
}

impl Strategy for CronJob {
    fn default(&self, object: &mut Value) {
        default_text(object, &["spec", "concurrencyPolicy"], "Allow");
        workload::default_spec(
            object,
            &[
                ("suspend", json!(false)),
                ("successfulJobsHistoryLimit", json!(3)),
                ("failedJobsHistoryLimit", json!(1)),
            ],
        );
        // A template says less than a job: only the pods' part is filled in.
        default_to(object, &["spec", "jobTemplate", "spec"], json!({}));
        workload::default_template(object, &["spec", "jobTemplate", "spec", "template"], false);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        rules(object, None)
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = rules(object, None);
        errors.extend(check(object, |root| {
            let name = root.child("metadata").child("name");
            if name.text().len() > MAX_NAME {
                name.invalid(format!("must be no more than {MAX_NAME} characters"));
            }
        }));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        rules(new, Some(old))
    }

    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        names::dns1123_subdomain
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut told = super::pod::warnings::named_job(object, old, "spec.jobTemplate.spec");
        if old.is_some() && object.text(&["spec", "schedule"]).contains("TZ") {
            // The path is upstream's.
            told.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
        }
        told
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Schedule"),
            printer::text("Timezone"),
            printer::boolean("Suspend"),
            printer::integer("Active"),
            printer::text("Last Schedule"),
            printer::AGE,
            printer::wide("Containers"),
            printer::wide("Images"),
            printer::wide("Selector"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = printer::containers(&object["spec"]["jobTemplate"]["spec"]["template"]);
        let last = match object.text(&["status", "lastScheduleTime"]) {
            "" => "<none>".to_owned(),
            time => printer::since(time, now),
        };
        let suspend = match object.at(&["spec", "suspend"]).and_then(Value::as_bool) {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        vec![
            object.name().into(),
            object.text(&["spec", "schedule"]).into(),
            printer::or(object.text(&["spec", "timeZone"]), "<none>").into(),
            suspend.into(),
            object.items(&["status", "active"]).len().into(),
            last.into(),
            printer::age(object, now),
            names,
            images,
            printer::selector(object.at(&["spec", "jobTemplate", "spec", "selector"])).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0-6 1,15 jan mon-fri", "@daily", "@every 1h30m", "0 0 1 1 ?"] {
            assert_eq!(parse_schedule(good), Ok(()), "{good}");
        }
        for bad in ["", "* * * *", "60 * * * *", "* * * 13 *", "@never", "a * * * *", "*/0 * * * *"] {
            assert!(parse_schedule(bad).is_err(), "{bad}");
        }
    }
}
