//! The addresses of all service ranges: those of the ServiceCIDR objects that are ready, and while there is
//! no object named `kubernetes`, those the server was started with.
//!
//! Ranges may overlap, and an address may be held that no range has any more: what is taken is one set for
//! all of them.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use serde_json::Value;
use skep_api::object::ObjectExt;

use super::family;
use super::pool::Pool;

/// The object that stands for the ranges the servers are started with.
pub(crate) const DEFAULT: &str = "kubernetes";

/// The addresses.
#[derive(Debug)]
pub(crate) struct Addresses {
    configured: Vec<IpNet>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The ranges of each ServiceCIDR that addresses may be given from; empty lists for the others.
    objects: BTreeMap<String, Vec<IpNet>>,
    pools: Vec<Pool>,
    taken: HashSet<IpAddr>,
}

/// The ranges of a ServiceCIDR that addresses may be given from now. The default one need not be told to be
/// ready: the servers begin with it.
pub(crate) fn usable(object: &Value) -> Vec<IpNet> {
    let conditions = object.items(&["status", "conditions"]).iter();
    let told = conditions.filter(|c| c.text(&["type"]) == "Ready").map(|c| c.text(&["status"])).next();
    let ready = told.map_or(object.name() == DEFAULT, |status| status == "True");
    if !ready || object.deletion_timestamp().is_some() {
        return Vec::new();
    }
    let texts = object.items(&["spec", "cidrs"]).iter().filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok()).collect()
}

impl Addresses {
    pub(crate) fn new(configured: Vec<IpNet>) -> Self {
        let this = Self { configured, state: Mutex::default() };
        this.lock().choose(&this.configured);
        this
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ranges the server was started with.
    pub(crate) fn configured(&self) -> &[IpNet] {
        &self.configured
    }

    /// The families services may have, the default one first.
    pub(crate) fn families(&self) -> Vec<&'static str> {
        self.configured.iter().map(|net| family(net.addr())).collect()
    }

    /// The ranges addresses are given from.
    pub(crate) fn nets(&self) -> Vec<IpNet> {
        self.lock().pools.iter().map(Pool::net).collect()
    }

    /// Is it in a range addresses are given from?
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.lock().pools.iter().any(|pool| pool.contains(address))
    }

    /// `false`: it is taken.
    pub(crate) fn take(&self, address: IpAddr) -> bool {
        let mut state = self.lock();
        state.pools.iter_mut().for_each(|pool| pool.take(address));
        state.taken.insert(address)
    }

    pub(crate) fn release(&self, address: IpAddr) {
        let mut state = self.lock();
        if state.taken.remove(&address) {
            state.pools.iter_mut().for_each(|pool| pool.release(address));
        }
    }

    /// Takes any free address of a family; the ranges in their order.
    pub(crate) fn draw(&self, wanted: &str) -> Option<IpAddr> {
        let mut state = self.lock();
        let state = &mut *state;
        let mine = |pool: &&mut Pool| family(pool.net().addr()) == wanted;
        let address = state.pools.iter_mut().filter(mine).find_map(Pool::draw)?;
        state.taken.insert(address);
        // Other ranges may have it too.
        state.pools.iter_mut().for_each(|pool| pool.take(address));
        Some(address)
    }

    /// Takes exactly these, and knows exactly these ServiceCIDRs.
    pub(crate) fn reset(
        &self,
        taken: impl Iterator<Item = IpAddr>,
        objects: impl Iterator<Item = (String, Vec<IpNet>)>,
    ) {
        let mut state = self.lock();
        state.taken = taken.collect();
        state.objects = objects.collect();
        state.choose(&self.configured);
    }

    /// A ServiceCIDR has changed; `None`: it is gone.
    pub(crate) fn change(&self, name: &str, nets: Option<Vec<IpNet>>) {
        let mut state = self.lock();
        let before = match nets {
            Some(nets) => state.objects.insert(name.to_owned(), nets.clone()) == Some(nets),
            None => state.objects.remove(name).is_none(),
        };
        if !before {
            state.choose(&self.configured);
        }
    }
}

impl State {
    /// Makes the pools anew.
    fn choose(&mut self, configured: &[IpNet]) {
        let mut nets: Vec<IpNet> = Vec::new();
        let default = self.objects.get(DEFAULT).map_or(configured, Vec::as_slice);
        let others = self.objects.iter().filter(|(name, _)| *name != DEFAULT).flat_map(|(_, nets)| nets);
        for net in default.iter().chain(others) {
            if !nets.contains(net) {
                nets.push(*net);
            }
        }
        self.pools = nets.into_iter().map(Pool::new).collect();
        for address in &self.taken {
            self.pools.iter_mut().for_each(|pool| pool.take(*address));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a range")
    }

    fn all(addresses: &Addresses) -> Vec<IpAddr> {
        let mut drawn: Vec<IpAddr> = std::iter::from_fn(|| addresses.draw("IPv4")).collect();
        drawn.sort();
        drawn
    }

    #[test]
    fn ranges_come_and_go() {
        let addresses = Addresses::new(vec![net("10.0.0.0/30")]);
        assert_eq!(all(&addresses), [ip("10.0.0.1"), ip("10.0.0.2")]);
        addresses.change("more", Some(vec![net("10.0.0.0/29")]));
        assert_eq!(all(&addresses), ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(ip));
        addresses.change(DEFAULT, Some(Vec::new()));
        addresses.release(ip("10.0.0.1"));
        addresses.change("more", None);
        assert_eq!(addresses.draw("IPv4"), None, "no range is ready");
        addresses.change(DEFAULT, None);
        assert!(addresses.contains(ip("10.0.0.1")) && !addresses.contains(ip("10.0.0.5")));
        assert_eq!(all(&addresses), [ip("10.0.0.1")], "the configured range serves where no object does");
        assert!(!addresses.take(ip("10.0.0.5")), "held although no range has it");
    }

    #[test]
    fn each_family_has_its_ranges() {
        let addresses = Addresses::new(vec![net("10.0.0.0/30"), net("fd00::/126")]);
        assert_eq!(addresses.families(), ["IPv4", "IPv6"]);
        assert!(addresses.draw("IPv6").is_some_and(|address| address.is_ipv6()));
        assert_eq!(all(&addresses).len(), 2);
    }

    #[test]
    fn only_what_is_ready_and_stays_is_usable() {
        let object = |status: &str| {
            json!({"metadata": {}, "spec": {"cidrs": ["10.0.0.0/30"]},
                "status": {"conditions": [{"type": "Ready", "status": status}]}})
        };
        assert_eq!(usable(&object("True")), [net("10.0.0.0/30")]);
        assert!(usable(&object("False")).is_empty());
        let new = |name: &str| json!({"metadata": {"name": name}, "spec": {"cidrs": ["10.0.0.0/30"]}});
        assert!(usable(&new("more")).is_empty());
        assert_eq!(usable(&new(DEFAULT)), [net("10.0.0.0/30")]);
        let mut going = object("True");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(usable(&going).is_empty());
    }
}
