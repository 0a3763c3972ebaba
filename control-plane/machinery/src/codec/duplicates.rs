//! Duplicate keys of a YAML document with their lines, which only the parser's own errors tell.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

/// The first few duplicate keys of a YAML document, worded with their line.
pub(super) fn yaml_duplicates(bytes: &[u8]) -> Vec<String> {
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
