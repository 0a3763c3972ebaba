//! CronJobs at certain times with certain Jobs.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const CREATED: &str = "2026-01-01T00:00:30Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn cron(spec: &Value, status: &Value) -> CronJob {
    let mut cron = json!({
        "metadata": {"name": "c", "namespace": "ns", "uid": "c", "creationTimestamp": CREATED},
        "spec": {"schedule": "*/10 * * * *", "jobTemplate": {"spec": {"template": {}}}},
        "status": status,
    });
    for (key, value) in spec.as_object().expect("an object") {
        cron["spec"][key] = value.clone();
    }
    serde_json::from_value(cron).expect("a cron job")
}

fn job(name: &str, end: Option<&str>, time: &str) -> Arc<Job> {
    let conditions: Vec<Value> = end.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
    let job = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": time},
        "spec": {"template": {}},
        "status": {"startTime": time, "completionTime": time, "conditions": conditions},
    });
    Arc::new(serde_json::from_value(job).expect("a job"))
}

fn run(cron: &CronJob, jobs: &[Arc<Job>], now: &str) -> Plan {
    plan(&Snapshot { cron, jobs, zone: Ok(TimeZone::UTC), now: at(now) })
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.events.iter().map(|(_, reason, _)| *reason).collect()
}

fn names(jobs: &[Arc<Job>]) -> Vec<&str> {
    jobs.iter().map(|j| name_of(j)).collect()
}

#[test]
fn starts_when_due_and_only_then() {
    // The spec, the latest start, now, and what is started.
    let cases = [
        (json!({}), None, "2026-01-01T00:09:59Z", None),
        (json!({}), None, "2026-01-01T00:10:00Z", Some("2026-01-01T00:10:00Z")),
        (json!({}), None, "2026-01-01T00:25:00Z", Some("2026-01-01T00:20:00Z")),
        (json!({}), Some("2026-01-01T00:20:00Z"), "2026-01-01T00:25:00Z", None),
        (json!({"suspend": true}), None, "2026-01-01T00:25:00Z", None),
        (json!({"startingDeadlineSeconds": 60}), None, "2026-01-01T00:25:00Z", None),
        (json!({"startingDeadlineSeconds": 400}), None, "2026-01-01T00:25:00Z", Some("2026-01-01T00:20:00Z")),
        (json!({"schedule": "@every 3m"}), None, "2026-01-01T00:07:00Z", Some("2026-01-01T00:06:30Z")),
        (json!({"schedule": "never"}), None, "2026-01-01T00:25:00Z", None),
    ];
    for (spec, last, now, want) in cases {
        let made = run(&cron(&spec, &json!({"lastScheduleTime": last})), &[], now);
        assert_eq!(made.start, want.map(at), "{spec} {last:?} {now}");
    }
}

#[test]
fn looks_again_when_the_next_is_due() {
    let wait = |spec: &Value, now: &str| run(&cron(spec, &json!({})), &[], now).again.map(|d| d.as_secs());
    assert_eq!(wait(&json!({}), "2026-01-01T00:09:00Z"), Some(60));
    assert_eq!(wait(&json!({}), "2026-01-01T00:10:00Z"), Some(600));
    assert_eq!(wait(&json!({"schedule": "@every 3m"}), "2026-01-01T00:07:00Z"), Some(150));
    assert_eq!(wait(&json!({"suspend": true}), "2026-01-01T00:09:00Z"), None);
}

#[test]
fn what_to_do_while_one_runs() {
    let running = [job("c-1", None, CREATED)];
    let made = |policy: &str| {
        run(&cron(&json!({"concurrencyPolicy": policy}), &json!({})), &running, "2026-01-01T00:10:00Z")
    };
    let allow = made("Allow");
    assert!(allow.start.is_some() && allow.delete.is_empty());
    assert_eq!(allow.status.active.as_ref().map(Vec::len), Some(1));
    let forbid = made("Forbid");
    assert!(forbid.start.is_none() && forbid.delete.is_empty());
    assert_eq!(reasons(&forbid), ["JobAlreadyActive"]);
    let replace = made("Replace");
    assert!(replace.start.is_some() && replace.status.active.is_none());
    assert_eq!(names(&replace.delete), ["c-1"]);
}

