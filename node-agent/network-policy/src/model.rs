//! What policies are about, free of the API's optional fields: pods, namespaces, and policies as they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use skep_api::selector::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A namespace and a name in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectName {
    /// A name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port of a container, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// The transport protocol's number.
    pub protocol: u8,
    /// Its number.
    pub port: u16,
}

/// What policies can tell pods apart by. All pods that are equal in this have one number on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The pods' namespace.
    pub namespace: String,
    /// Their labels.
    pub labels: Labels,
    /// The named ports of their containers: rules of other pods may name them.
    pub ports: BTreeSet<NamedPort>,
}

/// A pod as policies see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodInfo {
    /// Who it is.
    pub identity: Identity,
    /// Its addresses; none for a pod in its node's network, which is the node to policies.
    pub ips: Vec<IpAddr>,
}

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: ObjectName,
    /// The pods of its namespace that it selects.
    pub selects: LabelSelector,
    /// What the pods accept; `None`: the policy says nothing of it.
    pub ingress: Option<Vec<Rule>>,
    /// What the pods may open; `None`: the policy says nothing of it.
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    /// Whether it selects a pod.
    pub fn selects(&self, pod: &Identity) -> bool {
        self.name.namespace == pod.namespace && self.selects.matches_map(Some(&pod.labels))
    }

    /// Its rules of a direction, see [`skep_ebpf_abi::policy::direction`].
    pub fn rules(&self, direction: u8) -> Option<&[Rule]> {
        let rules =
            if direction == skep_ebpf_abi::policy::direction::INGRESS { &self.ingress } else { &self.egress };
        rules.as_deref()
    }
}

/// One rule: any of the peers at any of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The other side; empty: anyone.
    pub peers: Vec<Peer>,
    /// What is dialled; empty: everything.
    pub ports: Vec<Port>,
}

/// The other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods.
    Pods {
        /// Of which namespaces; `None`: of the policy's own.
        namespaces: Option<LabelSelector>,
        /// Which pods there.
        pods: LabelSelector,
    },
    /// Addresses.
    Block {
        /// The block.
        net: IpNet,
        /// But not these parts of it.
        except: Vec<IpNet>,
    },
}

/// What is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The transport protocol's number.
    pub protocol: u8,
    /// Which ports.
    pub ports: Ports,
}

/// Ports of a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// All.
    All,
    /// From the first to the last.
    Range(u16, u16),
    /// The one that the dialled pod has under this name.
    Named(String),
}

/// The cluster's DNS, which nodes answer themselves at a port of their own. Policies that allow it mean pods with
/// these labels and port 53, as everywhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDns {
    /// The port on the nodes' addresses; 0: there is none.
    pub port: u16,
}

impl ClusterDns {
    /// The pods that it pretends to be.
    pub fn identity(&self) -> Identity {
        let port = |name: &str, protocol| NamedPort { name: name.to_owned(), protocol, port: DNS_PORT };
        Identity {
            namespace: "kube-system".to_owned(),
            labels: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
            ports: [port("dns", skep_ebpf_abi::UDP), port("dns-tcp", skep_ebpf_abi::TCP)].into(),
        }
    }
}

/// The port that policies name.
pub const DNS_PORT: u16 = 53;

/// Which rule of which policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct RuleName {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Its place in the policy, from 0.
    pub index: usize,
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.policy, self.direction, self.index)
    }
}
