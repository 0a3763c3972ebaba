//! From two fragments to the script between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::super::{Family, TABLE};
use super::fragment::{CONTAINERS, Chain, Container, Fragment};

/// What lies in the kernel, by name only.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Present {
    pub(crate) chains: BTreeSet<(Family, String)>,
    pub(crate) sets: BTreeSet<(Family, String)>,
}

/// What nothing refers to any more, to be deleted by a later transaction: within one, some kernels still see the
/// reference.
pub(crate) type Retired = Present;

/// Lines of one transaction, by phase.
#[derive(Default)]
struct Phases {
    tables: String,
    containers: String,
    chains: String,
    flushes: String,
    rules: String,
    deletions: String,
    additions: String,
}

macro_rules! line {
    // Writing to a string cannot fail.
    ($text:expr, $($words:tt)*) => { let _ = writeln!($text, $($words)*); };
}

impl Phases {
    fn container(&mut self, family: Family, name: &str, container: &Container) {
        let (ip, word) = (family.nft(), container.word);
        line!(self.containers, "add {word} {ip} {TABLE} {name} {{ {} ; }}", container.definition);
    }

    fn chain(&mut self, family: Family, name: &str, chain: &Chain, is_there: bool) {
        let ip = family.nft();
        match chain.hook {
            Some(hook) => {
                line!(self.chains, "add chain {ip} {TABLE} {name} {{ {hook} ; }}");
            }
            None => {
                line!(self.chains, "add chain {ip} {TABLE} {name}");
            }
        }
        if is_there {
            line!(self.flushes, "flush chain {ip} {TABLE} {name}");
        }
        for rule in &chain.rules {
            line!(self.rules, "add rule {ip} {TABLE} {name} {rule}");
        }
    }

    fn add_element(&mut self, key: &(Family, &'static str, String), value: Option<&String>) {
        let (family, container, element) = key;
        let ip = family.nft();
        match value {
            Some(value) => {
                line!(self.additions, "add element {ip} {TABLE} {container} {{ {element} : {value} }}");
            }
            None => {
                line!(self.additions, "add element {ip} {TABLE} {container} {{ {element} }}");
            }
        }
    }

    fn delete_element(&mut self, (family, container, element): &(Family, &'static str, String)) {
        line!(self.deletions, "delete element {} {TABLE} {container} {{ {element} }}", family.nft());
    }

    fn join(self) -> String {
        // Containers and chains exist before a rule or an element names them; nothing is deleted that is still named.
        [self.tables, self.containers, self.chains, self.flushes, self.rules, self.deletions, self.additions]
            .concat()
    }
}

/// The transaction from the old fragments to the new ones, owner by owner, and what it leaves to be deleted. Its
/// length follows what differs.
pub(crate) fn partial<'a>(
    changes: impl IntoIterator<Item = (&'a Fragment, &'a Fragment)>,
) -> (String, Retired) {
    let mut phases = Phases::default();
    let mut retired = Retired::default();
    let mut kept = BTreeSet::new();
    for (old, new) in changes {
        for ((family, name), container) in &new.sets {
            if old.sets.get(&(*family, name.clone())) != Some(container) {
                phases.container(*family, name, container);
                // One that waits for its deletion still has its members: who stuck to an endpoint that went and came
                // back does so no more.
                line!(phases.flushes, "flush {} {} {TABLE} {name}", container.word, family.nft());
            }
        }
        for (key, chain) in &new.chains {
            if old.chains.get(key) != Some(chain) {
                // It may also be there still from an earlier change, empty and waiting for its deletion.
                phases.chain(key.0, &key.1, chain, true);
            }
        }
        for (key, value) in &old.elements {
            if new.elements.get(key) != Some(value) {
                phases.delete_element(key);
            }
        }
        for (key, value) in &new.elements {
            if old.elements.get(key) != Some(value) {
                phases.add_element(key, value.as_ref());
            }
        }
        for key in old.chains.keys().filter(|key| !new.chains.contains_key(*key)) {
            line!(phases.flushes, "flush chain {} {TABLE} {}", key.0.nft(), key.1);
            retired.chains.insert(key.clone());
        }
        retired.sets.extend(old.sets.keys().filter(|key| !new.sets.contains_key(*key)).cloned());
        kept.extend(new.chains.keys().cloned());
    }
    // A chain that went with one owner and came with another.
    retired.chains.retain(|key| !kept.contains(key));
    (phases.join(), retired)
}

/// The transaction that makes the tables be just these fragments, whatever they hold. Sets of clients that stick to
/// an endpoint keep their members.
pub(crate) fn full<'a>(
    families: &[Family],
    fragments: impl IntoIterator<Item = &'a Fragment>,
    present: &Present,
) -> (String, Retired) {
    let mut phases = Phases::default();
    let mut retired = present.clone();
    for family in families {
        let ip = family.nft();
        line!(phases.tables, "add table {ip} {TABLE} {{ comment \"service rules of skep\" ; }}");
        for (word, name) in CONTAINERS {
            if present.sets.contains(&(*family, name.to_owned())) {
                line!(phases.deletions, "flush {word} {ip} {TABLE} {name}");
            }
        }
    }
    for (family, name) in &present.chains {
        line!(phases.tables, "flush chain {} {TABLE} {name}", family.nft());
    }
    let mut seen: BTreeMap<&(Family, &'static str, String), Option<&String>> = BTreeMap::new();
    for fragment in fragments {
        for (key, container) in &fragment.sets {
            phases.container(key.0, &key.1, container);
            retired.sets.remove(key);
        }
        for (key, chain) in &fragment.chains {
            phases.chain(key.0, &key.1, chain, false);
            retired.chains.remove(key);
        }
        seen.extend(fragment.elements.iter().map(|(key, value)| (key, value.as_ref())));
    }
    for (key, value) in seen {
        phases.add_element(key, value);
    }
    (phases.join(), retired)
}

/// Deletes what was retired.
pub(crate) fn removal(retired: &Retired) -> String {
    let mut text = String::new();
    for (family, name) in &retired.chains {
        line!(text, "flush chain {} {TABLE} {name}", family.nft());
    }
    for (family, name) in &retired.chains {
        line!(text, "delete chain {} {TABLE} {name}", family.nft());
    }
    for (family, name) in &retired.sets {
        line!(text, "delete set {} {TABLE} {name}", family.nft());
    }
    text
}
