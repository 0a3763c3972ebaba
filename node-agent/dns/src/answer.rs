//! The answer to a question about the cluster: a pure function of the index.

use std::net::IpAddr;

use hickory_proto::{
    ProtoError,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, NS, PTR, SOA, SRV, TXT},
    },
};
use ipnet::IpNet;

use crate::{
    entry::{self, Endpoint, Entry, Port},
    index::{Index, ReverseName, ServiceKey},
};

/// The version of the DNS schema that is answered.
const SCHEMA_VERSION: &str = "1.1.0";
/// More records than fit into the largest message (64 KiB, 16 bytes for an address) are not made.
const MAX_RECORDS: usize = 4096;
/// Aliases may point to aliases; not for ever.
const MAX_ALIASES: usize = 8;

/// What there is to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Records, with what helps to use them.
    Records {
        /// The answers.
        answers: Vec<Record>,
        /// Addresses of the names in the answers.
        additionals: Vec<Record>,
    },
    /// An alias that leads out of the cluster: the records so far, and the name to go on with.
    Alias {
        /// The aliases.
        answers: Vec<Record>,
        /// Where they lead.
        target: Name,
    },
    /// The name exists, but not with this type.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// Not about the cluster.
    Elsewhere,
}

/// Answers a question. Names are compared without case; answers carry the name as it was asked.
#[must_use]
pub fn answer(index: &Index, name: &Name, kind: RecordType) -> Answer {
    let mut aliases: Vec<Record> = Vec::new();
    let mut asked = name.clone();
    asked.set_fqdn(true);
    loop {
        match step(index, &asked, kind) {
            Outcome::Alias(target) => {
                let Some(next) = qualified(&target) else { return Answer::NoData };
                let alias = RData::CNAME(CNAME(next.clone()));
                aliases.push(Record::from_rdata(asked, index.zone().ttl, alias));
                if matches!(kind, RecordType::CNAME | RecordType::ANY) || aliases.len() >= MAX_ALIASES {
                    return Answer::Records { answers: aliases, additionals: Vec::new() };
                }
                asked = next;
            }
            Outcome::Elsewhere if aliases.is_empty() => return Answer::Elsewhere,
            Outcome::Elsewhere => return Answer::Alias { answers: aliases, target: asked },
            Outcome::Data { mut answers, additionals } => {
                answers.truncate(MAX_RECORDS);
                aliases.append(&mut answers);
                return Answer::Records { answers: aliases, additionals };
            }
            // The alias itself is an answer, wherever it leads.
            Outcome::NoData | Outcome::NxDomain if !aliases.is_empty() => {
                return Answer::Records { answers: aliases, additionals: Vec::new() };
            }
            Outcome::NoData => return Answer::NoData,
            Outcome::NxDomain => return Answer::NxDomain,
        }
    }
}

/// The record that goes with a negative answer about a name: the SOA of the zone that it is in. How long the
/// answer may be kept is the smaller of its two TTLs (RFC 2308).
#[must_use]
pub fn authority(index: &Index, name: &Name) -> Option<Record> {
    let zone = index.zone();
    let apex = match name.parse_arpa_name().ok().and_then(|net| zone.reverse_apex(net)) {
        Some(net) => reverse_name(net),
        None => zone.domain.clone(),
    };
    soa(index).ok().map(|soa| Record::from_rdata(apex, zone.negative_ttl, RData::SOA(soa)))
}

/// The name under which the addresses of a range are looked up.
fn reverse_name(net: IpNet) -> Name {
    let bits_of_label = if net.addr().is_ipv4() { 8 } else { 4 };
    Name::from(net.addr()).trim_to(2 + usize::from(net.prefix_len() / bits_of_label))
}

/// What one name says, aliases not followed.
enum Outcome {
    Data { answers: Vec<Record>, additionals: Vec<Record> },
    Alias(String),
    NoData,
    NxDomain,
    Elsewhere,
}

