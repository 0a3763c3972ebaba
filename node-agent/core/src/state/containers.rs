//! Which containers should start or stop in each stage.

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    jiff::{SignedDuration, Timestamp},
};

use super::{Action, Outcome, Stage, Step, grace_seconds};
use crate::{
    observed::{self, Observed, Run},
    view,
};

/// What should become of a container that is not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Again,
    Over,
}

fn fate(policy: &str, code: i32) -> Fate {
    match (policy, code) {
        ("Never", _) | ("OnFailure", 0) => Fate::Over,
        _ => Fate::Again,
    }
}

fn policy<'a>(pod: &'a Pod, container: &'a Container) -> &'a str {
    let own = container.restart_policy.as_deref();
    own.or(view::spec(pod).restart_policy.as_deref()).unwrap_or("Always")
}

/// Starts the container when its time has come; true while it is not over.
fn start(
    name: &str,
    policy: &str,
    seen: Option<&observed::Container>,
    now: Timestamp,
    step: &mut Step,
) -> bool {
    let next = match seen.and_then(|c| c.attempt.as_ref()) {
        None => 0,
        Some(attempt) => match &attempt.run {
            Run::Created => attempt.number,
            Run::Running(_) => return true,
            Run::Exited(exit) => {
                if fate(policy, exit.code) == Fate::Over {
                    return false;
                }
                let pause = seen.map_or(SignedDuration::ZERO, |c| c.backoff.pause());
                let at = exit.finished_at + pause;
                if at > now {
                    step.wake(at);
                    return true;
                }
                attempt.number + 1
            }
        },
    };
    if let Some(hindrance) = seen.and_then(|c| c.hindrance.as_ref())
        && hindrance.retry_at > now
    {
        step.wake(hindrance.retry_at);
        return true;
    }
    step.actions.push(Action::Start { container: name.to_owned(), attempt: next });
    true
}

fn restart_unhealthy(pod: &Pod, name: &str, seen: Option<&observed::Container>, step: &mut Step) {
    if let Some(container) = seen
        && container.is_running()
        && let (Some(why), Some(attempt)) = (&container.unhealthy, &container.attempt)
    {
        step.actions.push(Action::Stop {
            container: name.to_owned(),
            attempt: attempt.number,
            grace: view::spec(pod).termination_grace_period_seconds.unwrap_or(super::DEFAULT_GRACE),
            why: why.clone(),
        });
    }
}

/// Sidecars that were reached keep running in every stage before the end.
fn keep_sidecar(pod: &Pod, container: &Container, seen: &Observed, now: Timestamp, step: &mut Step) {
    let state = seen.container(&container.name);
    start(&container.name, "Always", state, now, step);
    restart_unhealthy(pod, &container.name, state, step);
}

pub(super) fn initialize(pod: &Pod, seen: &Observed, now: Timestamp, step: &mut Step) -> Option<Stage> {
    // Once a main container was started, initialization is over for good.
    let begun = view::spec(pod)
        .containers
        .iter()
        .any(|c| seen.container(&c.name).is_some_and(|c| c.attempt.is_some()));
    if begun {
        return Some(Stage::Running);
    }
    for container in view::init_containers(pod) {
        let state = seen.container(&container.name);
        if view::is_sidecar(container) {
            keep_sidecar(pod, container, seen, now, step);
            if state.is_some_and(|c| c.is_running() && c.started) {
                continue;
            }
            return None;
        }
        // Init containers restart until they succeed, unless the pod never restarts.
        let policy = if policy(pod, container) == "Never" { "Never" } else { "OnFailure" };
        if start(&container.name, policy, state, now, step) {
            return None;
        }
        if state.and_then(observed::Container::exit).is_some_and(|exit| exit.code != 0) {
            let grace = SignedDuration::from_secs(grace_seconds(pod));
            return Some(Stage::Terminating { deadline: now + grace, verdict: None });
        }
    }
    Some(Stage::Running)
}

pub(super) fn keep_running(pod: &Pod, seen: &Observed, now: Timestamp, step: &mut Step) -> Option<Stage> {
    let mut alive = false;
    for container in &view::spec(pod).containers {
        let state = seen.container(&container.name);
        alive |= start(&container.name, policy(pod, container), state, now, step);
        restart_unhealthy(pod, &container.name, state, step);
    }
    if !alive {
        let grace = SignedDuration::from_secs(grace_seconds(pod));
        return Some(Stage::Terminating { deadline: now + grace, verdict: None });
    }
    for container in view::init_containers(pod).iter().filter(|c| view::is_sidecar(c)) {
        keep_sidecar(pod, container, seen, now, step);
    }
    for container in view::ephemeral_containers(pod) {
        start(&container.name, "Never", seen.container(&container.name), now, step);
    }
    None
}

/// Stops what runs: main containers first, then sidecars in reverse order.
pub(super) fn stop_all(pod: &Pod, seen: &Observed, now: Timestamp, deadline: Timestamp, step: &mut Step) {
    let grace = deadline.duration_since(now).as_secs().max(0);
    let stop = |name: &str, step: &mut Step| {
        if let Some(attempt) =
            seen.container(name).filter(|c| c.is_running()).and_then(|c| c.attempt.as_ref())
        {
            step.actions.push(Action::Stop {
                container: name.to_owned(),
                attempt: attempt.number,
                grace,
                why: String::new(),
            });
        }
    };
    let sidecars: Vec<&Container> =
        view::init_containers(pod).iter().filter(|c| view::is_sidecar(c)).collect();
    for name in seen.containers.keys().filter(|name| !sidecars.iter().any(|s| s.name == **name)) {
        stop(name, step);
    }
    for sidecar in sidecars.iter().rev() {
        if !step.actions.is_empty() {
            return;
        }
        stop(&sidecar.name, step);
    }
}

/// How the pod came out, once nothing runs.
pub(super) fn outcome(pod: &Pod, seen: &Observed) -> Outcome {
    let inits = view::init_containers(pod).iter().filter(|c| !view::is_sidecar(c));
    let good = inits.chain(&view::spec(pod).containers).all(|container| {
        seen.container(&container.name).and_then(observed::Container::exit).is_some_and(|exit| exit.code == 0)
    });
    if good { Outcome::Succeeded } else { Outcome::Failed }
}
