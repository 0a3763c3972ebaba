//! What YAML needs beyond its parser: bounds on hostile documents, and duplicate keys with their lines, which only the
//! parser's own errors tell.

use crate::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

/// Brackets open at once in a document.
const MOST_OPEN_BRACKETS: usize = 1_000;

/// Refuses documents that would cost far more than their length says. What passes may be parsed again safely.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    check_nesting(bytes)?;
    // Without aliases a document has fewer nodes than bytes.
    let left = Cell::new(bytes.len() + 1_000);
    let from = serde_yaml::Deserializer::from_slice(bytes);
    Walk { left: &left }
        .deserialize(from)
        .map_err(|error| Error::bad_request(format!("error converting YAML to JSON: yaml: {error}")))
}

/// The scanner takes quadratic time in the depth of brackets. Brackets inside text count too, which only matters for
/// texts with thousands of unmatched ones.
fn check_nesting(bytes: &[u8]) -> Result<()> {
    let mut open = 0usize;
    for byte in bytes {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MOST_OPEN_BRACKETS {
            return Err(Error::bad_request("error converting YAML to JSON: yaml: exceeded max depth"));
        }
    }
    Ok(())
}

/// Visits every node, aliases followed, until it has seen too many.
#[derive(Clone, Copy)]
struct Walk<'n> {
    left: &'n Cell<usize>,
}

impl Walk<'_> {
    fn node<E: serde::de::Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| E::custom("document contains excessive aliasing"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.node()
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.node()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.node()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.node()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.node()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.node()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.node()?;
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.node()?;
        while map.next_key_seed(self)?.is_some() {
            map.next_value_seed(self)?;
        }
        Ok(())
    }
}

/// The first few duplicate keys of a YAML document, worded with their line.
pub(super) fn duplicates(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for skip in 0..10 {
        let left = RefCell::new((skip, String::new()));
        let from = serde_yaml::Deserializer::from_slice(bytes);
        let Err(error) = (NthDuplicate { left: &left }).deserialize(from) else { break };
        let name = left.into_inner().1;
        let Some(location) = error.location().filter(|_| !name.is_empty()) else { break };
        found.push(format!("  line {}: key \"{name}\" already set in map", location.line()));
    }
    if found.is_empty() { found } else { vec![format!("yaml: unmarshal errors:\n{}", found.join("\n"))] }
}

/// Stops at the n-th duplicate key: that is how the line of each is learnt from a YAML parser.
struct NthDuplicate<'n> {
    left: &'n RefCell<(usize, String)>,
}

impl<'de> DeserializeSeed<'de> for NthDuplicate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NthDuplicate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(NthDuplicate { left: self.left })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let seen = RefCell::new(HashSet::new());
        while map.next_key_seed(FreshKey { seen: &seen, left: self.left })?.is_some() {
            map.next_value_seed(NthDuplicate { left: self.left })?;
        }
        Ok(())
    }
}

struct FreshKey<'n> {
    seen: &'n RefCell<HashSet<String>>,
    left: &'n RefCell<(usize, String)>,
}

impl<'de> DeserializeSeed<'de> for FreshKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for FreshKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if self.seen.borrow_mut().insert(text.to_owned()) {
            return Ok(());
        }
        let mut left = self.left.borrow_mut();
        if left.0 == 0 {
            left.1 = text.to_owned();
            return Err(E::custom("duplicate"));
        }
        left.0 -= 1;
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }
}