fn step(index: &Index, name: &Name, kind: RecordType) -> Outcome {
    if let Ok(net) = name.parse_arpa_name() {
        return reverse(index, name, kind, net);
    }
    let zone = &index.zone().domain;
    let lower = name.to_lowercase();
    if !zone.zone_of(&lower) {
        return if lower.is_localhost() { localhost(index, name, kind) } else { Outcome::Elsewhere };
    }
    let depth = usize::from(lower.num_labels() - zone.num_labels());
    let labels: Option<Vec<&str>> =
        lower.iter().take(depth).map(|label| std::str::from_utf8(label).ok()).collect();
    // No name of the cluster has other bytes than ASCII.
    let Some(labels) = labels else { return Outcome::NxDomain };
    match labels.as_slice() {
        [] => apex(index, name, kind),
        ["dns-version"] => data(index, name, kind, [RData::TXT(TXT::new(vec![SCHEMA_VERSION.into()]))]),
        ["dns" | "svc" | "pod"] | [_, "pod"] => Outcome::NoData,
        ["ns", "dns"] => dns_server(index, name, kind),
        [address, _, "pod"] => match entry::undashed(address) {
            Some(ip) => addresses(index, name, kind, [ip]),
            None => Outcome::NxDomain,
        },
        [namespace, "svc"] if index.has_namespace(namespace) => Outcome::NoData,
        [before @ .., service, namespace, "svc"] => {
            let key = ServiceKey { namespace: (*namespace).to_owned(), name: (*service).to_owned() };
            match index.get(&key) {
                Some(entry) => in_service(index, name, kind, entry, before),
                None => Outcome::NxDomain,
            }
        }
        _ => Outcome::NxDomain,
    }
}

/// A name that ends in a service's; `before` is what stands in front.
fn in_service(index: &Index, name: &Name, kind: RecordType, entry: &Entry, before: &[&str]) -> Outcome {
    match (entry, before) {
        (Entry::Alias { target }, []) => Outcome::Alias(target.clone()),
        (Entry::Virtual { ips, .. }, []) => addresses(index, name, kind, ips.iter().copied()),
        // As the specification wants it: no ready endpoint, no name.
        (Entry::Headless { endpoints }, _) if endpoints.is_empty() => Outcome::NxDomain,
        (Entry::Headless { endpoints }, []) => {
            addresses(index, name, kind, endpoints.values().flat_map(|e| e.ips.iter().copied()))
        }
        (_, [protocol]) if protocol.starts_with('_') => {
            let there = ports(entry).any(|(_, port)| is(protocol, &port.protocol));
            if there { Outcome::NoData } else { Outcome::NxDomain }
        }
        (_, [port, protocol]) if protocol.starts_with('_') => {
            services(index, name, kind, entry, port, protocol)
        }
        (Entry::Headless { endpoints } | Entry::Virtual { endpoints, .. }, [label]) => {
            match endpoints.get(*label) {
                Some(endpoint) => addresses(index, name, kind, endpoint.ips.iter().copied()),
                None => Outcome::NxDomain,
            }
        }
        _ => Outcome::NxDomain,
    }
}

/// Whether a label is the name with an underscore in front.
fn is(label: &str, name: &str) -> bool {
    label.strip_prefix('_') == Some(name)
}

/// A named port, with the endpoint it is on.
type OnEndpoint<'a> = (Option<(&'a str, &'a Endpoint)>, &'a Port);

/// The named ports.
fn ports(entry: &Entry) -> Box<dyn Iterator<Item = OnEndpoint<'_>> + '_> {
    match entry {
        Entry::Virtual { ports, .. } => Box::new(ports.iter().map(|port| (None, port))),
        Entry::Headless { endpoints } => Box::new(endpoints.iter().flat_map(|(label, endpoint)| {
            endpoint.ports.iter().map(move |port| (Some((label.as_str(), endpoint)), port))
        })),
        Entry::Alias { .. } => Box::new(std::iter::empty()),
    }
}

