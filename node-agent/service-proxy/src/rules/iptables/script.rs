//! From what is in the kernel to what should be, as input of `iptables-restore --noflush`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::super::Family;
use super::fragment::{ChainKey, Fragment, SHARED, Table};

/// Chains with their rules.
pub(crate) type Chains = BTreeMap<ChainKey, Vec<String>>;

/// A shared chain of all owners' lines; the node's own come last.
fn shared<'a>(
    key: &ChainKey,
    services: impl Iterator<Item = &'a Fragment>,
    ground: &'a Fragment,
) -> Vec<String> {
    services.chain([ground]).filter_map(|fragment| fragment.lines.get(key)).flatten().cloned().collect()
}

/// Every chain that there should be.
pub(crate) fn full<'a>(
    families: &[Family],
    services: &(impl Iterator<Item = &'a Fragment> + Clone),
    ground: &'a Fragment,
) -> Chains {
    let mut chains: Chains =
        services.clone().chain([ground]).flat_map(|fragment| fragment.chains.clone()).collect();
    for family in families {
        for (table, name) in SHARED {
            let key = (*family, table, name.to_owned());
            let rules = shared(&key, services.clone(), ground);
            chains.insert(key, rules);
        }
    }
    chains
}

/// The chains that differ once `changes` (old, new) are in, and those that go. `services` are all fragments as they
/// will be.
pub(crate) fn partial<'a>(
    changes: impl IntoIterator<Item = (&'a Fragment, &'a Fragment)>,
    services: &(impl Iterator<Item = &'a Fragment> + Clone),
    ground: &'a Fragment,
) -> (Chains, BTreeSet<ChainKey>) {
    let mut write = Chains::new();
    let mut gone = BTreeSet::new();
    for (old, new) in changes {
        for (key, rules) in &new.chains {
            if old.chains.get(key) != Some(rules) {
                write.insert(key.clone(), rules.clone());
            }
        }
        gone.extend(old.chains.keys().filter(|key| !new.chains.contains_key(*key)).cloned());
        for key in old.lines.keys().chain(new.lines.keys()) {
            if old.lines.get(key) != new.lines.get(key) && !write.contains_key(key) {
                write.insert(key.clone(), shared(key, services.clone(), ground));
            }
        }
    }
    gone.retain(|key| !write.contains_key(key));
    (write, gone)
}

/// The script of one family. Chains that go are emptied and deleted at the end, when nothing leads to them.
pub(crate) fn script(family: Family, write: &Chains, gone: &BTreeSet<ChainKey>) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let is_here = |key: &&ChainKey| key.0 == family && key.1 == table;
        let chains: Vec<(&ChainKey, &Vec<String>)> = write.iter().filter(|(key, _)| is_here(key)).collect();
        let leaving: Vec<&ChainKey> = gone.iter().filter(is_here).collect();
        if chains.is_empty() && leaving.is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "*{}", table.name());
        for name in chains.iter().map(|(key, _)| &key.2).chain(leaving.iter().map(|key| &key.2)) {
            let _ = writeln!(text, ":{name} - [0:0]");
        }
        for (key, rules) in &chains {
            for rule in *rules {
                let _ = writeln!(text, "-A {} {rule}", key.2);
            }
        }
        for key in leaving {
            let _ = writeln!(text, "-X {}", key.2);
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// Deletes every chain of ours among `present`, once nothing of the kernel's own leads there.
pub(crate) fn removal(family: Family, present: &BTreeSet<ChainKey>) -> String {
    script(family, &Chains::new(), present)
}
