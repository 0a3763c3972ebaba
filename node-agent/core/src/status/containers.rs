//! Statuses of the containers of a pod.

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    observed::{self, Attempt, Observed, Run},
    view,
};

/// The three lists of a pod's status.
pub(super) struct Sets {
    pub main: Vec<ContainerStatus>,
    pub init: Vec<ContainerStatus>,
    pub ephemeral: Vec<ContainerStatus>,
}

/// Where the id of a container comes from.
const SCHEME: &str = "containerd://";

pub(super) fn statuses(pod: &Pod, seen: &Observed) -> Sets {
    // Also when they are done or have failed: what did not begin still waits for them, as upstream says it.
    let waiting = if view::init_containers(pod).is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let old = pod.status.as_ref();
    let list =
        |containers: &[Container], waiting: &str, kind: Kind, before: Option<&Vec<ContainerStatus>>| {
            let find = |name: &str| before.into_iter().flatten().find(|s| s.name == name);
            containers
                .iter()
                .map(|c| status(pod, c, seen.container(&c.name), waiting, kind, find(&c.name)))
                .collect()
        };
    Sets {
        main: list(
            &view::spec(pod).containers,
            waiting,
            Kind::Main,
            old.and_then(|s| s.container_statuses.as_ref()),
        ),
        init: list(
            view::init_containers(pod),
            "PodInitializing",
            Kind::Init,
            old.and_then(|s| s.init_container_statuses.as_ref()),
        ),
        ephemeral: list(
            &view::ephemeral_containers(pod),
            "ContainerCreating",
            Kind::Main,
            old.and_then(|s| s.ephemeral_container_statuses.as_ref()),
        ),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Main,
    Init,
}

fn status(
    pod: &Pod,
    container: &Container,
    seen: Option<&observed::Container>,
    waiting: &str,
    kind: Kind,
    before: Option<&ContainerStatus>,
) -> ContainerStatus {
    let unknown = observed::Container::default();
    let seen = match (seen, before) {
        (Some(seen), _) => seen,
        // Its record was collected; what was told last remains true.
        (None, Some(before)) if view::is_terminal(pod) => return before.clone(),
        (None, _) => &unknown,
    };
    let sidecar = kind == Kind::Init && view::is_sidecar(container);
    let mut last = seen.previous.as_ref().and_then(terminated);
    let state = match (&seen.attempt, &seen.hindrance) {
        (Some(Attempt { run: Run::Running(since), .. }), _) => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        (Some(attempt @ Attempt { run: Run::Exited(exit), .. }), hindrance) => {
            let again = restarts(pod, container, kind, exit.code);
            if again {
                let pause = seen.backoff.pause().as_secs();
                if let Some(hindrance) = hindrance {
                    last = terminated(attempt);
                    wait(&hindrance.reason, &hindrance.message)
                } else if pause > 0 {
                    last = terminated(attempt);
                    let (namespace, name, uid) = view::identity(pod);
                    let text = format!(
                        "back-off {} restarting failed container={} pod={name}_{namespace}({uid})",
                        print_pause(pause),
                        container.name
                    );
                    wait("CrashLoopBackOff", &text)
                } else {
                    terminated(attempt).unwrap_or_default()
                }
            } else {
                terminated(attempt).unwrap_or_default()
            }
        }
        (_, Some(hindrance)) => wait(&hindrance.reason, &hindrance.message),
        (_, None) => wait(waiting, ""),
    };
    let attempt = seen.attempt.as_ref();
    let running = seen.is_running();
    let done = kind == Kind::Init && !sidecar && seen.exit().is_some_and(|e| e.code == 0);
    ContainerStatus {
        name: container.name.clone(),
        image: attempt
            .map(|a| a.image.clone())
            .filter(|i| !i.is_empty())
            .unwrap_or_else(|| container.image.clone().unwrap_or_default()),
        image_id: attempt.map(|a| a.image_id.clone()).unwrap_or_default(),
        container_id: attempt.map(|a| format!("{SCHEME}{}", a.id)),
        restart_count: attempt.map_or(0, |a| i32::try_from(a.number).unwrap_or(i32::MAX)),
        ready: if kind == Kind::Init && !sidecar { done } else { running && seen.started && seen.ready },
        started: Some(running && seen.started),
        state: Some(state),
        last_state: last,
        allocated_resources: container.resources.as_ref().and_then(|r| r.requests.clone()),
        resources: container.resources.clone(),
        ..ContainerStatus::default()
    }
}

fn restarts(pod: &Pod, container: &Container, kind: Kind, code: i32) -> bool {
    if pod.metadata.deletion_timestamp.is_some() || view::is_terminal(pod) {
        return false;
    }
    let policy =
        container.restart_policy.as_deref().or(view::spec(pod).restart_policy.as_deref()).unwrap_or("Always");
    match (kind, policy) {
        (_, "Never") => false,
        (_, "OnFailure") => code != 0,
        (Kind::Init, _) if !view::is_sidecar(container) => code != 0,
        _ => true,
    }
}

fn print_pause(seconds: i64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}

fn wait(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    }
}

fn terminated(attempt: &Attempt) -> Option<ContainerState> {
    let Run::Exited(exit) = &attempt.run else { return None };
    Some(ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("{SCHEME}{}", attempt.id)),
            exit_code: exit.code,
            reason: Some(exit.reason.clone()),
            message: (!exit.message.is_empty()).then(|| exit.message.clone()),
            started_at: exit.started_at.map(Time),
            finished_at: Some(Time(exit.finished_at)),
            signal: None,
        }),
        ..ContainerState::default()
    })
}

/// Init containers that are not done.
pub(super) fn uninitialized(pod: &Pod, seen: &Observed) -> Vec<String> {
    let undone = |container: &&Container| {
        let state = seen.container(&container.name);
        if view::is_sidecar(container) {
            !state.is_some_and(|c| c.started && c.attempt.is_some())
        } else {
            state.and_then(observed::Container::exit).is_none_or(|e| e.code != 0)
        }
    };
    view::init_containers(pod).iter().filter(undone).map(|c| c.name.clone()).collect()
}

/// All init containers are done, now or once.
pub(super) fn initialized(pod: &Pod, seen: &Observed) -> bool {
    let begun = view::spec(pod)
        .containers
        .iter()
        .any(|c| seen.container(&c.name).is_some_and(|c| c.attempt.is_some()));
    begun || uninitialized(pod, seen).is_empty()
}
