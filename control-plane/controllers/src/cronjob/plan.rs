//! The next step of a CronJob. Pure.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use skep_client::events::EventType;

use super::schedule::Schedule;

/// Users are told when more start times than this were missed.
const MANY_MISSED: i64 = 100;
/// Clocks of others may be a little behind.
const SLACK: Duration = Duration::from_millis(100);

pub(super) struct Snapshot<'a> {
    pub(super) cron: &'a CronJob,
    /// Jobs it controls.
    pub(super) jobs: &'a [Arc<Job>],
    /// The zone of its schedule, or why there is none.
    pub(super) zone: Result<TimeZone, String>,
    pub(super) now: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) delete: Vec<Arc<Job>>,
    /// When the Job to start was due.
    pub(super) start: Option<Timestamp>,
    /// What the status is apart from the Job to start.
    pub(super) status: CronJobStatus,
    pub(super) events: Vec<(EventType, &'static str, String)>,
    pub(super) again: Option<Duration>,
}

/// How a Job has ended.
fn end_of(job: &Job) -> Option<&str> {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut ends = conditions.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed"));
    ends.find(|c| c.status == "True").map(|c| c.type_.as_str())
}

fn name_of(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

/// How the status names a Job.
pub(super) fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".into()),
        kind: Some("Job".into()),
        namespace: job.metadata.namespace.clone(),
        name: job.metadata.name.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// The name of the Job of a start time: the same for everyone who works it out.
pub(super) fn job_name(cron: &CronJob, due: Timestamp) -> String {
    format!("{}-{}", cron.metadata.name.as_deref().unwrap_or_default(), due.as_second().div_euclid(60))
}

pub(super) fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let mut plan = Plan::default();
    look_back(snapshot, &mut plan);
    clean_up(snapshot, &mut plan);
    let cron = snapshot.cron;
    let spec = &cron.spec;
    if cron.metadata.deletion_timestamp.is_some() || spec.suspend == Some(true) {
        return plan;
    }
    let zone = match &snapshot.zone {
        Ok(zone) => zone,
        Err(why) => {
            let zone = spec.time_zone.as_deref().unwrap_or_default();
            let message = format!("invalid timeZone: {zone:?}: {why}");
            plan.events.push((EventType::Warning, "UnknownTimeZone", message));
            return plan;
        }
    };
    match Schedule::parse(&spec.schedule) {
        Ok(schedule) => look_ahead(snapshot, &schedule, zone, &mut plan),
        Err(why) => {
            let message = format!("unparseable schedule: {:?} : {}", spec.schedule, why.0);
            plan.events.push((EventType::Warning, "UnparseableSchedule", message));
        }
    }
    plan
}

/// The status as the Jobs show it.
fn look_back(snapshot: &Snapshot<'_>, plan: &mut Plan) {
    let before = snapshot.cron.status.clone().unwrap_or_default();
    let was_active = |job: &Job| before.active.iter().flatten().any(|r| r.uid == job.metadata.uid);
    let mut active = Vec::new();
    let mut succeeded = before.last_successful_time.clone();
    for job in snapshot.jobs {
        let Some(end) = end_of(job) else {
            // The known reference stays as it is: revisions of a running Job would change it all the time.
            let known = before.active.iter().flatten().find(|r| r.uid == job.metadata.uid);
            active.push(known.cloned().unwrap_or_else(|| reference(job)));
            continue;
        };
        if was_active(job) {
            let message = format!("Saw completed job: {}, condition: {end}", name_of(job));
            plan.events.push((EventType::Normal, "SawCompletedJob", message));
        }
        let completed = job.status.as_ref().and_then(|s| s.completion_time.clone());
        if end == "Complete" && completed.as_ref().map(|t| t.0) > succeeded.as_ref().map(|t| t.0) {
            succeeded = completed;
        }
    }
    for missing in before.active.iter().flatten() {
        if !snapshot.jobs.iter().any(|j| j.metadata.uid == missing.uid) {
            let message = format!("Active job went missing: {}", missing.name.as_deref().unwrap_or_default());
            plan.events.push((EventType::Normal, "MissingJob", message));
        }
    }
    plan.status = CronJobStatus {
        active: (!active.is_empty()).then_some(active),
        last_schedule_time: before.last_schedule_time,
        last_successful_time: succeeded,
    };
}

