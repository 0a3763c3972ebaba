//! Why one may talk to another, or not: a pure function of the cluster's objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::policy::{direction, peer};
use skep_ebpf_loader::policy::{Decision, PolicyTables, direction_name};

use crate::model::{ClusterDns, Labels, ObjectName, PodInfo, Policy, RuleName};
use crate::table::{Entries, Selected, Surroundings, fixed, of_identity};

/// The cluster as far as policies look at it.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// All policies.
    pub policies: Vec<Arc<Policy>>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<String, Labels>,
    /// All pods that have networks of their own.
    pub pods: BTreeMap<ObjectName, PodInfo>,
    /// The addresses of each pod's node.
    pub own_nodes: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// The addresses of all nodes.
    pub nodes: BTreeSet<IpAddr>,
    /// The cluster's DNS.
    pub dns: ClusterDns,
}

/// One end of what is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A pod.
    Pod(ObjectName),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => name.fmt(f),
            Self::Address(ip) => ip.fmt(f),
        }
    }
}

/// What is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose.
    pub end: End,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// What is asked cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Not a name or address.
    #[error("{0:?} is no pod (NAMESPACE/NAME, or NAME in the namespace `default`) and no address")]
    End(String),
    /// Not a target.
    #[error("{0:?} is not POD:PORT or POD:PORT/PROTOCOL (tcp, udp or sctp)")]
    Target(String),
    /// Nobody of that name.
    #[error("there is no pod {0} with a network of its own")]
    NoPod(ObjectName),
}

impl std::str::FromStr for End {
    type Err = AskError;

    fn from_str(text: &str) -> Result<Self, AskError> {
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Self::Address(ip));
        }
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        let is_name = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        };
        if is_name(namespace) && is_name(name) {
            Ok(Self::Pod(ObjectName::new(namespace, name)))
        } else {
            Err(AskError::End(text.to_owned()))
        }
    }
}

impl std::str::FromStr for Target {
    type Err = AskError;

    fn from_str(text: &str) -> Result<Self, AskError> {
        let wrong = || AskError::Target(text.to_owned());
        let (end, rest) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (port, protocol) = rest.split_once('/').unwrap_or((rest, "tcp"));
        let protocol = crate::read::protocol(&protocol.to_ascii_uppercase()).ok_or_else(wrong)?;
        Ok(Self { end: end.parse()?, protocol, port: port.parse().map_err(|_| wrong())? })
    }
}

/// The answer for one of the two pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The pod.
    pub pod: String,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// The policies that isolate it in this direction.
    pub policies: Vec<String>,
    /// What is so.
    pub verdict: Verdict,
}

/// What is so, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// A rule allows it.
    Rule(RuleName),
    /// It is the pod itself.
    Itself,
    /// It is the pod's own node.
    OwnNode,
    /// No rule allows it.
    Denied,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was asked.
    pub question: String,
    /// Whether it may be.
    pub allowed: bool,
    /// For each end that is a pod.
    pub sides: Vec<Side>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.question, if self.allowed { "allowed" } else { "denied" })?;
        for Side { pod, direction, policies, verdict } in &self.sides {
            let why = match verdict {
                Verdict::NotIsolated => format!("allowed: no policy isolates it for {direction}"),
                Verdict::Rule(rule) => format!("allowed by {rule}"),
                Verdict::Itself => "allowed: it is the pod itself".to_owned(),
                Verdict::OwnNode => "allowed: it is the pod's own node".to_owned(),
                Verdict::Denied => {
                    format!("denied: isolated by {}, and no rule allows this", policies.join(", "))
                }
            };
            writeln!(f, "  {direction} of {pod}: {why}")?;
        }
        if self.sides.is_empty() {
            writeln!(f, "  neither end is a pod with a network of its own")?;
        }
        Ok(())
    }
}

