//! Input for `iptables-restore --noflush`, one run a family, and the jumps from the kernel's own chains.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::Dialect;
use crate::desired::ServiceTables;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::mode::iptables_variant;
use crate::names::ServiceName;
use crate::rules::apply::{attempt, is_installed, tool};
use crate::rules::iptables::{self, ChainKey, Chains, Fragment, Jump, Table};
use crate::rules::{Family, Ground};

/// Seconds to wait for the lock that other programs hold.
const LOCK: &str = "10";

/// The iptables back end.
pub(crate) struct Iptables {
    /// `iptables`, `iptables-nft` or `iptables-legacy`.
    variant: &'static str,
    families: Vec<Family>,
}

/// The program's name for a family.
fn program(variant: &str, family: Family, suffix: &str) -> String {
    let name = match family {
        Family::V4 => variant.to_owned(),
        Family::V6 => variant.replacen("iptables", "ip6tables", 1),
    };
    name + suffix
}

impl Iptables {
    pub(crate) async fn new() -> Self {
        let variant = iptables_variant().await.unwrap_or("iptables");
        let mut families = vec![Family::V4];
        let v6 = program(variant, Family::V6, "-save");
        let works =
            is_installed(&v6) && attempt(&v6, &["-t", "nat"], "").await.is_ok_and(|out| out.status.success());
        if works {
            families.push(Family::V6);
        }
        tracing::info!(variant, ?families, "iptables");
        Self { variant, families }
    }

    async fn restore(&self, write: &Chains, gone: &BTreeSet<ChainKey>) -> Result<()> {
        for &family in &self.families {
            let script = iptables::script(family, write, gone);
            if !script.is_empty() {
                let restore = program(self.variant, family, "-restore");
                tool(&restore, &["-w", LOCK, "--noflush"], &script).await?;
            }
        }
        Ok(())
    }
}

/// The chains of ours that there are.
async fn present(variant: &str, family: Family) -> Result<BTreeSet<ChainKey>> {
    let mut found = BTreeSet::new();
    for table in Table::ALL {
        let saved = tool(&program(variant, family, "-save"), &["-t", table.name()], "").await?;
        let chains = saved.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        let ours = chains.filter(|name| name.starts_with("SKEP-"));
        found.extend(ours.map(|name| (family, table, name.to_owned())));
    }
    Ok(found)
}

async fn has_jump(variant: &str, family: Family, jump: &Jump) -> Result<bool> {
    let arguments = [&["-w", LOCK, "-t", jump.table.name(), "-C", jump.from], &*words(jump)].concat();
    Ok(attempt(&program(variant, family, ""), &arguments, "").await?.status.success())
}

fn words(jump: &Jump) -> Vec<&'static str> {
    jump.rule.split(' ').collect()
}

impl Dialect for Iptables {
    type Fragment = Fragment;

    fn ground(&self, ground: &Ground) -> Fragment {
        iptables::ground(ground, &self.families)
    }

    fn service(&self, tables: &ServiceTables, ground: &Ground) -> Fragment {
        iptables::service(tables, ground, &self.families)
    }

    async fn partial(
        &mut self,
        changes: &[(&Fragment, &Fragment)],
        services: &BTreeMap<ServiceName, Fragment>,
        ground: &Fragment,
    ) -> Result<()> {
        let (write, gone) = iptables::partial(changes.iter().copied(), &services.values(), ground);
        self.restore(&write, &gone).await
    }

    async fn full(&mut self, services: &BTreeMap<ServiceName, Fragment>, ground: &Fragment) -> Result<()> {
        let chains = iptables::full(&self.families, &services.values(), ground);
        let mut gone = BTreeSet::new();
        for &family in &self.families {
            gone.extend(present(self.variant, family).await?);
        }
        gone.retain(|key| !chains.contains_key(key));
        self.restore(&chains, &gone).await?;
        for &family in &self.families {
            for jump in iptables::jumps(family) {
                if !has_jump(self.variant, family, &jump).await? {
                    let insert =
                        [&["-w", LOCK, "-t", jump.table.name(), "-I", jump.from], &*words(&jump)].concat();
                    tool(&program(self.variant, family, ""), &insert, "").await?;
                }
            }
        }
        Ok(())
    }

    async fn keep_house(&mut self, _metrics: &Metrics) -> Result<bool> {
        // One jump tells: what flushes a table takes it with it.
        for &family in &self.families {
            for jump in iptables::jumps(family).iter().filter(|jump| jump.rule == "-j SKEP-SERVICES") {
                if !has_jump(self.variant, family, jump).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Removes the chains and the jumps into them, of both variants; absent is success.
///
/// # Errors
/// When iptables refuses.
pub(crate) async fn purge() -> Result<bool> {
    let mut found = false;
    for variant in ["iptables-nft", "iptables-legacy"] {
        for family in Family::ALL {
            // Looking with the legacy tool would load its tables where nobody uses them.
            let list =
                if family == Family::V4 { "/proc/net/ip_tables_names" } else { "/proc/net/ip6_tables_names" };
            let unused = std::fs::read_to_string(list).is_ok_and(|text| text.trim().is_empty());
            let absent = !std::path::Path::new(list).exists();
            let is_legacy = variant == "iptables-legacy";
            if !is_installed(&program(variant, family, "-save")) || (is_legacy && (unused || absent)) {
                continue;
            }
            let chains = present(variant, family).await?;
            if chains.is_empty() {
                continue;
            }
            found = true;
            for jump in iptables::jumps(family) {
                while has_jump(variant, family, &jump).await? {
                    let delete =
                        [&["-w", LOCK, "-t", jump.table.name(), "-D", jump.from], &*words(&jump)].concat();
                    tool(&program(variant, family, ""), &delete, "").await?;
                }
            }
            let restore = program(variant, family, "-restore");
            tool(&restore, &["-w", LOCK, "--noflush"], &iptables::removal(family, &chains)).await?;
        }
    }
    Ok(found)
}
