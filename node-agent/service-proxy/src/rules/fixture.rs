//! Services that show every kind of rule, and texts to compare with: `SKEP_BLESS=1` writes them anew.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Ground;
use crate::desired::{NodeView, ServiceTables, service_tables};
use crate::names::ServiceName;
use crate::objects::{ServiceView, SliceView};

/// The node of the examples.
pub(super) fn ground() -> Ground {
    let nets = |list: &[&str]| list.iter().map(|net| net.parse().expect("a network")).collect();
    Ground {
        node_addresses: node().node_port_addresses.into_iter().collect(),
        pods: nets(&["10.244.0.0/16", "fd00:10:244::/56"]),
        services: nets(&["10.96.0.0/16"]),
        keep_source: nets(&["10.244.0.0/16", "10.96.0.0/16"]),
        masquerade_all: false,
    }
}

fn node() -> NodeView {
    NodeView {
        zone: None,
        node_port_addresses: ["192.0.2.1", "127.0.0.1"]
            .map(|text| text.parse().expect("an address"))
            .to_vec(),
        by_hash: false,
    }
}

/// A service named `name` with endpoints: an address, and the node it is on.
pub(super) fn tables(name: &str, spec: &Value, endpoints: &[(&str, &str)]) -> (ServiceName, ServiceTables) {
    let mut object = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
    if spec["type"] == "LoadBalancer" {
        object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}});
    }
    let service = ServiceView::of(&serde_json::from_value(object).expect("a service"));
    let ports: Vec<Value> = spec["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| json!({"name": port["name"], "port": 8080, "protocol": port["protocol"]}))
        .collect();
    let slices = ["IPv4", "IPv6"].map(|family| {
        let own = endpoints.iter().filter(|(address, _)| address.contains(':') == (family == "IPv6"));
        let endpoints: Vec<Value> =
            own.map(|(address, node)| json!({"addresses": [address], "nodeName": node})).collect();
        let slice = json!({"addressType": family, "metadata": {}, "ports": ports, "endpoints": endpoints});
        Arc::new(SliceView::of(&serde_json::from_value(slice).expect("a slice"), "n1"))
    });
    let name = ServiceName { namespace: "ns".to_owned(), name: name.to_owned() };
    (name, service_tables(&service, &slices, &node()))
}

/// One of every kind.
pub(super) fn every_kind() -> Vec<(ServiceName, ServiceTables)> {
    let (here, there) = (("10.244.0.5", "n1"), ("10.244.1.6", "n2"));
    let http = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    vec![
        tables("plain", &json!({"clusterIP": "10.96.0.2", "ports": http}), &[here, there]),
        tables(
            "sticky",
            &json!({"clusterIP": "10.96.0.3", "ports": http, "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}),
            &[here, there],
        ),
        tables(
            "edge",
            &json!({"type": "LoadBalancer", "clusterIP": "10.96.0.4", "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 32000, "externalIPs": ["203.0.113.1"],
                "loadBalancerSourceRanges": ["198.51.100.0/24"],
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]}),
            &[here, there],
        ),
        tables(
            "far",
            &json!({"type": "NodePort", "clusterIP": "10.96.0.5", "externalTrafficPolicy": "Local",
                "internalTrafficPolicy": "Local",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30081}]}),
            &[there],
        ),
        tables(
            "empty",
            &json!({"type": "NodePort", "clusterIP": "10.96.0.6",
                "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]}),
            &[],
        ),
        tables(
            "dual",
            &json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
                "ports": [{"name": "sig", "port": 5060, "protocol": "SCTP"}]}),
            &[here, ("fd00:10:244::5", "n1")],
        ),
    ]
}

/// Compares with a text of the folder `golden`.
#[track_caller]
pub(super) fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules/golden").join(name);
    if std::env::var("SKEP_BLESS").as_deref() == Ok("1") {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        std::fs::write(&path, found).expect("the text is written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{name} differs (SKEP_BLESS=1 writes it anew):\n{found}");
}