#[test]
fn a_job_of_this_time_is_not_started_again() {
    let cron = cron(&json!({}), &json!({}));
    let due = at("2026-01-01T00:10:00Z");
    let made = run(&cron, &[job(&job_name(&cron, due), None, CREATED)], "2026-01-01T00:11:00Z");
    assert_eq!(made.start, None);
    assert_eq!(made.status.last_schedule_time, Some(Time(due)));
}

#[test]
fn ended_jobs_leave_the_list_and_then_go() {
    let active = json!([{"name": "b", "uid": "b"}, {"name": "gone", "uid": "gone"}]);
    let spec = json!({"suspend": true, "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0});
    let jobs = [
        job("a", Some("Complete"), "2026-01-01T00:01:00Z"),
        job("b", Some("Complete"), "2026-01-01T00:02:00Z"),
        job("f", Some("Failed"), "2026-01-01T00:03:00Z"),
    ];
    let made = run(&cron(&spec, &json!({"active": active})), &jobs, "2026-01-01T00:05:00Z");
    assert_eq!(reasons(&made), ["SawCompletedJob", "MissingJob"]);
    assert_eq!(names(&made.delete), ["a", "f"]);
    assert_eq!(made.status.active, None);
    assert_eq!(made.status.last_successful_time, Some(Time(at("2026-01-01T00:02:00Z"))));
}

#[test]
fn what_cannot_be_understood_is_told() {
    let told = |spec: &Value, zone: Result<TimeZone, String>| {
        let cron = cron(spec, &json!({}));
        let made = plan(&Snapshot { cron: &cron, jobs: &[], zone, now: at("2026-01-02T00:00:00Z") });
        made.events.into_iter().map(|(_, reason, _)| reason).collect::<Vec<_>>()
    };
    assert_eq!(told(&json!({"timeZone": "x"}), Err("unknown".into())), ["UnknownTimeZone"]);
    assert_eq!(told(&json!({"schedule": "x"}), Ok(TimeZone::UTC)), ["UnparseableSchedule"]);
    assert_eq!(told(&json!({"schedule": "* * * * *"}), Ok(TimeZone::UTC)), ["TooManyMissedTimes"]);
}

proptest! {
    /// Looked at whenever it asks for it, a CronJob starts one Job for each of its times.
    #[test]
    fn starts_each_time_once(every in 1i64..30, looks in prop::collection::vec(0i64..40, 1..60)) {
        let mut cron = cron(&json!({"schedule": format!("*/{every} * * * *")}), &json!({}));
        let (mut now, mut started) = (at(CREATED), Vec::new());
        for early in looks {
            let made = plan(&Snapshot { cron: &cron, jobs: &[], zone: Ok(TimeZone::UTC), now });
            if let Some(due) = made.start {
                prop_assert!(due <= now && now.duration_since(due).as_secs() <= 1);
                prop_assert!(!started.contains(&due));
                started.push(due);
                cron.status.get_or_insert_default().last_schedule_time = Some(Time(due));
            }
            let wait = made.again.expect("a next time");
            // Something else may wake it before.
            let wait = if early < 20 { wait } else { wait.min(Duration::from_secs(early.unsigned_abs())) };
            now = now.checked_add(wait).expect("a time");
        }
        let schedule = Schedule::parse(&format!("*/{every} * * * *")).expect("a schedule");
        let mut time = at(CREATED);
        for due in started {
            let next = schedule.next(time, &TimeZone::UTC).expect("a next time");
            prop_assert_eq!(due, next);
            time = next;
        }
    }
}