fn services(
    index: &Index,
    name: &Name,
    kind: RecordType,
    entry: &Entry,
    port_label: &str,
    protocol: &str,
) -> Outcome {
    let found: Vec<_> = ports(entry)
        .filter(|(_, port)| is(port_label, &port.name) && is(protocol, &port.protocol))
        .take(MAX_RECORDS)
        .collect();
    if found.is_empty() {
        return Outcome::NxDomain;
    }
    // The service's own name: without the two labels in front.
    let service = name.trim_to(usize::from(name.num_labels()) - 2);
    let weight = u16::try_from(100 / found.len()).unwrap_or(0).max(1);
    let (mut answers, mut additionals) = (Vec::new(), Vec::new());
    for (endpoint, port) in found {
        let (target, ips) = match (endpoint, entry) {
            (Some((label, endpoint)), _) => (service.prepend_label(label), endpoint.ips.as_slice()),
            (None, Entry::Virtual { ips, .. }) => (Ok(service.clone()), ips.as_slice()),
            (None, Entry::Headless { .. } | Entry::Alias { .. }) => continue,
        };
        // A label too long for DNS cannot be a target.
        let Ok(target) = target else { continue };
        answers.push(RData::SRV(SRV::new(0, weight, port.number, target.clone())));
        additionals.extend(ips.iter().map(|ip| record(index, &target, address_data(*ip))));
    }
    match data(index, name, kind, answers) {
        Outcome::Data { answers, .. } => Outcome::Data { answers, additionals },
        other => other,
    }
}

fn reverse(index: &Index, name: &Name, kind: RecordType, net: IpNet) -> Outcome {
    let ours = index.zone().reverse_apex(net);
    if ours == Some(net) && matches!(kind, RecordType::SOA | RecordType::NS) {
        return apex(index, name, kind);
    }
    if net.prefix_len() != net.max_prefix_len() {
        return if ours.is_some() { Outcome::NoData } else { Outcome::Elsewhere };
    }
    let names = index.names(net.addr());
    if names.is_empty() {
        return if ours.is_some() { Outcome::NxDomain } else { Outcome::Elsewhere };
    }
    let targets = names.iter().filter_map(|reverse| full_name(index, reverse).ok());
    data(index, name, kind, targets.map(|target| RData::PTR(PTR(target))))
}

fn full_name(index: &Index, reverse: &ReverseName) -> Result<Name, ProtoError> {
    let ServiceKey { namespace, name } = &reverse.service;
    let labels = reverse.label.iter().chain([name, namespace]).map(String::as_bytes);
    Name::from_labels(labels.chain([b"svc".as_slice()]))?.append_domain(&index.zone().domain)
}

fn apex(index: &Index, name: &Name, kind: RecordType) -> Outcome {
    let (Ok(soa), Ok(server)) = (soa(index), server_name(index)) else { return Outcome::NoData };
    data(index, name, kind, [RData::SOA(soa), RData::NS(NS(server))])
}

fn server_name(index: &Index) -> Result<Name, ProtoError> {
    Name::from_ascii("ns.dns")?.append_domain(&index.zone().domain)
}

fn soa(index: &Index) -> Result<SOA, ProtoError> {
    let zone = index.zone();
    let mailbox = Name::from_ascii("hostmaster")?.append_domain(&zone.domain)?;
    // The serial says nothing: nobody transfers this zone.
    Ok(SOA::new(server_name(index)?, mailbox, 1, 7200, 1800, 86_400, zone.negative_ttl))
}

fn dns_server(index: &Index, name: &Name, kind: RecordType) -> Outcome {
    let key = ServiceKey { namespace: "kube-system".into(), name: "kube-dns".into() };
    match index.get(&key) {
        Some(Entry::Virtual { ips, .. }) => addresses(index, name, kind, ips.iter().copied()),
        Some(Entry::Headless { .. } | Entry::Alias { .. }) | None => Outcome::NoData,
    }
}

fn localhost(index: &Index, name: &Name, kind: RecordType) -> Outcome {
    use std::net::{Ipv4Addr, Ipv6Addr};
    addresses(index, name, kind, [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

fn addresses(index: &Index, name: &Name, kind: RecordType, ips: impl IntoIterator<Item = IpAddr>) -> Outcome {
    data(index, name, kind, ips.into_iter().map(address_data))
}

/// Those of the data that are of the kind asked for.
fn data(index: &Index, name: &Name, kind: RecordType, all: impl IntoIterator<Item = RData>) -> Outcome {
    let answers: Vec<Record> = all
        .into_iter()
        .filter(|data| kind == RecordType::ANY || data.record_type() == kind)
        .take(MAX_RECORDS)
        .map(|data| record(index, name, data))
        .collect();
    if answers.is_empty() { Outcome::NoData } else { Outcome::Data { answers, additionals: Vec::new() } }
}

fn record(index: &Index, name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), index.zone().ttl, data)
}

fn address_data(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    }
}

fn qualified(name: &str) -> Option<Name> {
    let mut name = Name::from_utf8(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests;
