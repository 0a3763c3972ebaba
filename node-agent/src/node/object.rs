//! The Node object and its status, from the machine's facts.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
        NodeStatus, NodeSystemInfo,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
    jiff::Timestamp,
};

use super::{Health, Machine, facts};
use crate::AgentConfig;

/// The version the node says it has.
const VERSION: &str = "v1.36.0+skep";
/// The largest number of images told in the status.
const MAX_IMAGES: usize = 50;
/// Less free memory than this is pressure.
const MEMORY_PRESSURE: i64 = 100 << 20;

/// The Node as it registers.
pub(super) fn node(config: &AgentConfig, machine: &Machine, runtime: &str) -> Node {
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), config.node_name.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), machine.architecture.clone()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("beta.kubernetes.io/arch".to_owned(), machine.architecture.clone()),
    ]);
    labels.extend(config.labels.clone());
    let health = Health { ready: Err("starting".to_owned()), images: Vec::new() };
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            ..NodeSpec::default()
        }),
        status: Some(status(config, machine, runtime, &health, &[], Timestamp::now())),
    }
}

/// The pressure conditions as (type, holds, reason, message).
pub(super) fn conditions(
    machine: &Machine,
    health: &Health,
) -> Vec<(&'static str, bool, &'static str, String)> {
    let low = facts::available_memory().is_some_and(|free| free < MEMORY_PRESSURE.min(machine.memory / 20));
    let ready = match &health.ready {
        Ok(()) => ("Ready", true, "KubeletReady", "the node agent is posting ready status".to_owned()),
        Err(why) => ("Ready", false, "KubeletNotReady", why.clone()),
    };
    let memory = if low { "KubeletHasInsufficientMemory" } else { "KubeletHasSufficientMemory" };
    vec![
        ("MemoryPressure", low, memory, "as measured by the node agent".to_owned()),
        ("DiskPressure", false, "KubeletHasNoDiskPressure", "as measured by the node agent".to_owned()),
        ("PIDPressure", false, "KubeletHasSufficientPID", "as measured by the node agent".to_owned()),
        ready,
    ]
}

/// The status: times of unchanged conditions are kept, foreign conditions too.
pub(super) fn status(
    config: &AgentConfig,
    machine: &Machine,
    runtime: &str,
    health: &Health,
    old: &[NodeCondition],
    now: Timestamp,
) -> NodeStatus {
    let wanted = conditions(machine, health);
    let foreign = old.iter().filter(|c| !wanted.iter().any(|(kind, ..)| c.type_ == *kind)).cloned();
    let conditions = wanted.iter().map(|(kind, holds, reason, message)| {
        let status = if *holds { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == *kind && c.status == status);
        NodeCondition {
            type_: (*kind).to_owned(),
            status: status.to_owned(),
            reason: Some((*reason).to_owned()),
            message: Some(message.clone()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        }
    });
    let quantity = |value: i64, unit: &str| Quantity(format!("{value}{unit}"));
    let amounts = |memory: i64, storage: i64| {
        BTreeMap::from([
            ("cpu".to_owned(), quantity(machine.cpus, "")),
            ("memory".to_owned(), quantity(memory / 1024, "Ki")),
            ("ephemeral-storage".to_owned(), quantity(storage / 1024, "Ki")),
            ("pods".to_owned(), quantity(i64::from(config.max_pods), "")),
            ("hugepages-2Mi".to_owned(), quantity(0, "")),
            ("hugepages-1Gi".to_owned(), quantity(0, "")),
        ])
    };
    let mut addresses: Vec<NodeAddress> = config
        .node_ips
        .iter()
        .map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.to_string() })
        .collect();
    addresses.push(NodeAddress { type_: "Hostname".to_owned(), address: config.node_name.clone() });
    let images = health
        .images
        .iter()
        .take(MAX_IMAGES)
        .map(|(names, size)| ContainerImage { names: Some(names.clone()), size_bytes: Some(*size) });
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(amounts(machine.memory, machine.storage)),
        allocatable: Some(amounts(machine.allocatable_memory(), machine.storage / 10 * 9)),
        conditions: Some(conditions.chain(foreign).collect()),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.kubelet_listen.port()) }),
        }),
        images: Some(images.collect()),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.clone(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: format!("containerd://{runtime}"),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: VERSION.to_owned(),
            kubelet_version: VERSION.to_owned(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}
