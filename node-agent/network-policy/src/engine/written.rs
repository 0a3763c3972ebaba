//! What the maps hold, by table, and the differences to what they shall.

use std::collections::{BTreeMap, BTreeSet};

use skep_ebpf_abi::Addr;
use skep_ebpf_abi::policy::{BlockKey, Policed};
use skep_ebpf_loader::policy::{BlockEntry, PolicyChange, PolicyTables, RuleEntry};

use super::{Plan, Stale, Table};
use crate::model::RuleName;

/// The maps' contents.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) identities: BTreeMap<Addr, u32>,
    pub(super) policed: BTreeMap<Addr, Policed>,
    /// By table and peer, so that what concerns one identity is found without a search.
    rules: BTreeMap<u32, BTreeMap<u32, BTreeMap<RuleEntry, u32>>>,
    blocks: BTreeMap<u32, BTreeMap<BlockEntry, u32>>,
}

impl From<&PolicyTables> for Written {
    fn from(tables: &PolicyTables) -> Self {
        let mut written = Self {
            identities: tables.identities.clone(),
            policed: tables.policed.clone(),
            ..Self::default()
        };
        tables.rules.iter().for_each(|(rule, id)| written.put_rule(rule, *id));
        for (block, class) in &tables.blocks {
            written.blocks.entry(block.key.table).or_default().insert(*block, *class);
        }
        written
    }
}

impl Written {
    /// Whether nobody is judged by anything.
    pub(super) fn is_clean(&self) -> bool {
        self.policed.is_empty() && self.rules.is_empty() && self.blocks.is_empty()
    }

    fn put_rule(&mut self, rule: &RuleEntry, id: u32) {
        self.rules.entry(rule.key.table).or_default().entry(rule.key.peer).or_default().insert(*rule, id);
    }

    fn remove_rule(&mut self, rule: &RuleEntry) {
        let Some(table) = self.rules.get_mut(&rule.key.table) else { return };
        if let Some(peer) = table.get_mut(&rule.key.peer) {
            peer.remove(rule);
            if peer.is_empty() {
                table.remove(&rule.key.peer);
            }
        }
        if table.is_empty() {
            self.rules.remove(&rule.key.table);
        }
    }

    pub(super) fn apply(&mut self, change: &PolicyChange) {
        match change {
            PolicyChange::PutRules(rules) => rules.iter().for_each(|(rule, id)| self.put_rule(rule, *id)),
            PolicyChange::RemoveRules(rules) => rules.iter().for_each(|rule| self.remove_rule(rule)),
            PolicyChange::PutBlocks(blocks) => {
                for (block, class) in blocks {
                    self.blocks.entry(block.key.table).or_default().insert(*block, *class);
                }
            }
            PolicyChange::RemoveBlocks(blocks) => {
                for block in blocks {
                    if let Some(table) = self.blocks.get_mut(&block.key.table) {
                        table.remove(block);
                        if table.is_empty() {
                            self.blocks.remove(&block.key.table);
                        }
                    }
                }
            }
            PolicyChange::PutIdentities(identities) => self.identities.extend(identities.iter().copied()),
            PolicyChange::RemoveIdentities(gone) => self.identities.retain(|addr, _| !gone.contains(addr)),
            PolicyChange::Police(pods) => self.policed.extend(pods.iter().copied()),
            PolicyChange::Release(pods) => self.policed.retain(|addr, _| !pods.contains(addr)),
        }
    }

    /// What is to be written of a table. It gets another number when its blocks are not those that are written.
    pub(super) fn diff_table(
        &self,
        table: &mut Table,
        rule_ids: &mut BTreeMap<RuleName, u32>,
        next_table: &mut u32,
        plan: &mut Plan,
    ) {
        let none = BTreeMap::new();
        let at =
            |id: u32, block: &BlockEntry| BlockEntry { key: BlockKey { table: id, ..block.key }, ..*block };
        let blocks = |id: u32| -> BTreeMap<BlockEntry, u32> {
            table.fixed.blocks.iter().map(|(block, class)| (at(id, block), *class)).collect()
        };
        let mut wanted_blocks = blocks(table.id);
        let is_new = !self.rules.contains_key(&table.id) && !self.blocks.contains_key(&table.id);
        if !is_new
            && table.stale == Stale::All
            && wanted_blocks != *self.blocks.get(&table.id).unwrap_or(&none)
        {
            table.id = *next_table;
            *next_table += 1;
            wanted_blocks = blocks(table.id);
        }
        let known = BTreeMap::new();
        let written = self.rules.get(&table.id).unwrap_or(&known);
        if table.stale == Stale::All {
            let there = self.blocks.get(&table.id).unwrap_or(&none);
            plan.blocks.extend(wanted_blocks.into_iter().filter(|(block, _)| !there.contains_key(block)));
        }
        let stale = std::mem::replace(&mut table.stale, Stale::Peers(BTreeSet::new()));
        let concerns = |peer: u32| match &stale {
            Stale::All => true,
            Stale::Peers(peers) => peers.contains(&peer),
        };
        let mut wanted: BTreeMap<RuleEntry, u32> = BTreeMap::new();
        for (entry, name) in table.entries().filter(|(entry, _)| concerns(entry.peer)) {
            let next = u32::try_from(rule_ids.len() + 1).unwrap_or(u32::MAX);
            let id = *rule_ids.entry(name.clone()).or_insert(next);
            wanted.insert(entry.at(table.id), id);
        }
        for (peer, rules) in written.iter().filter(|(peer, _)| concerns(**peer)) {
            let gone = rules.keys().filter(|rule| !wanted.contains_key(rule));
            let before = plan.forbidden.len();
            plan.forbidden.extend(gone.copied());
            if plan.forbidden.len() > before {
                tracing::trace!(table = table.id, peer, "allows less");
                plan.narrowed.insert(table.id);
            }
        }
        let is_there = |rule: &RuleEntry, id: u32| {
            written.get(&rule.key.peer).and_then(|rules| rules.get(rule)).copied() == Some(id)
        };
        plan.rules.extend(wanted.into_iter().filter(|(rule, id)| !is_there(rule, *id)));
    }

    /// Everything of tables that are not alive.
    pub(super) fn dead(&self, alive: &BTreeSet<u32>, plan: &mut Plan) {
        let rules = self.rules.iter().filter(|(table, _)| !alive.contains(table));
        plan.dead_rules.extend(rules.flat_map(|(_, peers)| peers.values()).flat_map(BTreeMap::keys).copied());
        let blocks = self.blocks.iter().filter(|(table, _)| !alive.contains(table));
        plan.dead_blocks.extend(blocks.flat_map(|(_, blocks)| blocks.keys()).copied());
    }
}
