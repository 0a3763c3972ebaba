//! A pod's status from what is known about it.

mod containers;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use k8s_openapi::{
    api::core::v1::{HostIP, Pod, PodCondition, PodIP, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use crate::{
    observed::Observed,
    qos,
    state::{Outcome, Stage},
    view,
};

/// The conditions that the node decides.
const OURS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Computes the status, keeping from the present one what others decide and times of unchanged conditions.
#[must_use]
pub fn compute(pod: &Pod, stage: &Stage, seen: &Observed, host_ips: &[IpAddr], now: Timestamp) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let terminal = view::is_terminal(pod);
    let phase = if terminal { old.phase.clone().unwrap_or_default() } else { phase(pod, stage, seen) };
    let finished = matches!(phase.as_str(), "Succeeded" | "Failed");
    let sets = containers::statuses(pod, seen);

    let initialized = finished_well(&phase) || containers::initialized(pod, seen);
    let unready: Vec<String> = sets.main.iter().filter(|s| !s.ready).map(|s| s.name.clone()).collect();
    let containers_ready = unready.is_empty() && !finished;
    let gates = view::spec(pod).readiness_gates.iter().flatten();
    let gate_closed = gates
        .map(|g| g.condition_type.as_str())
        .find(|gate| !old.conditions.iter().flatten().any(|c| c.type_ == *gate && c.status == "True"));
    let why_unready = |what: &str| match (finished, &*phase) {
        (true, "Succeeded") => (Some("PodCompleted".to_owned()), None),
        (true, _) => (Some("PodFailed".to_owned()), None),
        _ => (
            Some("ContainersNotReady".to_owned()),
            Some(format!("containers with {what} status: [{}]", unready.join(" "))),
        ),
    };
    let uninitialized = containers::uninitialized(pod, seen);
    let mut builder = Conditions {
        old: old.conditions.clone().unwrap_or_default(),
        new: Vec::new(),
        now,
        generation: pod.metadata.generation,
    };
    let network =
        seen.network.is_some() && !finished && !matches!(stage, Stage::Finished { .. } | Stage::Gone);
    builder.set("PodReadyToStartContainers", network, (None, None));
    builder.set(
        "Initialized",
        initialized,
        (
            Some("ContainersNotInitialized".to_owned()),
            Some(format!("containers with incomplete status: [{}]", uninitialized.join(" "))),
        ),
    );
    let ready = containers_ready && gate_closed.is_none();
    let not_ready = match gate_closed {
        Some(gate) if containers_ready => (
            Some("ReadinessGatesNotReady".to_owned()),
            Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\"")),
        ),
        _ => why_unready("unready"),
    };
    builder.set("Ready", ready, not_ready);
    builder.set("ContainersReady", containers_ready, why_unready("unready"));
    builder.set("PodScheduled", true, (None, None));

    let verdict = match stage {
        Stage::Terminating { verdict, .. } | Stage::Finished { verdict, .. } => verdict.clone(),
        _ => None,
    };
    let ips = match (&seen.network, view::host_network(pod)) {
        (Some(_), true) => host_ips.to_vec(),
        (Some(ips), false) => ips.clone(),
        (None, _) => old.pod_ips.iter().flatten().filter_map(|p| p.ip.parse().ok()).collect(),
    };
    PodStatus {
        phase: Some(phase),
        conditions: Some(builder.finish()),
        container_statuses: Some(sets.main),
        init_container_statuses: (!sets.init.is_empty()).then_some(sets.init),
        ephemeral_container_statuses: (!sets.ephemeral.is_empty()).then_some(sets.ephemeral),
        host_ip: host_ips.first().map(ToString::to_string),
        host_ips: Some(host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        pod_ip: ips.first().map(ToString::to_string),
        pod_ips: (!ips.is_empty()).then(|| ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
        start_time: old.start_time.clone().or(Some(Time(now))),
        qos_class: old.qos_class.clone().or_else(|| Some(qos::class(pod).to_string())),
        reason: verdict
            .as_ref()
            .map(|v| v.reason.clone())
            .or_else(|| old.reason.clone().filter(|_| terminal)),
        message: verdict.map(|v| v.message).or_else(|| old.message.clone().filter(|_| terminal)),
        observed_generation: pod.metadata.generation,
        ..old
    }
}

fn finished_well(phase: &str) -> bool {
    phase == "Succeeded"
}

fn phase(pod: &Pod, stage: &Stage, seen: &Observed) -> String {
    let started = view::spec(pod)
        .containers
        .iter()
        .any(|c| seen.container(&c.name).is_some_and(|c| c.attempt.is_some()));
    let initialized = containers::initialized(pod, seen);
    match stage {
        Stage::Finished { outcome: Outcome::Succeeded, .. } => "Succeeded",
        Stage::Finished { outcome: Outcome::Failed, .. } => "Failed",
        _ if started || (initialized && matches!(stage, Stage::Running) && seen.any_running()) => "Running",
        _ => "Pending",
    }
    .to_owned()
}

struct Conditions {
    old: Vec<PodCondition>,
    new: Vec<PodCondition>,
    now: Timestamp,
    generation: Option<i64>,
}

impl Conditions {
    fn set(&mut self, kind: &str, holds: bool, otherwise: (Option<String>, Option<String>)) {
        let status = if holds { "True" } else { "False" };
        let (reason, message) = if holds { (None, None) } else { otherwise };
        let before = self.old.iter().find(|c| c.type_ == kind);
        let unchanged = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        self.new.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: unchanged.or(Some(Time(self.now))),
            last_probe_time: None,
            observed_generation: self.generation,
        });
    }

    fn finish(self) -> Vec<PodCondition> {
        let foreign = self.old.into_iter().filter(|c| !OURS.contains(&c.type_.as_str()));
        self.new.into_iter().chain(foreign).collect()
    }
}
