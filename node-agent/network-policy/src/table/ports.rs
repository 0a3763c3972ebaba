//! Ports as prefixes: what a longest-prefix map can hold.

use std::collections::BTreeSet;

use skep_ebpf_abi::policy::RuleKey;

use crate::model::{NamedPort, Port, Ports};

/// The prefixes of a rule's ports: how many bits of the key count, protocol, port. No ports are everything. Names
/// are looked up among `named`, if there is anyone whose names these could be.
pub(super) fn prefixes(ports: &[Port], named: Option<&BTreeSet<NamedPort>>) -> Vec<(u32, u8, u16)> {
    if ports.is_empty() {
        return vec![(RuleKey::ANY_PROTOCOL, 0, 0)];
    }
    ports
        .iter()
        .flat_map(|port| match &port.ports {
            Ports::All => vec![(RuleKey::ANY_PORT, port.protocol, 0)],
            Ports::Range(first, last) => range(*first, *last)
                .into_iter()
                .map(|(bits, start)| (RuleKey::ANY_PORT + bits, port.protocol, start))
                .collect(),
            Ports::Named(name) => named
                .into_iter()
                .flatten()
                .filter(|known| known.protocol == port.protocol && known.name == *name)
                .map(|known| (RuleKey::WHOLE, port.protocol, known.port))
                .collect(),
        })
        .collect()
}

/// The fewest prefixes that hold exactly the numbers from `first` to `last`.
fn range(first: u16, last: u16) -> Vec<(u32, u16)> {
    let mut found = Vec::new();
    let (mut next, end) = (u32::from(first), u32::from(last) + 1);
    while next < end {
        // As large as its beginning is aligned to, and as fits.
        let aligned = if next == 0 { 16 } else { next.trailing_zeros().min(16) };
        let fits = (end - next).ilog2();
        let size = aligned.min(fits);
        found.push((16 - size, u16::try_from(next).unwrap_or(u16::MAX)));
        next += 1 << size;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(prefixes: &[(u32, u16)], port: u16) -> usize {
        prefixes
            .iter()
            .filter(|(bits, start)| u32::from(port) >> (16 - bits) == u32::from(*start) >> (16 - bits))
            .count()
    }

    #[test]
    fn usual_ranges_are_few_prefixes() {
        assert_eq!(range(80, 80), [(16, 80)]);
        assert_eq!(range(0, 65535), [(0, 0)]);
        assert_eq!(range(8192, 8199), [(13, 8192)]);
        assert_eq!(range(1, 65535).len(), 16);
        assert_eq!(range(9, 8), []);
    }

    proptest! {
        #[test]
        fn a_range_holds_each_of_its_ports_once_and_no_other(a: u16, b: u16, port: u16) {
            let (first, last) = (a.min(b), a.max(b));
            let prefixes = range(first, last);
            prop_assert!(prefixes.len() <= 30);
            prop_assert_eq!(holds(&prefixes, port), usize::from((first..=last).contains(&port)));
            prop_assert_eq!((holds(&prefixes, first), holds(&prefixes, last)), (1, 1));
        }
    }
}
