//! The rules of one service.

use std::net::{IpAddr, SocketAddr};

use super::super::names::{nft_endpoint, nft_unit};
use super::super::view::{Entry, Fate, Place, Unit, units};
use super::super::{Family, Ground};
use super::fragment::{
    CLUSTER_IPS, Chain, Container, FIREWALL, Fragment, MARK, NO_ENDPOINT_NODE_PORTS, NO_ENDPOINTS,
    NODE_PORTS, REJECT, SERVICE_IPS,
};
use crate::desired::ServiceTables;
use crate::names::{BackendName, Scope};

/// Everything that a service has in the tables of `families`.
pub(crate) fn service(tables: &ServiceTables, ground: &Ground, families: &[Family]) -> Fragment {
    let mut fragment = Fragment::default();
    for unit in units(tables) {
        if families.contains(&unit.name.family()) {
            Writer { family: unit.name.family(), unit: &unit, ground, fragment: &mut fragment }.write();
        }
    }
    fragment
}

struct Writer<'a> {
    family: Family,
    unit: &'a Unit<'a>,
    ground: &'a Ground,
    fragment: &'a mut Fragment,
}

impl Writer<'_> {
    fn write(&mut self) {
        for backend in self.unit.all_endpoints() {
            self.endpoint(backend);
        }
        for scope in self.unit.scopes() {
            self.choice(scope);
        }
        if self.unit.outside().any(|entry| matches!(entry.fate, Fate::Served | Fate::ServedInside)) {
            self.external();
        }
        for entry in &self.unit.entries {
            self.entry(entry);
        }
    }

    fn chain(&mut self, name: String, rules: Vec<String>) {
        self.fragment.chains.insert((self.family, name), Chain { hook: None, rules });
    }

    fn element(&mut self, container: &'static str, key: String, value: Option<String>) {
        self.fragment.elements.insert((self.family, container, key), value);
    }

    fn scope_chain(&self, scope: Scope) -> String {
        nft_unit(if scope == Scope::Local { "local" } else { "service" }, &self.unit.name)
    }

    fn endpoint_chain(&self, backend: &BackendName) -> String {
        nft_endpoint("endpoint", &self.unit.name, backend)
    }

    /// The set of clients that stick to an endpoint. A set cannot change its timeout, so it is in the name.
    fn affinity_set(&self, backend: &BackendName) -> String {
        nft_endpoint(&format!("affinity-{}", self.unit.affinity_seconds()), &self.unit.name, backend)
    }

    fn endpoint(&mut self, backend: &BackendName) {
        let (ip, seconds) = (self.family.nft(), self.unit.affinity_seconds());
        let mut rules = vec![format!("{ip} saddr {} jump {MARK}", backend.addr)];
        if seconds > 0 {
            let set = self.affinity_set(backend);
            rules.push(format!("update @{set} {{ {ip} saddr }}"));
            let address = self.family.address_type();
            let definition = format!("type {address} ; flags dynamic,timeout ; timeout {seconds}s");
            self.fragment.sets.insert((self.family, set), Container { word: "set", definition });
        }
        let target = SocketAddr::new(backend.addr.into(), backend.port);
        rules.push(format!("meta l4proto {} dnat to {target}", self.unit.name.protocol()));
        self.chain(self.endpoint_chain(backend), rules);
    }

    fn choice(&mut self, scope: Scope) {
        let ip = self.family.nft();
        let mut rules = Vec::new();
        let pods = Ground::nets(&self.ground.pods, self.family);
        for entry in &self.unit.entries {
            let Place::Cluster(address) = entry.place else { continue };
            if entry.external != scope || (pods.is_empty() && !self.ground.masquerade_all) {
                continue;
            }
            // Someone may route the service range to this node from outside the cluster.
            let others = if self.ground.masquerade_all {
                String::new()
            } else {
                format!("{ip} saddr != {{ {} }} ", pods.join(", "))
            };
            let protocol = self.unit.name.protocol();
            rules.push(format!("{ip} daddr {address} {protocol} dport {} {others}jump {MARK}", entry.port));
        }
        if self.unit.affinity_seconds() > 0 {
            for backend in self.unit.endpoints(scope) {
                let (set, chain) = (self.affinity_set(backend), self.endpoint_chain(backend));
                rules.push(format!("{ip} saddr @{set} goto {chain}"));
            }
        }
        let count = self.unit.endpoints(scope).len();
        let choices: Vec<String> = self
            .unit
            .endpoints(scope)
            .enumerate()
            .map(|(number, backend)| format!("{number} : goto {}", self.endpoint_chain(backend)))
            .collect();
        rules.push(format!("numgen random mod {count} vmap {{ {} }}", choices.join(", ")));
        self.chain(self.scope_chain(scope), rules);
    }

    /// What is dialled from outside. All such addresses of a unit have the same policy.
    fn external(&mut self) {
        let ip = self.family.nft();
        let service = self.scope_chain(Scope::Cluster);
        let mut rules = Vec::new();
        if self.unit.outside().any(|entry| entry.external == Scope::Local) {
            let pods = Ground::nets(&self.ground.pods, self.family);
            if !pods.is_empty() {
                // As if it had gone out and come back.
                rules.push(format!("{ip} saddr {{ {} }} goto {service}", pods.join(", ")));
            }
            rules.push(format!("fib saddr type local jump {MARK}"));
            rules.push(format!("fib saddr type local goto {service}"));
            if self.unit.endpoints(Scope::Local).len() > 0 {
                rules.push(format!("goto {}", self.scope_chain(Scope::Local)));
            }
        } else {
            rules.push(format!("jump {MARK}"));
            rules.push(format!("goto {service}"));
        }
        self.chain(nft_unit("external", &self.unit.name), rules);
    }

    fn entry(&mut self, entry: &Entry) {
        let protocol = self.unit.name.protocol();
        let key = |address: Option<IpAddr>| match address {
            Some(address) => format!("{address} . {protocol} . {}", entry.port),
            None => format!("{protocol} . {}", entry.port),
        };
        let external = format!("goto {}", nft_unit("external", &self.unit.name));
        let (key, serving, refusing, verdict) = match entry.place {
            Place::Cluster(address) => {
                self.element(CLUSTER_IPS, address.to_string(), None);
                let verdict = format!("goto {}", self.scope_chain(entry.external));
                (key(Some(address)), SERVICE_IPS, NO_ENDPOINTS, verdict)
            }
            Place::Outside(address) => (key(Some(address)), SERVICE_IPS, NO_ENDPOINTS, external),
            Place::Node => (key(None), NODE_PORTS, NO_ENDPOINT_NODE_PORTS, external),
        };
        if let Some(ranges) = &entry.ranges {
            let name = nft_unit("firewall", &self.unit.name);
            let nets = Ground::nets(ranges, self.family);
            let others = if nets.is_empty() {
                String::new()
            } else {
                format!("{} saddr != {{ {} }} ", self.family.nft(), nets.join(", "))
            };
            self.chain(name.clone(), vec![format!("{others}drop")]);
            self.element(FIREWALL, key.clone(), Some(format!("goto {name}")));
        }
        match entry.fate {
            Fate::Served => self.element(serving, key, Some(verdict)),
            Fate::ServedInside => {
                self.element(serving, key.clone(), Some(verdict));
                self.element(refusing, key, Some("drop".to_owned()));
            }
            Fate::Rejected => self.element(refusing, key, Some(format!("goto {REJECT}"))),
            Fate::Dropped => self.element(refusing, key, Some("drop".to_owned())),
        }
    }
}
