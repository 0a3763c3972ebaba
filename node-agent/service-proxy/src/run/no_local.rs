//! How many ports a local traffic policy leaves without endpoints here, kept up change by change.

use std::collections::BTreeMap;

use skep_ebpf_abi::service::frontend::{CLUSTER_IP, KIND_MASK};

use crate::desired::ServiceTables;
use crate::names::{Scope, ServiceName, SetName};

/// The counts: of internal, and of external policies.
#[derive(Debug, Default)]
pub(super) struct NoLocal {
    /// Of the services that have any.
    services: BTreeMap<ServiceName, [i64; 2]>,
    total: [i64; 2],
}

fn count(tables: &ServiceTables) -> [i64; 2] {
    let mut counts = [0; 2];
    for frontend in tables.frontends.values() {
        let left_out = |name: &SetName| {
            name.scope == Scope::Local && tables.sets.get(name).is_some_and(|set| set.drop_when_empty)
        };
        if frontend.flags & KIND_MASK == CLUSTER_IP {
            counts[0] += i64::from(left_out(&frontend.internal));
        } else {
            counts[1] += i64::from(left_out(&frontend.external));
        }
    }
    counts
}

impl NoLocal {
    /// Notes what has become of a service.
    pub(super) fn note(&mut self, name: &ServiceName, tables: Option<&ServiceTables>) {
        let now = tables.map_or([0; 2], count);
        let before =
            if now == [0; 2] { self.services.remove(name) } else { self.services.insert(name.clone(), now) };
        let before = before.unwrap_or_default();
        for (total, (now, before)) in self.total.iter_mut().zip(now.into_iter().zip(before)) {
            *total += now - before;
        }
    }

    /// The counts by the policy's name.
    pub(super) fn totals(&self) -> [(&'static str, i64); 2] {
        [("internal", self.total[0]), ("external", self.total[1])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{DesiredFrontend, DesiredSet};
    use skep_ebpf_abi::service::FrontendKey;

    #[test]
    fn counts_follow_changes() {
        let name = ServiceName { namespace: "default".to_owned(), name: "web".to_owned() };
        let set = SetName {
            service: name.clone(),
            port: String::new(),
            protocol: 6,
            v6: false,
            scope: Scope::Local,
        };
        let address: std::net::IpAddr = "10.96.0.1".parse().expect("an address");
        let key = FrontendKey::new(address.into(), 80, 6);
        let frontend = DesiredFrontend { external: set.clone(), internal: set.clone(), flags: 0 };
        let with = |drop_when_empty| ServiceTables {
            frontends: [(key, frontend.clone())].into(),
            sets: [(set.clone(), DesiredSet { drop_when_empty, ..DesiredSet::default() })].into(),
            ..ServiceTables::default()
        };
        let mut counts = NoLocal::default();
        for (tables, expected) in
            [(Some(with(true)), 1), (Some(with(true)), 1), (Some(with(false)), 0), (None, 0)]
        {
            counts.note(&name, tables.as_ref());
            assert_eq!(counts.totals(), [("internal", expected), ("external", 0)]);
        }
    }
}
