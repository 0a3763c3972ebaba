//! Who has an address when two services want the same one: the first keeps it until it lets go.

use std::collections::{BTreeMap, BTreeSet};

use skep_ebpf_abi::service::FrontendKey;
use skep_ebpf_loader::tables::socket_address;

use crate::desired::ServiceTables;
use crate::names::ServiceName;

/// The owners of addresses.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    owners: BTreeMap<FrontendKey, ServiceName>,
    /// The same the other way round, so that a change looks at what its services have only.
    owned: BTreeMap<ServiceName, Vec<FrontendKey>>,
    waiting: BTreeMap<FrontendKey, BTreeSet<ServiceName>>,
}

/// What [`Owners::settle`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The tables without what belongs to others.
    pub(crate) tables: BTreeMap<ServiceName, Option<ServiceTables>>,
    /// Services that wait for an address which is free now.
    pub(crate) again: BTreeSet<ServiceName>,
    /// Who was refused what.
    pub(crate) contested: Vec<(ServiceName, String)>,
}

impl Owners {
    /// Gives addresses to those who want them, and takes away from each table what another service has.
    pub(crate) fn settle(&mut self, wanted: BTreeMap<ServiceName, Option<ServiceTables>>) -> Settled {
        let mut settled = Settled::default();
        let mut freed = BTreeSet::new();
        for (name, tables) in &wanted {
            for key in self.owned.remove(name).into_iter().flatten() {
                if !tables.as_ref().is_some_and(|tables| tables.frontends.contains_key(&key)) {
                    self.owners.remove(&key);
                    freed.insert(key);
                }
            }
        }
        for (name, tables) in wanted {
            let tables = tables.map(|mut tables| {
                tables.frontends.retain(|key, _| {
                    let owner = self.owners.entry(*key).or_insert_with(|| name.clone());
                    if *owner == name {
                        return true;
                    }
                    self.waiting.entry(*key).or_default().insert(name.clone());
                    let address = socket_address(key.addr, key.port_be);
                    settled.contested.push((name.clone(), format!("{address} belongs to {owner}")));
                    false
                });
                tables
            });
            if let Some(tables) = &tables {
                self.owned.insert(name.clone(), tables.frontends.keys().copied().collect());
            }
            settled.tables.insert(name, tables);
        }
        for key in freed {
            if !self.owners.contains_key(&key) {
                settled.again.extend(self.waiting.remove(&key).into_iter().flatten());
            }
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use skep_ebpf_abi::TCP;

    use super::*;
    use crate::desired::DesiredFrontend;
    use crate::names::{Scope, SetName};

    fn name(name: &str) -> ServiceName {
        ServiceName { namespace: "default".to_owned(), name: name.to_owned() }
    }

    fn tables(service: &str, port: u16) -> ServiceTables {
        let set = SetName {
            service: name(service),
            port: String::new(),
            protocol: TCP,
            v6: false,
            scope: Scope::Cluster,
        };
        let address: std::net::IpAddr = "203.0.113.1".parse().expect("an address");
        let key = FrontendKey::new(address.into(), port.to_be(), TCP);
        let value = DesiredFrontend { external: set.clone(), internal: set, flags: 0 };
        ServiceTables { frontends: [(key, value)].into(), ..ServiceTables::default() }
    }

    #[test]
    fn the_first_keeps_an_address_until_it_goes() {
        let mut owners = Owners::default();
        let first = owners.settle([(name("a"), Some(tables("a", 80)))].into());
        assert_eq!(first.contested, []);
        let second = owners.settle([(name("b"), Some(tables("b", 80)))].into());
        assert_eq!(second.contested, [(name("b"), "203.0.113.1:80 belongs to default/a".to_owned())]);
        assert!(second.tables[&name("b")].as_ref().is_some_and(|tables| tables.frontends.is_empty()));
        let third = owners.settle([(name("a"), None)].into());
        assert_eq!(third.again, [name("b")].into());
        let last = owners.settle([(name("b"), Some(tables("b", 80)))].into());
        assert_eq!(last.contested, []);
        assert!(last.tables[&name("b")].as_ref().is_some_and(|tables| tables.frontends.len() == 1));
    }
}
