//! The node ports, and the addresses of one service range.
//!
//! A pool chooses; what makes an allocation unique is its key in the store, written and deleted in the
//! transaction that writes the service (`alloc.rs`).

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::bitmap::Bitmap;

/// The most addresses of one range that are used.
const MOST: u32 = 1 << 16;

/// The addresses of one range.
#[derive(Debug)]
pub(crate) struct Pool {
    net: IpNet,
    set: Bitmap,
}

impl Pool {
    /// The pool of a range. The network's own and (IPv4) the broadcast address are never used.
    pub(crate) fn new(net: IpNet) -> Self {
        let host_bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let all = if host_bits >= 16 { MOST } else { 1 << host_bits };
        let size = if matches!(net, IpNet::V4(_)) { all.saturating_sub(1) } else { all };
        // The same split as upstream's: a sixteenth, at least 16 and at most 256.
        let reserved = if size < 16 { 0 } else { (size / 16).clamp(16, 256) };
        let mut set = Bitmap::new(size, reserved);
        set.take(0);
        Self { net, set }
    }

    pub(crate) fn net(&self) -> IpNet {
        self.net
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.number(address).is_some()
    }

    pub(crate) fn take(&mut self, address: IpAddr) {
        if let Some(number) = self.number(address) {
            self.set.take(number);
        }
    }

    pub(crate) fn release(&mut self, address: IpAddr) {
        if let Some(number) = self.number(address) {
            self.set.release(number);
        }
    }

    pub(crate) fn draw(&mut self) -> Option<IpAddr> {
        self.set.draw().map(|number| self.address(number))
    }

    fn number(&self, address: IpAddr) -> Option<u32> {
        let offset = match (self.net.network(), address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                u128::from(u32::from(address).checked_sub(u32::from(base))?)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => u128::from(address).checked_sub(u128::from(base))?,
            _ => return None,
        };
        let number = u32::try_from(offset).ok().filter(|number| *number < MOST && *number > 0)?;
        let last_v4 = matches!(self.net, IpNet::V4(_)) && address == self.net.broadcast();
        (self.net.contains(&address) && !last_v4).then_some(number)
    }

    fn address(&self, number: u32) -> IpAddr {
        match self.net.network() {
            IpAddr::V4(base) => IpAddr::V4((u32::from(base) + number).into()),
            IpAddr::V6(base) => IpAddr::V6((u128::from(base) + u128::from(number)).into()),
        }
    }
}

/// The node ports.
#[derive(Debug)]
pub(crate) struct Ports {
    range: RangeInclusive<u16>,
    set: Mutex<Bitmap>,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>) -> Self {
        let size = u32::from(*range.end()).saturating_sub(u32::from(*range.start())) + 1;
        let reserved = if size < 32 { 0 } else { (size / 32).clamp(16, 128) };
        Self { range, set: Mutex::new(Bitmap::new(size, reserved)) }
    }

    pub(crate) fn range(&self) -> &RangeInclusive<u16> {
        &self.range
    }

    pub(crate) fn take(&self, port: u16) -> bool {
        self.number(port).is_some_and(|number| lock(&self.set).take(number))
    }

    pub(crate) fn release(&self, port: u16) {
        if let Some(number) = self.number(port) {
            lock(&self.set).release(number);
        }
    }

    /// Gives everything back.
    pub(crate) fn clear(&self) {
        lock(&self.set).clear();
    }

    pub(crate) fn draw(&self) -> Option<u16> {
        let number = lock(&self.set).draw()?;
        u16::try_from(u32::from(*self.range.start()) + number).ok()
    }

    fn number(&self, port: u16) -> Option<u32> {
        self.range.contains(&port).then(|| u32::from(port - self.range.start()))
    }
}

fn lock(set: &Mutex<Bitmap>) -> MutexGuard<'_, Bitmap> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_and_broadcast_addresses_are_never_given() {
        let mut pool = Pool::new("10.96.0.0/29".parse().expect("net"));
        let mut drawn: Vec<IpAddr> = std::iter::from_fn(|| pool.draw()).collect();
        drawn.sort();
        assert_eq!(drawn.first(), Some(&"10.96.0.1".parse().expect("ip")));
        assert_eq!(drawn.last(), Some(&"10.96.0.6".parse().expect("ip")));
        assert_eq!(drawn.len(), 6);
        assert!(!pool.contains("10.96.0.7".parse().expect("ip")));
        assert!(!pool.contains("10.95.255.255".parse().expect("ip")));
    }

    #[test]
    fn huge_v6_ranges_use_their_beginning() {
        let mut pool = Pool::new("fd00::/64".parse().expect("net"));
        let address = pool.draw().expect("free");
        assert!(pool.contains(address));
        assert!(std::iter::from_fn(|| pool.draw()).take(1000).all(|other| other != address));
    }

    #[test]
    fn ports_stay_in_their_range() {
        let ports = Ports::new(30000..=30001);
        assert!(!ports.take(29999));
        assert!(ports.take(30000));
        assert_eq!(ports.draw(), Some(30001));
        assert_eq!(ports.draw(), None);
    }
}
