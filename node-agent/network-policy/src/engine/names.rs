//! What the numbers in the maps stand for: kept in a file, so that they can be read while no agent runs.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use skep_ebpf_loader::policy::isolated_names;

use super::Engine;
use crate::model::RuleName;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Names {
    /// Rules by their numbers.
    pub rules: BTreeMap<u32, RuleName>,
    /// Tables by their numbers.
    pub tables: BTreeMap<u32, TableNames>,
    /// This node's pods by address.
    pub pods: BTreeMap<String, String>,
}

/// What a table is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableNames {
    /// The policies.
    pub policies: Vec<String>,
    /// The directions in which they isolate pods.
    pub isolated: Vec<String>,
}

impl Names {
    /// Reads the file; none is an empty one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, serde_json::to_vec(self)?)?;
        std::fs::rename(&fresh, path)
    }
}

impl Engine {
    /// What the numbers stand for now.
    pub fn names(&self) -> Names {
        let table = |table: &super::Table| TableNames {
            policies: table.selected.policies.iter().map(|policy| policy.name.to_string()).collect(),
            isolated: isolated_names(table.fixed.isolated).into_iter().map(str::to_owned).collect(),
        };
        let used = self.tables.values().flat_map(super::Table::entries).map(|(_, name)| name);
        let rules = used.filter_map(|name| Some((*self.rule_ids.get(name)?, name.clone()))).collect();
        let pods = self
            .local
            .values()
            .flat_map(|local| local.ips.iter().map(|ip| (ip.to_string(), local.name.to_string())));
        Names {
            rules,
            tables: self.tables.values().map(|one| (one.id, table(one))).collect(),
            pods: pods.collect(),
        }
    }
}