/// Deletes the oldest of the ended Jobs that are more than is to be kept.
fn clean_up(snapshot: &Snapshot<'_>, plan: &mut Plan) {
    let spec = &snapshot.cron.spec;
    for (end, limit) in
        [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)]
    {
        let Some(limit) = limit else { continue };
        let leaves = |job: &Job| job.metadata.deletion_timestamp.is_some();
        let mut ended: Vec<&Arc<Job>> =
            snapshot.jobs.iter().filter(|j| end_of(j) == Some(end) && !leaves(j)).collect();
        ended.sort_by_key(|job| {
            let started = job.status.as_ref().and_then(|s| s.start_time.as_ref());
            let time = started.or(job.metadata.creation_timestamp.as_ref()).map(|t| t.0);
            (Reverse(time), job.metadata.name.clone())
        });
        let kept = usize::try_from(limit).unwrap_or(0);
        plan.delete.extend(ended.into_iter().skip(kept).cloned());
    }
}

/// Starts what is due, and tells when to look again.
fn look_ahead(snapshot: &Snapshot<'_>, schedule: &Schedule, zone: &TimeZone, plan: &mut Plan) {
    let (cron, now) = (snapshot.cron, snapshot.now);
    let spec = &cron.spec;
    let started = plan.status.last_schedule_time.as_ref().map(|t| t.0);
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    // What is later than its deadline is not started any more.
    let oldest = deadline.and_then(|deadline| now.checked_sub(deadline).ok());
    let since = started.unwrap_or(created);
    let since = oldest.map_or(since, |oldest| since.max(oldest));
    let latest = schedule.latest(since, now, zone);
    if let Some(due) = latest {
        if missed(schedule, since, now, zone) > MANY_MISSED {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            plan.events.push((EventType::Warning, "TooManyMissedTimes", message.into()));
        }
        due_now(snapshot, due, plan);
    }
    // An interval goes on from its latest turn.
    let from = if matches!(schedule, Schedule::Every(_)) { latest.unwrap_or(since) } else { now };
    let next = schedule.next(from, zone).map(|next| next.duration_since(now));
    plan.again = next.and_then(|wait| Duration::try_from(wait).ok()).map(|wait| wait + SLACK);
}

/// About how many start times there were.
fn missed(schedule: &Schedule, since: Timestamp, now: Timestamp, zone: &TimeZone) -> i64 {
    let Some(first) = schedule.next(since, zone) else { return 0 };
    let Some(second) = schedule.next(first, zone) else { return 1 };
    let apart = second.duration_since(first).as_secs().max(1);
    now.duration_since(first).as_secs() / apart + 1
}

fn due_now(snapshot: &Snapshot<'_>, due: Timestamp, plan: &mut Plan) {
    let cron = snapshot.cron;
    let name = job_name(cron, due);
    let known = snapshot.jobs.iter().find(|job| name_of(job) == name);
    if known.is_some() {
        // Started, but that was not written down any more.
        plan.status.last_schedule_time = Some(Time(due));
        return;
    }
    let active: Vec<&Arc<Job>> = snapshot.jobs.iter().filter(|job| end_of(job).is_none()).collect();
    match cron.spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.events.push((EventType::Normal, "JobAlreadyActive", message.into()));
            return;
        }
        Some("Replace") => {
            let staying = active.into_iter().filter(|job| job.metadata.deletion_timestamp.is_none());
            plan.delete.extend(staying.cloned());
            plan.status.active = None;
        }
        _ => {}
    }
    plan.start = Some(due);
}

#[cfg(test)]
mod tests;
