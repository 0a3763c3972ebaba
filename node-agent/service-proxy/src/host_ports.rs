//! Ports of pods that are bound on the node (`hostPort`): from pods to tables. Pure.
//!
//! A pod with host ports is treated like a service that has one endpoint, the pod, and keeps its clients' addresses.
//! Its name can be no Service's, as it has a slash in it. Readiness does not matter: as with the CNI plug-in "portmap",
//! a port is bound for as long as the pod has its network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::service::{FrontendKey, frontend};

use crate::desired::{DesiredFrontend, DesiredSet, NodeView, ServiceTables};
use crate::names::{BackendName, Scope, ServiceName, SetName};
use crate::objects::protocol_number;

/// A port of a pod that the node serves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// The address of the node; none: all of them.
    pub host_ip: Option<IpAddr>,
    /// The port there.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// The transport protocol's number.
    pub protocol: u8,
}

/// A pod with such ports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BoundPod {
    /// Its addresses.
    pub ips: BTreeSet<IpAddr>,
    /// Its ports.
    pub ports: BTreeSet<HostPort>,
}

/// All pods of a node that have host ports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostPorts(BTreeMap<ServiceName, BoundPod>);

impl HostPorts {
    /// The host ports of a node's pods: of those that have addresses, run in a network of their own, and are not over.
    pub fn of_pods(pods: &[Arc<Pod>]) -> Self {
        Self(pods.iter().filter_map(|pod| of_pod(pod)).collect())
    }

    /// The pod of this name.
    pub(crate) fn get(&self, name: &ServiceName) -> Option<&BoundPod> {
        self.0.get(name)
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.0.keys()
    }

    /// The names of pods that are not the same in both.
    pub(crate) fn changed<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a ServiceName> {
        let of_one = |one: &'a Self, other: &'a Self| {
            one.0.iter().filter(|(name, pod)| other.0.get(*name) != Some(*pod)).map(|(name, _)| name)
        };
        of_one(self, before).chain(of_one(before, self))
    }
}

fn of_pod(pod: &Pod) -> Option<(ServiceName, BoundPod)> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if is_over || spec.host_network == Some(true) {
        return None;
    }
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let ips: BTreeSet<IpAddr> =
        listed.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect();
    // A sidecar is an init container that goes on running.
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports: BTreeSet<HostPort> = spec.containers.iter().chain(sidecars).flat_map(of_container).collect();
    if ips.is_empty() || ports.is_empty() {
        return None;
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = format!("pod/{}", pod.metadata.name.as_deref().unwrap_or_default());
    Some((ServiceName { namespace, name }, BoundPod { ips, ports }))
}

fn of_container(container: &Container) -> impl Iterator<Item = HostPort> {
    container.ports.iter().flatten().filter_map(|port| {
        let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
        // An address that cannot be read binds nothing: binding all of them would expose the pod.
        let host_ip = match port.host_ip.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse::<IpAddr>().ok()?).filter(|ip| !ip.is_unspecified()),
        };
        Some(HostPort {
            host_ip,
            host_port: number(port.host_port?)?,
            container_port: number(port.container_port)?,
            protocol: protocol_number(port.protocol.as_deref())?,
        })
    })
}