/// Says why.
///
/// # Errors
/// When an end is a pod that is not there.
pub fn explain(cluster: &Cluster, from: &End, to: &Target) -> Result<Explanation, AskError> {
    let (source, target) = (cluster.who(from)?, cluster.who(&to.end)?);
    let mut sides = Vec::new();
    for (own, other, direction) in
        [(&source, &target, direction::EGRESS), (&target, &source, direction::INGRESS)]
    {
        if let Some((name, pod)) = &own.pod {
            sides.push(cluster.side(name, pod, other, direction, to));
        }
    }
    let protocol = skep_ebpf_loader::tables::protocol_name(to.protocol);
    Ok(Explanation {
        question: format!("{from} -> {}:{}/{protocol}", to.end, to.port),
        allowed: sides.iter().all(|side| side.verdict != Verdict::Denied),
        sides,
    })
}

/// An end, found.
struct Who {
    pod: Option<(ObjectName, PodInfo)>,
    ip: Option<IpAddr>,
}

impl Cluster {
    fn who(&self, end: &End) -> Result<Who, AskError> {
        match end {
            End::Pod(name) => {
                let pod = self.pods.get(name).ok_or_else(|| AskError::NoPod(name.clone()))?;
                Ok(Who { ip: pod.ips.first().copied(), pod: Some((name.clone(), pod.clone())) })
            }
            End::Address(ip) => {
                let pod = self.pods.iter().find(|(_, pod)| pod.ips.contains(ip));
                Ok(Who { ip: Some(*ip), pod: pod.map(|(name, pod)| (name.clone(), pod.clone())) })
            }
        }
    }

    fn side(&self, name: &ObjectName, pod: &PodInfo, other: &Who, direction: u8, to: &Target) -> Side {
        let selects = |policy: &&Arc<Policy>| policy.selects(&pod.identity);
        let policies: Vec<Arc<Policy>> = self.policies.iter().filter(selects).cloned().collect();
        let isolating = policies.iter().filter(|policy| policy.rules(direction).is_some());
        let isolating: Vec<String> = isolating.map(|policy| policy.name.to_string()).collect();
        let is_itself = other.pod.as_ref().is_some_and(|(other, _)| other == name);
        let own_node = self.own_nodes.get(name);
        let is_own_node = direction == direction::INGRESS
            && other.ip.is_some_and(|ip| own_node.is_some_and(|own| own.contains(&ip)));
        let verdict = if isolating.is_empty() {
            Verdict::NotIsolated
        } else if is_itself {
            Verdict::Itself
        } else if is_own_node {
            Verdict::OwnNode
        } else {
            self.by_rules(&Selected { policies, ports: pod.identity.ports.clone() }, other, direction, to)
        };
        Side { pod: name.to_string(), direction: direction_name(direction), policies: isolating, verdict }
    }

    /// By the very tables that the kernel would have.
    fn by_rules(&self, selected: &Selected, other: &Who, direction: u8, to: &Target) -> Verdict {
        let around = Surroundings { namespaces: &self.namespaces, dns: &self.dns };
        let fixed = fixed(selected, around);
        let mut names: Vec<RuleName> = Vec::new();
        let mut tables = PolicyTables { blocks: fixed.blocks, ..PolicyTables::default() };
        let mut put = |entries: &Entries| {
            for (entry, name) in entries {
                tables.rules.insert(entry.at(0), u32::try_from(names.len()).unwrap_or(u32::MAX));
                names.push(name.clone());
            }
        };
        put(&fixed.entries);
        let identity = match &other.pod {
            Some((_, pod)) => {
                put(&of_identity(selected, (peer::FIRST_POD, &pod.identity), around));
                peer::FIRST_POD
            }
            None if other.ip.is_some_and(|ip| self.nodes.contains(&ip)) => peer::NODE,
            None => peer::WORLD,
        };
        let addr = other.ip.map_or(Addr::UNSPECIFIED, Addr::from);
        match tables.decide_in(0, direction, (identity, addr), to.protocol, to.port) {
            Decision::Rule(id) => match names.get(id as usize) {
                Some(name) => Verdict::Rule(name.clone()),
                None => Verdict::Denied,
            },
            Decision::NotIsolated | Decision::Always | Decision::Denied => Verdict::Denied,
        }
    }
}

#[cfg(test)]
mod tests;
