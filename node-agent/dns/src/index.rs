//! Everything DNS knows of the cluster: entries by service, names by address.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use hickory_proto::rr::Name;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    entry::{Endpoint, Entry},
    sharded::Sharded,
};

/// A service's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The part of the name space that the cluster is.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The cluster's domain, fully qualified, lower case.
    pub domain: Name,
    /// Reverse lookups in these ranges are ours even when unknown.
    pub reverse_ranges: Vec<IpNet>,
    /// How long answers may be kept, in seconds.
    pub ttl: u32,
    /// How long it may be kept that there is none, in seconds: short, for what is not there is about to be made.
    pub negative_ttl: u32,
}

/// Nobody who asked for a service a moment too early shall wait longer for it.
const NEGATIVE_TTL: u32 = 5;

impl Zone {
    /// A zone of this domain.
    ///
    /// # Errors
    /// When it is not a domain name.
    pub fn new(domain: &str, reverse_ranges: Vec<IpNet>, ttl: u32) -> Result<Self> {
        let mut name = Name::from_utf8(domain)
            .map_err(|source| Error::Domain { domain: domain.to_owned(), source })?
            .to_lowercase();
        name.set_fqdn(true);
        let ttl = ttl.clamp(5, 30);
        Ok(Self { domain: name, reverse_ranges, ttl, negative_ttl: ttl.min(NEGATIVE_TTL) })
    }

    /// The top of the reverse zone that a range of addresses is in, if it is ours: a range whose length is not one
    /// of whole labels is as many zones as it takes.
    #[must_use]
    pub fn reverse_apex(&self, net: IpNet) -> Option<IpNet> {
        let range = self.reverse_ranges.iter().find(|range| range.contains(&net))?;
        let step = if net.addr().is_ipv4() { 8 } else { 4 };
        IpNet::new(net.addr(), range.prefix_len().next_multiple_of(step)).ok().map(|net| net.trunc())
    }
}

/// The name an address leads back to: a service, or an endpoint of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReverseName {
    pub(crate) service: ServiceKey,
    pub(crate) label: Option<String>,
}

/// What is known. Copies share all that they have in common.
#[derive(Clone, Debug)]
pub struct Index {
    zone: Arc<Zone>,
    entries: Sharded<ServiceKey, Arc<Entry>>,
    names: Sharded<IpAddr, Vec<ReverseName>>,
    /// How many services a namespace has.
    namespaces: Sharded<String, usize>,
    /// What an earlier life knew.
    provisional: bool,
}

impl Index {
    /// An index without services.
    #[must_use]
    pub fn new(zone: Zone) -> Self {
        Self {
            zone: Arc::new(zone),
            entries: Sharded::default(),
            names: Sharded::default(),
            namespaces: Sharded::default(),
            provisional: false,
        }
    }

    /// An index to be filled with what was known at another time: what is missing in it may be there.
    #[must_use]
    pub fn provisional(zone: Zone) -> Self {
        Self { provisional: true, ..Self::new(zone) }
    }

    /// Whether it tells of another time.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.provisional
    }

    /// The part of the name space that this is about.
    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// How many services it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets or removes a service. Returns whether that changed anything.
    pub fn put(&mut self, key: &ServiceKey, entry: Option<Entry>) -> bool {
        if self.get(key) == entry.as_ref() {
            return false;
        }
        if let Some(old) = self.entries.remove(key) {
            for (ip, _) in addresses(&old) {
                self.names.update(
                    &ip,
                    |names| names.retain(|n| n.service != *key),
                    |names| !names.is_empty(),
                );
            }
            self.namespaces.update(&key.namespace, |count| *count -= 1, |count| *count > 0);
        }
        if let Some(new) = entry {
            for (ip, label) in addresses(&new) {
                let name = ReverseName { service: key.clone(), label };
                self.names.update(&ip, |names| names.push(name), |_| true);
            }
            self.namespaces.update(&key.namespace, |count| *count += 1, |_| true);
            self.entries.insert(key.clone(), Arc::new(new));
        }
        true
    }

    pub(crate) fn get(&self, key: &ServiceKey) -> Option<&Entry> {
        self.entries.get(key).map(|entry| &**entry)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ServiceKey, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key, &**entry))
    }

    pub(crate) fn names(&self, ip: IpAddr) -> &[ReverseName] {
        self.names.get(&ip).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get(&namespace.to_owned()).is_some()
    }
}

/// The addresses of an entry with the label in front of the service's name.
fn addresses(entry: &Entry) -> Vec<(IpAddr, Option<String>)> {
    match entry {
        Entry::Virtual { ips, endpoints, .. } => {
            ips.iter().map(|ip| (*ip, None)).chain(of_endpoints(endpoints)).collect()
        }
        Entry::Headless { endpoints } => of_endpoints(endpoints).collect(),
        Entry::Alias { .. } => Vec::new(),
    }
}

fn of_endpoints(
    endpoints: &BTreeMap<String, Endpoint>,
) -> impl Iterator<Item = (IpAddr, Option<String>)> + '_ {
    endpoints.iter().flat_map(|(label, endpoint)| endpoint.ips.iter().map(|ip| (*ip, Some(label.clone()))))
}
