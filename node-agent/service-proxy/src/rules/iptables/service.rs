//! The rules of one service.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::super::names::{iptables_endpoint, iptables_unit};
use super::super::view::{Entry, Fate, Place, Unit, units};
use super::super::{Family, Ground};
use super::fragment::{EXTERNAL, FIREWALL, Fragment, MARK, NODE_PORTS, SERVICES, Table};
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
    if let Some(health) = &tables.health {
        for &family in families {
            let rule = format!("-p tcp -m tcp --dport {} -j ACCEPT", health.port);
            let key = (family, Table::Filter, NODE_PORTS.to_owned());
            fragment.lines.entry(key).or_default().push(rule);
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
        self.fragment.chains.insert((self.family, Table::Nat, name), rules);
    }

    fn line(&mut self, table: Table, chain: &str, rule: String) {
        self.fragment.lines.entry((self.family, table, chain.to_owned())).or_default().push(rule);
    }

    fn comment(&self) -> String {
        format!("-m comment --comment \"{}\"", self.unit.name)
    }

    fn scope_chain(&self, scope: Scope) -> String {
        iptables_unit(if scope == Scope::Local { "SVL" } else { "SVC" }, &self.unit.name)
    }

    /// The one address of this family.
    fn host(&self, address: IpAddr) -> String {
        format!("{address}/{}", if self.family == Family::V4 { 32 } else { 128 })
    }

    fn endpoint(&mut self, backend: &BackendName) {
        let (name, comment) = (iptables_endpoint(&self.unit.name, backend), self.comment());
        let protocol = self.unit.name.protocol();
        let recent = if self.unit.affinity_seconds() > 0 {
            format!("-m recent --name {name} --set ")
        } else {
            String::new()
        };
        let target = SocketAddr::new(backend.addr.into(), backend.port);
        let rules = vec![
            format!("{comment} -s {} -j {MARK}", self.host(backend.addr.into())),
            format!("{comment} {recent}-p {protocol} -m {protocol} -j DNAT --to-destination {target}"),
        ];
        self.chain(name, rules);
    }

    fn choice(&mut self, scope: Scope) {
        let comment = self.comment();
        let mut rules = Vec::new();
        let pods = Ground::nets(&self.ground.pods, self.family);
        for entry in &self.unit.entries {
            let Place::Cluster(address) = entry.place else { continue };
            if entry.external != scope {
                continue;
            }
            let dialled = self.dialled(Some(address), entry);
            if self.ground.masquerade_all {
                rules.push(format!("{comment} {dialled} -j {MARK}"));
            } else if let [pods] = pods.as_slice() {
                // Someone may route the service range to this node from outside the cluster.
                rules.push(format!("{comment} {dialled} ! -s {pods} -j {MARK}"));
            }
        }
        let endpoints: Vec<&BackendName> = self.unit.endpoints(scope).collect();
        let seconds = self.unit.affinity_seconds();
        if seconds > 0 {
            for backend in &endpoints {
                let name = iptables_endpoint(&self.unit.name, backend);
                rules.push(format!(
                    "{comment} -m recent --name {name} --rcheck --seconds {seconds} --reap -j {name}"
                ));
            }
        }
        for (number, backend) in endpoints.iter().enumerate() {
            let left = endpoints.len() - number;
            let chance = match left {
                1 => String::new(),
                left => format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64),
            };
            rules.push(format!("{comment} {chance}-j {}", iptables_endpoint(&self.unit.name, backend)));
        }
        self.chain(self.scope_chain(scope), rules);
    }

    fn external(&mut self) {
        let (comment, service) = (self.comment(), self.scope_chain(Scope::Cluster));
        let mut rules = Vec::new();
        if self.unit.outside().any(|entry| entry.external == Scope::Local) {
            for pods in Ground::nets(&self.ground.pods, self.family) {
                // As if it had gone out and come back.
                rules.push(format!("{comment} -s {pods} -j {service}"));
            }
            rules.push(format!("{comment} -m addrtype --src-type LOCAL -j {MARK}"));
            rules.push(format!("{comment} -m addrtype --src-type LOCAL -j {service}"));
            if self.unit.endpoints(Scope::Local).len() > 0 {
                rules.push(format!("{comment} -j {}", self.scope_chain(Scope::Local)));
            }
        } else {
            rules.push(format!("{comment} -j {MARK}"));
            rules.push(format!("{comment} -j {service}"));
        }
        self.chain(iptables_unit("EXT", &self.unit.name), rules);
    }

    /// The match of a packet that is sent to an entry.
    fn dialled(&self, address: Option<IpAddr>, entry: &Entry) -> String {
        let protocol = self.unit.name.protocol();
        let to = address.map(|address| format!("-d {} ", self.host(address))).unwrap_or_default();
        format!("{to}-p {protocol} -m {protocol} --dport {}", entry.port)
    }

    fn entry(&mut self, entry: &Entry) {
        let comment = self.comment();
        let external = iptables_unit("EXT", &self.unit.name);
        let (serving, refusing, target, address) = match entry.place {
            Place::Cluster(address) => (SERVICES, SERVICES, self.scope_chain(entry.external), Some(address)),
            Place::Outside(address) => (SERVICES, EXTERNAL, external, Some(address)),
            Place::Node => (NODE_PORTS, EXTERNAL, external, None),
        };
        let dialled = self.dialled(address, entry);
        if matches!(entry.fate, Fate::Served | Fate::ServedInside) {
            let target = if let Some(ranges) = &entry.ranges {
                let firewall = iptables_unit("FW", &self.unit.name);
                // What comes to no end in there is not translated, and dropped by the filter.
                let nets = Ground::nets(ranges, self.family);
                let rules = nets.iter().map(|net| format!("{comment} -s {net} -j {target}")).collect();
                self.chain(firewall.clone(), rules);
                self.line(Table::Filter, FIREWALL, format!("{comment} {dialled} -j DROP"));
                firewall
            } else {
                target
            };
            self.line(Table::Nat, serving, format!("{comment} {dialled} -j {target}"));
        }
        let verdict = match entry.fate {
            Fate::Served => return,
            Fate::ServedInside | Fate::Dropped => "DROP",
            Fate::Rejected if self.unit.name.protocol() == "tcp" => "REJECT --reject-with tcp-reset",
            Fate::Rejected => "REJECT",
        };
        // A node port is matched on the node's own addresses only, whatever the packet is routed by.
        let addresses: BTreeSet<IpAddr> = match address {
            Some(address) => [address].into(),
            None => self.ground.addresses(self.family).into_iter().collect(),
        };
        for address in addresses {
            let dialled = self.dialled(Some(address), entry);
            self.line(Table::Filter, refusing, format!("{comment} {dialled} -j {verdict}"));
        }
    }
}
