//! Whether a Job is over, and how: completions, limits, the success policy and the pod failure policy. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use super::{Snapshot, Tally, age, has_failed, int};
use crate::job::{indexes, is_indexed};
use crate::pods;

/// How a Job ends: `Complete` or `Failed`, the reason, and words for people.
pub(super) type Verdict = (&'static str, String, String);

/// The verdict that stands already, written down before the last pods have ended.
pub(super) fn standing(status: &JobStatus) -> Option<Verdict> {
    let conditions = status.conditions.iter().flatten().filter(|c| c.status == "True");
    let mut found = conditions.filter_map(|c| {
        let kind = match c.type_.as_str() {
            "SuccessCriteriaMet" => "Complete",
            "FailureTarget" => "Failed",
            _ => return None,
        };
        Some((kind, c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default()))
    });
    found.next()
}

/// Whether the Job is over, and how.
pub(super) fn verdict(
    snapshot: &Snapshot<'_>,
    after: &JobStatus,
    tally: &Tally,
    active: usize,
) -> Option<Verdict> {
    let spec = snapshot.job.spec.as_ref()?;
    let fails = |reason: &str, message: &str| Some(("Failed", reason.to_owned(), message.to_owned()));
    for pod in snapshot.pods.iter().filter(|p| has_failed(p)) {
        if let Some(message) = fails_job(snapshot.job, pod) {
            return fails("PodFailurePolicy", &message);
        }
    }
    if tally.failed > spec.backoff_limit.unwrap_or(6) {
        return fails("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if spec.suspend != Some(true)
        && spec.active_deadline_seconds.is_some_and(|limit| age(after, snapshot.now) >= limit)
    {
        return fails("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    let failed_indexes = int(tally.failed_indexes.len());
    if spec.max_failed_indexes.is_some_and(|most| failed_indexes > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return fails("MaxFailedIndexesExceeded", message);
    }
    if let Some(rule) = succeeds_early(snapshot.job, &tally.done) {
        return Some(("Complete", "SuccessPolicy".to_owned(), format!("Matched rules at index {rule}")));
    }
    let complete = match spec.completions {
        Some(wanted) if is_indexed(snapshot.job) => {
            let done = int(tally.done.len());
            if failed_indexes > 0 && done + failed_indexes >= wanted {
                return fails("FailedIndexes", "Job has failed indexes");
            }
            done >= wanted
        }
        Some(wanted) => tally.succeeded >= wanted,
        // A work queue: one success says that there is no work left; the others end by themselves.
        None => tally.succeeded > 0 && active == 0,
    };
    let message = "Reached expected number of succeeded pods";
    complete.then(|| ("Complete", "CompletionsReached".to_owned(), message.to_owned()))
}

/// The rule of the success policy that holds.
fn succeeds_early(job: &Job, done: &BTreeSet<u32>) -> Option<usize> {
    let rules = job.spec.iter().flat_map(|s| s.success_policy.iter().flat_map(|p| &p.rules));
    rules.into_iter().position(|rule| {
        let among: Option<BTreeSet<u32>> = rule.succeeded_indexes.as_deref().map(indexes::parse);
        let counted = match &among {
            Some(among) => among.intersection(done).count(),
            None => done.len(),
        };
        let needed = rule.succeeded_count.and_then(|n| usize::try_from(n).ok());
        match (needed, among) {
            (Some(needed), _) => counted >= needed,
            (None, Some(among)) => counted == among.len(),
            (None, None) => false,
        }
    })
}

/// What the pod failure policy says about a failed pod.
pub(super) fn action<'a>(job: &'a Job, pod: &Pod) -> Option<(&'a str, usize, String)> {
    let rules = job.spec.as_ref()?.pod_failure_policy.as_ref()?;
    for (number, rule) in rules.rules.iter().enumerate() {
        if let Some(codes) = &rule.on_exit_codes {
            let status = pod.status.iter();
            let statuses = status.flat_map(|s| {
                s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten())
            });
            for status in statuses {
                let ended = status.state.as_ref().and_then(|s| s.terminated.as_ref());
                let Some(code) = ended.map(|e| e.exit_code).filter(|c| *c != 0) else { continue };
                let ours = codes.container_name.as_ref().is_none_or(|n| *n == status.name);
                let among = codes.values.contains(&code);
                if ours && (codes.operator == "In") == among {
                    let message = format!(
                        "Container {} for pod {}/{} failed with exit code {code} matching {} rule at index {number}",
                        status.name,
                        pod.metadata.namespace.as_deref().unwrap_or_default(),
                        pod.metadata.name.as_deref().unwrap_or_default(),
                        rule.action,
                    );
                    return Some((&rule.action, number, message));
                }
            }
        }
        for pattern in rule.on_pod_conditions.iter().flatten() {
            let matches = pods::condition(pod, &pattern.type_)
                .is_some_and(|c| Some(c.status.as_str()) == pattern.status.as_deref().or(Some("True")));
            if matches {
                let message = format!(
                    "Pod {}/{} has condition {} matching {} rule at index {number}",
                    pod.metadata.namespace.as_deref().unwrap_or_default(),
                    pod.metadata.name.as_deref().unwrap_or_default(),
                    pattern.type_,
                    rule.action,
                );
                return Some((&rule.action, number, message));
            }
        }
    }
    None
}

fn fails_job(job: &Job, pod: &Pod) -> Option<String> {
    action(job, pod).filter(|(action, ..)| *action == "FailJob").map(|(.., message)| message)
}
