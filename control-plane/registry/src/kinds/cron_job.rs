//! CronJob: a Job at certain times.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::workload::{self, counts};
use super::{job, namespaced, status};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text};

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

fn is_schedule(text: &str) -> bool {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    if let Some(name) = text.strip_prefix('@') {
        let every = name.strip_prefix("every ").and_then(skep_api::duration::parse);
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        return every.is_some() || known.contains(&name);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else { return false };
    field(minute, 0, 59, &[])
        && field(hour, 0, 23, &[])
        && field(day, 1, 31, &[])
        && field(month, 1, 12, &MONTHS)
        && field(weekday, 0, 6, &DAYS)
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
        if object.at(&["spec", "jobTemplate", "spec"]).is_some() {
            // A template says less than a job: only the pods' part is filled in.
            workload::default_template(object, &["spec", "jobTemplate", "spec", "template"]);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let name = root.child("metadata").child("name");
            if name.text().len() > MAX_NAME {
                name.invalid(format!("must be no more than {MAX_NAME} characters"));
            }
            let spec = root.child("spec");
            let schedule = spec.child("schedule");
            if schedule.require() {
                if schedule.text().contains("TZ") {
                    schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
                } else if !is_schedule(schedule.text()) {
                    schedule.invalid(format!(
                        "expected exactly 5 fields, found {}: {}",
                        schedule.text().split_whitespace().count(),
                        schedule.text()
                    ));
                }
            }
            counts(
                &spec,
                &["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"],
            );
            let zone = spec.child("timeZone");
            if zone.is_set() && (zone.text().is_empty() || zone.text().eq_ignore_ascii_case("local")) {
                zone.invalid(
                    "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                );
            }
            spec.child("concurrencyPolicy").require_one_of(&["Allow", "Forbid", "Replace"]);
            let mut template = object["spec"]["jobTemplate"].clone();
            job::default(&mut template, &[]);
            let wrapped = json!({"spec": {"jobTemplate": template}});
            let errors =
                check(&wrapped, |root| job::rules::spec(&root.down(&["spec", "jobTemplate", "spec"])));
            errors.iter().for_each(|error| root.error(error.clone()));
            let job_spec = spec.down(&["jobTemplate", "spec"]);
            if job_spec.child("manualSelector").flag() {
                job_spec.child("manualSelector").error(skep_api::field::Error::not_supported(
                    job_spec.child("manualSelector").path(),
                    true,
                    &["nil", "false"],
                ));
            }
        })
    }

    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        names::dns1123_subdomain
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        super::pod::warnings::template(object, "spec.jobTemplate.spec.template")
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
            assert!(is_schedule(good), "{good}");
        }
        for bad in ["", "* * * *", "60 * * * *", "* * * 13 *", "@never", "a * * * *", "*/0 * * * *"] {
            assert!(!is_schedule(bad), "{bad}");
        }
    }
}
