//! From one layout of maps to the next: for each layout a step of pure functions, and chains of these.
//!
//! A build with another layout makes maps of its own and carries over what the old ones hold, so every layout that a
//! node may still have needs its step. A map that no step names has not changed, neither in layout nor in meaning: both
//! builds use the same.

use std::borrow::Cow;

use skep_ebpf_abi::LAYOUT;

use super::Converted;
use crate::error::{Error, Result};

/// A key or a value.
pub(crate) type Element<'a> = Cow<'a, [u8]>;

/// What an element becomes; none if it has no place in the next layout.
type Convert = fn(&[u8], &[u8]) -> Option<(Vec<u8>, Vec<u8>)>;

/// From layout `from` to the one after it.
struct Step {
    from: u32,
    maps: &'static [(&'static str, Convert)],
}

/// All steps, oldest first.
const STEPS: [Step; 1] = [Step { from: 1, maps: &[("connected", connected_1)] }];

/// Layout 2 notes a translated socket's namespace and protocol: after the address it believes in (at 40), and after the
/// backend's port. They are not known of sockets from before.
fn connected_1(key: &[u8], value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (addresses, port) = value.split_at_checked(40)?;
    Some((key.to_vec(), [addresses, &[0; 8], port].concat()))
}

/// The steps from one layout to this build's.
pub(crate) struct Chain {
    from: u32,
    /// Those that concern a map.
    steps: Vec<Convert>,
}

impl Chain {
    /// From a layout that a node was left with.
    ///
    /// # Errors
    /// When a step is missing.
    pub(crate) fn from(layout: u32) -> Result<Self> {
        let missing = (layout..LAYOUT).find(|from| !STEPS.iter().any(|step| step.from == *from));
        match missing {
            Some(from) => Err(Error::NoStep { from, to: from + 1 }),
            None => Ok(Self { from: layout, steps: Vec::new() }),
        }
    }

    /// Within one layout.
    pub(crate) fn none() -> Self {
        Self { from: LAYOUT, steps: Vec::new() }
    }

    /// The part of it that concerns a map.
    pub(super) fn of(&self, map: &str) -> Self {
        let steps = STEPS.iter().filter(|step| step.from >= self.from);
        let of_map = steps.flat_map(|step| step.maps).filter(|(name, _)| *name == map);
        Self { from: self.from, steps: of_map.map(|(_, convert)| *convert).collect() }
    }

    /// Whether nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// An element in this build's layout.
    pub(super) fn convert<'a>(&self, key: &'a [u8], value: &'a [u8]) -> Result<Converted<'a>> {
        let mut element: (Element<'a>, Element<'a>) = (key.into(), value.into());
        for step in &self.steps {
            match step(&element.0, &element.1) {
                Some((key, value)) => element = (key.into(), value.into()),
                None => return Ok(None),
            }
        }
        Ok(Some(element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a translated socket in layout 1: backend, address and port and set that it believes in, port.
    fn connected_of_layout_1() -> Vec<u8> {
        let backend = [[0; 10].as_slice(), &[0xff, 0xff, 10, 244, 0, 5]].concat();
        let dialled = [[0; 10].as_slice(), &[0xff, 0xff, 10, 96, 0, 9]].concat();
        [backend, dialled, vec![0, 80, 0, 0], 7_u32.to_ne_bytes().to_vec(), vec![0x1f, 0x90, 0, 0]].concat()
    }

    #[test]
    fn every_layout_since_the_first_has_a_step() {
        for layout in 1..=LAYOUT {
            assert!(Chain::from(layout).is_ok(), "{layout}");
        }
        assert!(matches!(Chain::from(0), Err(Error::NoStep { from: 0, to: 1 })));
    }

    #[test]
    fn a_translated_socket_is_carried_from_layout_1() {
        let (key, value) = (9_u64.to_ne_bytes(), connected_of_layout_1());
        let chain = Chain::from(1).expect("a chain").of("connected");
        let (new_key, new_value) = chain.convert(&key, &value).expect("read").expect("kept");
        assert_eq!(*new_key, key);
        assert_eq!(new_value.len(), size_of::<skep_ebpf_abi::service::Connected>());
        let field = |from: usize, length: usize| &new_value[from..from + length];
        assert_eq!(field(12, 4), [10, 244, 0, 5], "the backend");
        assert_eq!(field(28, 4), [10, 96, 0, 9], "what was dialled");
        assert_eq!(field(36, 4), 7_u32.to_ne_bytes(), "the set");
        assert_eq!(field(40, 8), [0; 8], "the namespace is not known");
        assert_eq!(field(48, 4), [0x1f, 0x90, 0, 0], "the backend's port, and no protocol");
    }

    #[test]
    fn a_map_that_no_step_names_stays_as_it_is() {
        let chain = Chain::from(1).expect("a chain").of("flows");
        let element = chain.convert(b"key", b"value").expect("read").expect("kept");
        assert_eq!((&*element.0, &*element.1), (b"key".as_slice(), b"value".as_slice()));
    }
}
