//! Services and slices as users write them, and the tables that come of them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use skep_ebpf_loader::tables::{kind_name, protocol_name, socket_address};

use super::{NodeView, ServiceTables, service_tables};
use crate::names::Scope;
use crate::objects::{ServiceView, SliceView};

fn node() -> NodeView {
    NodeView {
        zone: None,
        node_port_addresses: ["192.0.2.1", "127.0.0.1", "2001:db8::1"]
            .map(|text| text.parse().expect("an address"))
            .to_vec(),
        by_hash: false,
    }
}

fn service(spec: &Value) -> Service {
    let object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
    serde_json::from_value(object).expect("a service")
}

fn slice(family: &str, ports: &Value, endpoints: &Value) -> Arc<SliceView> {
    let object =
        json!({"addressType": family, "metadata": {"name": "x"}, "ports": ports, "endpoints": endpoints});
    Arc::new(SliceView::of(&serde_json::from_value(object).expect("a slice"), "n1"))
}

/// `address/protocol kind -> external | internal`, each as scope and backends.
fn dump(tables: &ServiceTables) -> Vec<String> {
    let set = |name| {
        let set: &super::DesiredSet = &tables.sets[name];
        let scope = if name.scope == Scope::Local { "local" } else { "all" };
        let backends: Vec<String> =
            set.backends.iter().map(|b| socket_address(b.addr, b.port.to_be()).to_string()).collect();
        let drop = if set.drop_when_empty { " drop" } else { "" };
        format!("{scope}[{}]{drop}", backends.join(" "))
    };
    tables
        .frontends
        .iter()
        .map(|(key, value)| {
            let address = socket_address(key.addr, key.port_be);
            let (external, internal) = (set(&value.external), set(&value.internal));
            let kind = kind_name(value.flags);
            format!("{address}/{} {kind} {external} | {internal}", protocol_name(key.protocol))
        })
        .collect()
}

#[track_caller]
fn check(spec: &Value, slices: &[Arc<SliceView>], expected: &[&str]) {
    let mut found = dump(&service_tables(&ServiceView::of(&service(spec)), slices, &node()));
    let mut expected: Vec<String> = expected.iter().map(|&line| line.to_owned()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

fn two_pods() -> Vec<Arc<SliceView>> {
    let endpoints = json!([
        {"addresses": ["10.244.0.5"], "nodeName": "n1", "conditions": {"ready": true}},
        {"addresses": ["10.244.1.6"], "nodeName": "n2"},
    ]);
    vec![slice("IPv4", &json!([{"name": "", "port": 8080, "protocol": "TCP"}]), &endpoints)]
}

#[test]
fn a_cluster_ip() {
    let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
    let all = "all[10.244.0.5:8080 10.244.1.6:8080]";
    check(&spec, &two_pods(), &[&format!("10.96.0.9:80/TCP ClusterIP {all} | {all}")]);
    check(&spec, &[], &["10.96.0.9:80/TCP ClusterIP all[] | all[]"]);
}

#[test]
fn a_node_port_is_served_on_every_address_of_its_family() {
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
        "ipFamilies": ["IPv4"], "ports": [{"port": 80, "nodePort": 30080}], "externalTrafficPolicy": "Local"});
    let (all, local) = ("all[10.244.0.5:8080 10.244.1.6:8080]", "local[10.244.0.5:8080]");
    check(
        &spec,
        &two_pods(),
        &[
            &format!("10.96.0.9:80/TCP ClusterIP {all} | {all}"),
            &format!("192.0.2.1:30080/TCP NodePort {local} | {all}"),
            &format!("127.0.0.1:30080/TCP NodePort {local} | {all}"),
        ],
    );
}

#[test]
fn an_internal_policy_of_local_drops_when_only_other_nodes_serve() {
    let endpoints = json!([{"addresses": ["10.244.1.6"], "nodeName": "n2"}]);
    let slices = [slice("IPv4", &json!([{"name": "", "port": 8080}]), &endpoints)];
    let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}], "internalTrafficPolicy": "Local"});
    check(&spec, &slices, &["10.96.0.9:80/TCP ClusterIP local[] drop | local[] drop"]);
}

#[test]
fn what_is_not_ours_has_no_tables() {
    check(&json!({"clusterIP": "None", "ports": [{"port": 80}]}), &two_pods(), &[]);
    check(&json!({"type": "ExternalName", "externalName": "x.example"}), &two_pods(), &[]);
    let mut other = service(&json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}));
    other.metadata.labels =
        Some([("service.kubernetes.io/service-proxy-name".to_owned(), "x".to_owned())].into());
    assert_eq!(service_tables(&ServiceView::of(&other), &two_pods(), &node()), ServiceTables::default());
}

#[test]
fn slices_with_different_ports_and_both_families_are_merged() {
    let at = |address: &str| json!([{"addresses": [address]}]);
    let slices = [
        slice("IPv4", &json!([{"name": "dns", "port": 53, "protocol": "UDP"}]), &at("10.244.0.5")),
        slice("IPv4", &json!([{"name": "dns", "port": 5353, "protocol": "UDP"}]), &at("10.244.0.6")),
        slice("IPv4", &json!([{"name": "dns", "port": 53, "protocol": "TCP"}]), &at("10.244.0.7")),
        slice("IPv6", &json!([{"name": "dns", "port": 53, "protocol": "UDP"}]), &at("fd00::5")),
    ];
    let spec = json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::a"],
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]});
    let (v4, v6) = ("all[10.244.0.5:53 10.244.0.6:5353]", "all[[fd00::5]:53]");
    check(
        &spec,
        &slices,
        &[
            &format!("10.96.0.10:53/UDP ClusterIP {v4} | {v4}"),
            &format!("[fd00:96::a]:53/UDP ClusterIP {v6} | {v6}"),
        ],
    );
}

#[test]
fn a_load_balancer_is_short_cut_unless_it_must_see_the_traffic() {
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": [{"port": 80}],
        "loadBalancerSourceRanges": ["198.51.100.0/24"], "externalIPs": ["203.0.113.1"]});
    let mut service = service(&spec);
    let status = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.9"}, {"ip": "203.0.113.10", "ipMode": "Proxy"}, {"hostname": "x.example"}]}});
    service.status = Some(serde_json::from_value(status).expect("a status"));
    let tables = service_tables(&ServiceView::of(&service), &two_pods(), &node());
    let dumped = dump(&tables).join("\n");
    assert!(dumped.contains("203.0.113.9:80/TCP LoadBalancer"), "{dumped}");
    assert!(dumped.contains("203.0.113.1:80/TCP ExternalIP"), "{dumped}");
    assert!(!dumped.contains("203.0.113.10"), "{dumped}");
    assert_eq!(tables.ranges.len(), 1);
}

#[test]
fn affinity_has_its_default_timeout() {
    let seconds = |spec| {
        let tables = service_tables(&ServiceView::of(&service(&spec)), &two_pods(), &node());
        tables.sets.values().next().expect("a set").affinity_seconds
    };
    let with = |extra: Value| {
        let mut spec = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
        spec.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        spec
    };
    assert_eq!(seconds(with(json!({}))), 0);
    assert_eq!(seconds(with(json!({"sessionAffinity": "ClientIP"}))), 10_800);
    let config = json!({"clientIP": {"timeoutSeconds": 60}});
    assert_eq!(seconds(with(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}))), 60);
}
