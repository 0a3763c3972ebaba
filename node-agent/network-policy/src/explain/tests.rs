//! Questions and their answers as people read them.

use super::*;
use crate::model::{Identity, Peer, Port, Ports, Rule};
use skep_api::selector::LabelSelector;

fn cluster() -> Cluster {
    let selector = |text: &str| LabelSelector::parse(text).expect("a selector");
    let pod = |namespace: &str, name: &str, app: &str, ip: &str| {
        let labels = [("app".to_owned(), app.to_owned())].into();
        let identity = Identity { namespace: namespace.into(), labels, ..Identity::default() };
        (ObjectName::new(namespace, name), PodInfo { identity, ips: vec![ip.parse().expect("an address")] })
    };
    let rule = Rule {
        peers: vec![Peer::Pods { namespaces: None, pods: selector("app=client") }],
        ports: vec![Port { protocol: skep_ebpf_abi::TCP, ports: Ports::Range(80, 80) }],
    };
    let policy = |name: &str, ingress, egress| {
        Arc::new(Policy { name: ObjectName::new("a", name), selects: selector("app=web"), ingress, egress })
    };
    let node: IpAddr = "192.0.2.1".parse().expect("an address");
    Cluster {
        policies: vec![policy("allow", Some(vec![rule]), None), policy("deny", Some(vec![]), None)],
        namespaces: [("a".to_owned(), Labels::new())].into(),
        pods: [
            pod("a", "web", "web", "10.0.0.1"),
            pod("a", "client", "client", "10.0.0.2"),
            pod("b", "client", "client", "10.0.0.3"),
        ]
        .into(),
        own_nodes: [(ObjectName::new("a", "web"), vec![node])].into(),
        nodes: [node, "192.0.2.2".parse().expect("an address")].into(),
        dns: ClusterDns::default(),
    }
}

fn ask(from: &str, to: &str) -> String {
    let question = (from.parse().expect("an end"), to.parse().expect("a target"));
    explain(&cluster(), &question.0, &question.1).expect("an answer").to_string()
}

#[test]
fn answers_name_policies_and_rules() {
    assert_eq!(
        ask("a/client", "a/web:80"),
        "a/client -> a/web:80/TCP: allowed\n  \
         egress of a/client: allowed: no policy isolates it for egress\n  \
         ingress of a/web: allowed by a/allow ingress[0]\n"
    );
    assert_eq!(
        ask("b/client", "a/web:80/tcp"),
        "b/client -> a/web:80/TCP: denied\n  \
         egress of b/client: allowed: no policy isolates it for egress\n  \
         ingress of a/web: denied: isolated by a/allow, a/deny, and no rule allows this\n"
    );
    assert!(ask("a/client", "a/web:80/udp").contains("denied"));
    assert!(ask("192.0.2.1", "a/web:9").contains("it is the pod's own node"));
    assert!(ask("192.0.2.2", "a/web:9").contains("denied"));
    assert!(ask("a/web", "10.0.0.1:9").contains("it is the pod itself"));
    assert!(ask("10.0.0.2", "a/web:80").contains("allowed by"), "an address of a pod is the pod");
    assert!(ask("198.51.100.1", "192.0.2.2:22").contains("neither end"));
}

#[test]
fn questions_that_cannot_be_are_told() {
    for text in ["", "a/b/c", "a b", "/x"] {
        assert!(text.parse::<End>().is_err(), "{text}");
    }
    for text in ["web", "web:x", "web:80/icmp", "a/b:70000"] {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
    assert_eq!("[fd00::1]".parse::<End>(), Ok(End::Address("fd00::1".parse().expect("an address"))));
    let target: Target = "[fd00::1]:53/udp".parse().expect("a target");
    assert_eq!((target.protocol, target.port), (skep_ebpf_abi::UDP, 53));
    let nobody = explain(&cluster(), &"a/nobody".parse().expect("an end"), &target);
    assert_eq!(nobody, Err(AskError::NoPod(ObjectName::new("a", "nobody"))));
}
