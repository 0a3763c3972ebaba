//! The row of a pod: the status column sums up phase, conditions and container states in one word.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::object::ObjectExt;

use crate::strategy::printer::{self, Column, or};

/// The columns.
pub(super) static COLUMNS: &[Column] = &[
    printer::NAME,
    printer::text("Ready"),
    printer::text("Status"),
    printer::text("Restarts"),
    printer::AGE,
    printer::wide("IP"),
    printer::wide("Node"),
    printer::wide("Nominated Node"),
    printer::wide("Readiness Gates"),
];

/// Restarts so far, and when the last one was (RFC 3339 sorts as text).
#[derive(Clone, Copy, Default)]
struct Restarts<'a> {
    count: i64,
    last: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += status.int(&["restartCount"]).unwrap_or(0);
        self.last = self.last.max(status.text(&["lastState", "terminated", "finishedAt"]));
    }
}

struct Summary<'a> {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts<'a>,
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod.items(&["status", "conditions"]).iter().find(|c| c.text(&["type"]) == kind)
}

fn holds(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|c| c.text(&["status"]) == "True")
}

/// Why a container ended.
fn terminated(state: &Value) -> String {
    let reason = state.text(&["reason"]);
    match state.int(&["signal"]) {
        _ if !reason.is_empty() => reason.to_owned(),
        Some(signal) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", state.int(&["exitCode"]).unwrap_or(0)),
    }
}

fn sidecar(pod: &Value, name: &str) -> bool {
    let containers = pod.items(&["spec", "initContainers"]);
    containers.iter().any(|c| c.text(&["name"]) == name && c.text(&["restartPolicy"]) == "Always")
}

fn summarize(pod: &Value) -> Summary<'_> {
    let status = &pod["status"];
    let init_specs = pod.items(&["spec", "initContainers"]);
    let sidecars = init_specs.iter().filter(|c| c.text(&["restartPolicy"]) == "Always").count();
    let mut reason = or(status.text(&["reason"]), status.text(&["phase"])).to_owned();
    if condition(pod, "PodScheduled").is_some_and(|c| c.text(&["reason"]) == "SchedulingGated") {
        "SchedulingGated".clone_into(&mut reason);
    }
    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let mut initializing = false;
    for (index, container) in status.items(&["initContainerStatuses"]).iter().enumerate() {
        restarts.add(container);
        let restartable = sidecar(pod, container.text(&["name"]));
        if restartable {
            sidecar_restarts.add(container);
        }
        let ended = container.at(&["state", "terminated"]);
        let waiting = container.text(&["state", "waiting", "reason"]);
        if ended.is_some_and(|e| e.int(&["exitCode"]).unwrap_or(0) == 0) {
            continue;
        }
        if restartable && container.flag(&["started"]) {
            ready += usize::from(container.flag(&["ready"]));
            continue;
        }
        reason = match ended {
            Some(ended) => format!("Init:{}", terminated(ended)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", init_specs.len()),
        };
        initializing = true;
        break;
    }
    if !initializing || holds(pod, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        for container in status.items(&["containerStatuses"]).iter().rev() {
            restarts.add(container);
            let waiting = container.text(&["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut reason);
            } else if let Some(ended) = container.at(&["state", "terminated"]) {
                reason = terminated(ended);
            } else if container.flag(&["ready"]) && container.at(&["state", "running"]).is_some() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let text = if holds(pod, "Ready") { "Running" } else { "NotReady" };
            text.clone_into(&mut reason);
        }
    }
    let finished = ["Succeeded", "Failed"].contains(&status.text(&["phase"]));
    if pod.deletion_timestamp().is_some() {
        if status.text(&["reason"]) == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !finished {
            "Terminating".clone_into(&mut reason);
        }
    }
    Summary { ready, total: pod.items(&["spec", "containers"]).len() + sidecars, reason, restarts }
}

fn gates(pod: &Value) -> String {
    let gates = pod.items(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|g| holds(pod, g.text(&["conditionType"]))).count();
    format!("{open}/{}", gates.len())
}

/// The cells.
pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let Restarts { count, last } = summary.restarts;
    let restarts = if count != 0 && !last.is_empty() {
        format!("{count} ({} ago)", printer::since(last, now))
    } else {
        count.to_string()
    };
    let ip = pod.items(&["status", "podIPs"]).first().map_or("", |ip| ip.text(&["ip"]));
    let ip = or(ip, pod.text(&["status", "podIP"]));
    vec![
        pod.name().into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        printer::age(pod, now),
        or(ip, "<none>").into(),
        or(pod.text(&["spec", "nodeName"]), "<none>").into(),
        or(pod.text(&["status", "nominatedNodeName"]), "<none>").into(),
        gates(pod).into(),
    ]
}
