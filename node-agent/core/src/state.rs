//! The pod state machine: one transition function over what is wanted and what is known.
//!
//! [`advance`] is level-triggered: it may be called at any time, any number of times; it answers the next
//! stage and what should be under way now. The caller drops actions that are under way already.

mod containers;
#[cfg(test)]
mod tests;

use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};

use crate::{observed::Observed, view};

/// Seconds a pod is given to stop when it says nothing.
const DEFAULT_GRACE: i64 = 30;

/// How a finished pod came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All containers ended well.
    Succeeded,
    /// Some did not.
    Failed,
}

/// Why a pod is stopped before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `DeadlineExceeded`, `Evicted`, …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Where a pod is in its life on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Network and volumes are made ready.
    #[default]
    Preparing,
    /// Init containers run.
    Initializing,
    /// The containers run.
    Running,
    /// Containers are being stopped; by force at the deadline.
    Terminating {
        /// When SIGKILL comes.
        deadline: Timestamp,
        /// Not because of a deletion.
        verdict: Option<Verdict>,
    },
    /// All is stopped, the record stays until the pod is deleted.
    Finished {
        /// How it came out.
        outcome: Outcome,
        /// Why, when it was stopped.
        verdict: Option<Verdict>,
    },
    /// Nothing is left; the API object may go.
    Gone,
}

/// What should be under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Put the volumes in place.
    PrepareVolumes,
    /// Set the network up.
    SetUpNetwork,
    /// Start an attempt of a container (image first).
    Start {
        /// Which container.
        container: String,
        /// Which attempt.
        attempt: u32,
    },
    /// Stop a container's running attempt.
    Stop {
        /// Which container.
        container: String,
        /// Which attempt.
        attempt: u32,
        /// Seconds until SIGKILL.
        grace: i64,
        /// Told in the event.
        why: String,
    },
    /// Take down volumes, network, groups; with the containers' records when the pod is deleted.
    CleanUp {
        /// Also remove containers and logs.
        records: bool,
    },
    /// Remove the object from the API.
    Finalize,
}

impl Action {
    /// Two actions with one key are the same work.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::PrepareVolumes => "volumes".to_owned(),
            Self::SetUpNetwork => "network".to_owned(),
            Self::Start { container, .. } => format!("start/{container}"),
            Self::Stop { container, .. } => format!("stop/{container}"),
            Self::CleanUp { .. } => "clean".to_owned(),
            Self::Finalize => "finalize".to_owned(),
        }
    }
}

/// The answer of [`advance`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The stage now.
    pub stage: Stage,
    /// What should be under way.
    pub actions: Vec<Action>,
    /// Ask again then, if nothing happens before.
    pub wake_at: Option<Timestamp>,
}

impl Step {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }
}

/// Seconds between SIGTERM and SIGKILL.
#[must_use]
pub fn grace_seconds(pod: &Pod) -> i64 {
    let deletion = pod.metadata.deletion_grace_period_seconds;
    deletion.or(view::spec(pod).termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE).max(0)
}

/// The transition function.
#[must_use]
pub fn advance(pod: &Pod, stage: &Stage, seen: &Observed, now: Timestamp) -> Step {
    let mut step = Step { stage: stage.clone(), ..Step::default() };
    let deleted = pod.metadata.deletion_timestamp.is_some();
    // Each pass through the loop takes one transition; every transition leads forward, so it ends.
    loop {
        let next = match &step.stage {
            Stage::Gone => None,
            Stage::Terminating { .. } | Stage::Finished { .. } => None,
            _ if deleted => Some(terminating(pod, None, now)),
            _ => deadline(pod, now, &mut step).map(|verdict| terminating(pod, Some(verdict), now)),
        };
        if let Some(next) = next {
            step.stage = next;
            continue;
        }
        let stage = step.stage.clone();
        let next = match &stage {
            Stage::Preparing => prepare(seen, now, &mut step),
            Stage::Initializing => containers::initialize(pod, seen, now, &mut step),
            Stage::Running => containers::keep_running(pod, seen, now, &mut step),
            Stage::Terminating { deadline, verdict } => {
                let deadline = shortened(pod, *deadline);
                containers::stop_all(pod, seen, now, deadline, &mut step);
                let over = step.actions.is_empty() && !seen.any_running() && !seen.starting;
                over.then(|| Stage::Finished {
                    outcome: if verdict.is_some() { Outcome::Failed } else { containers::outcome(pod, seen) },
                    verdict: verdict.clone(),
                })
            }
            Stage::Finished { .. } => {
                if deleted {
                    match seen.cleaned {
                        true => Some(Stage::Gone),
                        false => {
                            step.actions.push(Action::CleanUp { records: true });
                            None
                        }
                    }
                } else {
                    containers::stop_all(
                        pod,
                        seen,
                        now,
                        now + SignedDuration::from_secs(grace_seconds(pod)),
                        &mut step,
                    );
                    None
                }
            }
            Stage::Gone => {
                if deleted {
                    step.actions.push(Action::Finalize);
                }
                None
            }
        };
        match next {
            Some(next) => {
                step.stage = next;
                step.actions.clear();
            }
            None => return step,
        }
    }
}

fn terminating(pod: &Pod, verdict: Option<Verdict>, now: Timestamp) -> Stage {
    Stage::Terminating { deadline: now + SignedDuration::from_secs(grace_seconds(pod)), verdict }
}

/// A second delete with a shorter grace moves the deadline nearer.
fn shortened(pod: &Pod, deadline: Timestamp) -> Timestamp {
    // deletionTimestamp already is the moment the grace runs out.
    pod.metadata
        .deletion_timestamp
        .as_ref()
        .map_or(deadline, |t| deadline.min(t.0.max(Timestamp::UNIX_EPOCH)))
}

fn deadline(pod: &Pod, now: Timestamp, step: &mut Step) -> Option<Verdict> {
    let limit = view::spec(pod).active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    let at = start + SignedDuration::from_secs(limit.clamp(0, i64::from(i32::MAX)));
    if now < at {
        step.wake(at);
        return None;
    }
    Some(Verdict {
        reason: "DeadlineExceeded".to_owned(),
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
    })
}

fn prepare(seen: &Observed, now: Timestamp, step: &mut Step) -> Option<Stage> {
    if seen.volumes && seen.network.is_some() {
        return Some(Stage::Initializing);
    }
    if let Some(hindrance) = seen.hindrance.as_ref().filter(|h| h.retry_at > now) {
        step.wake(hindrance.retry_at);
        return None;
    }
    if !seen.volumes {
        step.actions.push(Action::PrepareVolumes);
    }
    if seen.network.is_none() {
        step.actions.push(Action::SetUpNetwork);
    }
    None
}