/// The tables of a pod's host ports.
pub(crate) fn host_port_tables(name: &ServiceName, pod: &BoundPod, node: &NodeView) -> ServiceTables {
    let mut tables = ServiceTables::default();
    for port in &pod.ports {
        for ip in &pod.ips {
            let backend =
                BackendName { addr: Addr::from(*ip), port: port.container_port, protocol: port.protocol };
            let set = |scope| SetName {
                service: name.clone(),
                port: format!("{}-{}", port.container_port, port.host_port),
                protocol: port.protocol,
                v6: ip.is_ipv6(),
                scope,
            };
            let wanted = node.node_port_addresses.iter().chain(port.host_ip.as_ref());
            for address in wanted.filter(|address| address.is_ipv6() == ip.is_ipv6()) {
                if port.host_ip.is_some_and(|host_ip| host_ip != *address) {
                    continue;
                }
                let key = FrontendKey::new(Addr::from(*address), port.host_port.to_be(), port.protocol);
                let value = DesiredFrontend {
                    external: set(Scope::Local),
                    internal: set(Scope::Cluster),
                    flags: frontend::HOST_PORT | frontend::EXTERNAL_LOCAL,
                };
                for name in [&value.external, &value.internal] {
                    let backends = BTreeSet::from([backend]);
                    let known = backends.clone();
                    tables.sets.insert(name.clone(), DesiredSet { backends, known, ..DesiredSet::default() });
                }
                tables.frontends.insert(key, value);
            }
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use skep_ebpf_loader::tables::{protocol_name, socket_address};

    fn pod(spec: &Value, status: &Value) -> Arc<Pod> {
        let object =
            json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec, "status": status});
        Arc::new(serde_json::from_value(object).expect("a pod"))
    }

    fn node() -> NodeView {
        let addresses = ["192.0.2.1", "127.0.0.1", "2001:db8::1", "::1"];
        NodeView {
            node_port_addresses: addresses.map(|text| text.parse().expect("an address")).to_vec(),
            ..NodeView::default()
        }
    }

    /// `frontend/PROTOCOL -> backend` of one pod.
    #[track_caller]
    fn check(ports: &Value, status: &Value, expected: &[&str]) {
        let spec = json!({"containers": [{"name": "c", "ports": ports}]});
        let all = HostPorts::of_pods(&[pod(&spec, status)]);
        let mut found = Vec::new();
        for (name, pod) in &all.0 {
            let tables = host_port_tables(name, pod, &node());
            for (key, value) in &tables.frontends {
                let from = socket_address(key.addr, key.port_be);
                for set in [&value.external, &value.internal] {
                    let backends = tables.sets[set].backends.iter();
                    let to: Vec<String> =
                        backends.map(|b| socket_address(b.addr, b.port.to_be()).to_string()).collect();
                    found.push(format!("{from}/{} -> {}", protocol_name(key.protocol), to.join(" ")));
                }
            }
        }
        found.sort();
        found.dedup();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    fn running() -> Value {
        json!({"phase": "Running", "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}]})
    }

    #[test]
    fn one_port_serves_several_addresses_and_protocols() {
        let ports = json!([
            {"containerPort": 8080, "hostPort": 80, "hostIP": "127.0.0.1"},
            {"containerPort": 8081, "hostPort": 80, "hostIP": "192.0.2.1"},
            {"containerPort": 8082, "hostPort": 80, "hostIP": "192.0.2.1", "protocol": "UDP"},
            {"containerPort": 8083, "hostPort": 80, "hostIP": "192.0.2.1", "protocol": "SCTP"},
        ]);
        let expected = [
            "127.0.0.1:80/TCP -> 10.244.0.5:8080",
            "192.0.2.1:80/TCP -> 10.244.0.5:8081",
            "192.0.2.1:80/UDP -> 10.244.0.5:8082",
            "192.0.2.1:80/SCTP -> 10.244.0.5:8083",
        ];
        check(&ports, &running(), &expected);
    }

    #[test]
    fn without_an_address_every_one_of_the_pods_families_is_bound() {
        let ports = json!([{"containerPort": 8080, "hostPort": 80}]);
        let v4 = ["192.0.2.1:80/TCP -> 10.244.0.5:8080", "127.0.0.1:80/TCP -> 10.244.0.5:8080"];
        check(&ports, &running(), &v4);
        let both = json!({"podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}]});
        let v6 = ["[2001:db8::1]:80/TCP -> [fd00::5]:8080", "[::1]:80/TCP -> [fd00::5]:8080"];
        check(&ports, &both, &[&v4[..], &v6[..]].concat());
        let any = json!([{"containerPort": 8080, "hostPort": 80, "hostIP": "0.0.0.0"}]);
        check(&any, &running(), &v4);
    }

    #[test]
    fn an_address_that_no_interface_has_yet_is_bound_too_and_a_wrong_one_is_not() {
        let port = |ip: &str| json!([{"containerPort": 8080, "hostPort": 80, "hostIP": ip}]);
        check(&port("198.51.100.1"), &running(), &["198.51.100.1:80/TCP -> 10.244.0.5:8080"]);
        check(&port("nonsense"), &running(), &[]);
        check(&port("2001:db8::1"), &running(), &[]);
    }

    #[test]
    fn pods_that_are_over_have_no_address_or_no_network_of_their_own_bind_nothing() {
        let ports = json!([{"containerPort": 8080, "hostPort": 80}]);
        check(&ports, &json!({"phase": "Succeeded", "podIP": "10.244.0.5"}), &[]);
        check(&ports, &json!({"phase": "Pending"}), &[]);
        check(&json!([{"containerPort": 8080}]), &running(), &[]);
        let host = json!({"hostNetwork": true, "containers": [{"name": "c", "ports": ports}]});
        assert_eq!(HostPorts::of_pods(&[pod(&host, &running())]), HostPorts::default());
    }

    #[test]
    fn sidecars_bind_and_other_init_containers_do_not() {
        let with = |policy: Value| {
            let init = json!([{"name": "i", "restartPolicy": policy,
                "ports": [{"containerPort": 8080, "hostPort": 80}]}]);
            let spec = json!({"containers": [{"name": "c"}], "initContainers": init});
            HostPorts::of_pods(&[pod(&spec, &running())]).0.len()
        };
        assert_eq!((with(json!("Always")), with(Value::Null)), (1, 0));
    }

    #[test]
    fn only_what_differs_has_changed() {
        let with = |port: u16| {
            let ports = json!([{"containerPort": 8080, "hostPort": port}]);
            HostPorts::of_pods(&[pod(&json!({"containers": [{"name": "c", "ports": ports}]}), &running())])
        };
        let count = |now: &HostPorts, before: &HostPorts| now.changed(before).collect::<BTreeSet<_>>().len();
        assert_eq!(count(&with(80), &with(80)), 0);
        assert_eq!(count(&with(80), &with(81)), 1);
        assert_eq!(count(&HostPorts::default(), &with(81)), 1);
    }
}
