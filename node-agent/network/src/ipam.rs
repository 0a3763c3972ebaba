//! Which address a pod gets: pure functions over the records.
//!
//! Invariants: an address in use is never given out; one just released is not given out again while another
//! is free, and never within [`SETTLE_SECONDS`], because peers still hold connections and neighbours of it.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How long a released address rests at least.
pub(crate) const SETTLE_SECONDS: u64 = 5;
/// How long a released address is remembered, so that the oldest is taken first when a range runs short.
const MEMORY_SECONDS: u64 = 600;

/// What is remembered of addresses that no pod holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct History {
    /// The last address given out of each range: the next search starts after it.
    cursors: BTreeMap<IpNet, IpAddr>,
    /// When (seconds of the Unix epoch) an address was released.
    released: BTreeMap<IpAddr, u64>,
}

impl History {
    /// Picks a free address of `cidr` and moves the cursor.
    pub(crate) fn allocate(
        &mut self,
        cidr: &IpNet,
        used: impl Fn(&IpAddr) -> bool,
        now: u64,
    ) -> Result<IpAddr> {
        self.forget_old(now);
        let (first, last) = bounds(cidr);
        let start = self.cursors.get(cidr).map_or(first, |ip| to_number(*ip).saturating_add(1));
        let start = if (first..=last).contains(&start) { start } else { first };
        // Two passes at most, and no more steps than there are addresses that could be taken.
        let candidates = (start..=last).chain(first..start).map(|n| from_number(n, cidr));
        let mut in_use = 0;
        let mut oldest: Option<(u64, IpAddr)> = None;
        for address in candidates {
            if used(&address) {
                in_use += 1;
                continue;
            }
            match self.released.get(&address) {
                None => return Ok(self.take(cidr, address)),
                Some(&at) if oldest.is_none_or(|(best, _)| at < best) => oldest = Some((at, address)),
                Some(_) => {}
            }
        }
        match oldest {
            // A clock that went back must not block an address for ever.
            Some((at, address)) if now < at || now - at >= SETTLE_SECONDS => Ok(self.take(cidr, address)),
            _ => Err(Error::Exhausted { cidr: *cidr, used: in_use, cooling: self.released.len() }),
        }
    }

    /// Notes that an address is free from now on.
    pub(crate) fn release(&mut self, address: IpAddr, now: u64) {
        self.released.insert(address, now);
    }

    /// Notes that an address was found in use.
    pub(crate) fn claim(&mut self, address: IpAddr) {
        self.released.remove(&address);
    }

    fn take(&mut self, cidr: &IpNet, address: IpAddr) -> IpAddr {
        self.released.remove(&address);
        self.cursors.insert(*cidr, address);
        address
    }

    fn forget_old(&mut self, now: u64) {
        self.released.retain(|_, at| now.saturating_sub(*at) < MEMORY_SECONDS);
    }
}

/// First and last address that a pod may have: not the network's own, nor the first (by custom a gateway),
/// nor the IPv4 broadcast.
fn bounds(cidr: &IpNet) -> (u128, u128) {
    let first = to_number(cidr.network()) + 2;
    let last = to_number(cidr.broadcast()) - 1;
    (first, last)
}

fn to_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_number(number: u128, cidr: &IpNet) -> IpAddr {
    match cidr {
        // Numbers come from `bounds` of an IPv4 range, so the low 32 bits are all there is.
        IpNet::V4(_) => IpAddr::V4(((number & u128::from(u32::MAX)) as u32).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cidr(text: &str) -> IpNet {
        text.parse().expect("a range")
    }

    #[test]
    fn every_address_but_the_reserved_is_given_out_once() {
        let (net, mut history, mut used) = (cidr("10.244.7.0/28"), History::default(), BTreeSet::new());
        for _ in 0..13 {
            let ip = history.allocate(&net, |ip| used.contains(ip), 0).expect("room");
            assert!(used.insert(ip));
        }
        assert_eq!(used.first().map(ToString::to_string), Some("10.244.7.2".into()));
        assert_eq!(used.last().map(ToString::to_string), Some("10.244.7.14".into()));
        let error = history.allocate(&net, |ip| used.contains(ip), 0).expect_err("full");
        assert!(matches!(error, Error::Exhausted { used: 13, cooling: 0, .. }), "{error}");
    }

    #[test]
    fn a_released_address_rests_while_others_are_free() {
        let (net, mut history) = (cidr("10.0.0.0/28"), History::default());
        let first = history.allocate(&net, |_| false, 0).expect("room");
        history.release(first, 0);
        for _ in 0..12 {
            let next = history.allocate(&net, |_| false, 1).expect("room");
            assert_ne!(next, first);
            history.release(next, 1);
        }
        // All have been used once: the one released first comes back first, but only after its rest.
        assert!(history.allocate(&net, |_| false, SETTLE_SECONDS - 1).is_err());
        assert_eq!(history.allocate(&net, |_| false, SETTLE_SECONDS).expect("rested"), first);
    }

    #[test]
    fn the_search_goes_on_after_the_last_address_even_after_a_restart() {
        let (net, mut history) = (cidr("10.0.0.0/24"), History::default());
        let a = history.allocate(&net, |_| false, 0).expect("room");
        let text = serde_json::to_string(&history).expect("serialises");
        let mut again: History = serde_json::from_str(&text).expect("parses");
        assert_eq!(again, history);
        assert_ne!(again.allocate(&net, |_| false, 10_000).expect("room"), a);
    }

    #[test]
    fn a_clock_that_went_back_does_not_block() {
        let (net, mut history) = (cidr("10.0.0.0/29"), History::default());
        let ip = history.allocate(&net, |_| false, 900).expect("room");
        history.release(ip, 900);
        let others = |candidate: &IpAddr| *candidate != ip;
        assert_eq!(history.allocate(&net, others, 100).expect("usable"), ip);
    }

    #[test]
    fn ipv6_ranges_of_any_size_work() {
        let (net, mut history) = (cidr("fd00:10:244:1::/64"), History::default());
        let a = history.allocate(&net, |_| false, 0).expect("room");
        let b = history.allocate(&net, |_| false, 0).expect("room");
        assert_eq!((a.to_string(), b.to_string()), ("fd00:10:244:1::2".into(), "fd00:10:244:1::3".into()));
    }
}
