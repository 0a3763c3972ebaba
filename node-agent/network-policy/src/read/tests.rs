//! Objects as the API server hands them out.

use serde_json::{Value, json};
use skep_ebpf_abi::{SCTP, TCP, UDP};

use super::*;

fn read(spec: &Value) -> Result<Policy, ReadError> {
    let object = json!({"metadata": {"namespace": "a", "name": "p"}, "spec": spec});
    policy(&serde_json::from_value(object).expect("a policy"))
}

#[test]
fn types_are_as_documented() {
    let shape =
        |spec| read(&spec).map(|p| (p.ingress.map(|r| r.len()), p.egress.map(|r| r.len()))).expect("reads");
    assert_eq!(shape(json!({"podSelector": {}})), (Some(0), None), "ingress is the default");
    assert_eq!(shape(json!({"podSelector": {}, "egress": [{}]})), (Some(0), Some(1)));
    assert_eq!(shape(json!({"podSelector": {}, "policyTypes": ["Egress"]})), (None, Some(0)));
    assert_eq!(
        shape(json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]})),
        (Some(0), None)
    );
}

#[test]
fn peers_and_ports_of_every_form() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{
        "from": [
            {"podSelector": {}},
            {"namespaceSelector": {"matchLabels": {"team": "b"}}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        ],
        "ports": [{"port": 80}, {"port": "dns", "protocol": "UDP"}, {"protocol": "SCTP"},
            {"port": 32000, "endPort": 32768, "protocol": "TCP"}],
    }]});
    let policy = read(&spec).expect("reads");
    let [rule] = policy.rules(0).expect("ingress") else { panic!("{policy:?}") };
    let [
        Peer::Pods { namespaces: None, pods },
        Peer::Pods { namespaces: Some(_), pods: all },
        Peer::Block { except, .. },
    ] = rule.peers.as_slice()
    else {
        panic!("{rule:?}")
    };
    assert!(pods.is_empty() && all.is_empty() && except.len() == 1);
    let ports: Vec<_> = rule.ports.iter().map(|port| (port.protocol, port.ports.clone())).collect();
    assert_eq!(
        ports,
        [
            (TCP, Ports::Range(80, 80)),
            (UDP, Ports::Named("dns".into())),
            (SCTP, Ports::All),
            (TCP, Ports::Range(32000, 32768)),
        ]
    );
}

#[test]
fn what_cannot_be_read_is_told_and_closes() {
    let block = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}]});
    assert_eq!(read(&block), Err(ReadError::Block("10.0.0.0/99".into())));
    let port = json!({"podSelector": {}, "ingress": [{"ports": [{"port": 70000}]}]});
    assert!(matches!(read(&port), Err(ReadError::Port(_))));
    let object = json!({"metadata": {"namespace": "a", "name": "p"}, "spec": block});
    let closed = closed(&serde_json::from_value(object).expect("a policy"));
    assert_eq!((closed.ingress, closed.egress), (Some(vec![]), None), "it allows nothing");
}

#[test]
fn pods_in_the_nodes_network_and_those_that_are_over_are_none() {
    let read = |spec: Value, status: Value| {
        let object = json!({"metadata": {"namespace": "a", "name": "p", "labels": {"app": "web"}}, "spec": spec, "status": status});
        pod(&serde_json::from_value(object).expect("a pod"))
    };
    let spec = json!({"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}]});
    let status = json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
    let info = read(spec.clone(), status.clone()).expect("a pod");
    assert_eq!(info.ips.len(), 2);
    assert_eq!(info.identity.ports.len(), 1, "only named ports tell pods apart");
    let host = json!({"containers": [], "hostNetwork": true});
    assert_eq!(read(host, status), None);
    assert_eq!(read(spec, json!({"phase": "Failed", "podIP": "10.0.0.1"})), None);
}
