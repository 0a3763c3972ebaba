//! Scripts for `nft -f -`: each is one transaction, so packets see all of a change or nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::rules::Dialect;
use crate::desired::ServiceTables;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::names::ServiceName;
use crate::rules::apply::{attempt, tool};
use crate::rules::nftables::{self, Fragment, Present, Retired};
use crate::rules::{Family, Ground, TABLE};

/// How long what is not referred to stays, as packets may still be on their way through.
const REMOVE_AFTER: Duration = Duration::from_secs(2);

/// The nftables back end.
pub(crate) struct Nftables {
    families: Vec<Family>,
    retired: Retired,
    retired_at: Instant,
}

impl Nftables {
    /// Finds out which families the kernel has tables for.
    pub(crate) async fn new() -> Self {
        let mut families = vec![Family::V4];
        let sample = "add table ip6 skep-probe\n";
        match tool("nft", &["-c", "-f", "-"], sample).await {
            Ok(_) => families.push(Family::V6),
            Err(error) => tracing::info!(%error, "no nftables for IPv6 here"),
        }
        Self { families, retired: Retired::default(), retired_at: Instant::now() }
    }

    fn retire(&mut self, retired: Retired, written: &str) {
        if !retired.chains.is_empty() || !retired.sets.is_empty() {
            self.retired.chains.extend(retired.chains);
            self.retired.sets.extend(retired.sets);
            self.retired_at = Instant::now();
        }
        // What came back meanwhile is in use.
        let made = |line: &str| line.starts_with("add chain") || line.starts_with("add set");
        for line in written.lines().filter(|line| made(line)) {
            let mut words = line.split(' ').skip(2);
            let family = if words.next() == Some("ip6") { Family::V6 } else { Family::V4 };
            if let Some(name) = words.nth(1) {
                self.retired.chains.remove(&(family, name.to_owned()));
                self.retired.sets.remove(&(family, name.to_owned()));
            }
        }
    }
}

/// The chains and sets of our table, by name.
async fn present(families: &[Family]) -> Result<Present> {
    let mut present = Present::default();
    for &family in families {
        let arguments = ["-j", "-t", "list", "table", family.nft(), TABLE];
        let output = attempt("nft", &arguments, "").await?;
        // No such table.
        if !output.status.success() {
            continue;
        }
        let listed: Value = serde_json::from_slice(&output.stdout)?;
        for item in listed.get("nftables").and_then(Value::as_array).into_iter().flatten() {
            let name = |kind: &str| item.get(kind)?.get("name")?.as_str().map(str::to_owned);
            if let Some(name) = name("chain") {
                present.chains.insert((family, name));
            } else if let Some(name) = name("set").or_else(|| name("map")) {
                present.sets.insert((family, name));
            }
        }
    }
    Ok(present)
}

impl Dialect for Nftables {
    type Fragment = Fragment;

    fn ground(&self, ground: &Ground) -> Fragment {
        nftables::ground(ground, &self.families)
    }

    fn service(&self, tables: &ServiceTables, ground: &Ground) -> Fragment {
        nftables::service(tables, ground, &self.families)
    }

    async fn partial(
        &mut self,
        changes: &[(&Fragment, &Fragment)],
        _services: &BTreeMap<ServiceName, Fragment>,
        _ground: &Fragment,
    ) -> Result<()> {
        let (script, retired) = nftables::partial(changes.iter().copied());
        tool("nft", &["-f", "-"], &script).await?;
        self.retire(retired, &script);
        Ok(())
    }

    async fn full(&mut self, services: &BTreeMap<ServiceName, Fragment>, ground: &Fragment) -> Result<()> {
        let fragments = || [ground].into_iter().chain(services.values());
        let present = present(&self.families).await?;
        let (script, retired) = nftables::full(&self.families, fragments(), &present);
        if let Err(error) = tool("nft", &["-f", "-"], &script).await {
            // What lies there cannot be built upon: a new table, in one transaction with the end of the old one.
            tracing::warn!(error = &error as &dyn std::error::Error, "making the tables anew");
            let (script, _) = nftables::full(&self.families, fragments(), &Present::default());
            let ends = self.families.iter().map(|family| {
                let ip = family.nft();
                format!("add table {ip} {TABLE}\ndelete table {ip} {TABLE}\n")
            });
            tool("nft", &["-f", "-"], &(ends.collect::<String>() + &script)).await?;
            self.retired = Retired::default();
            return Ok(());
        }
        self.retired = Retired::default();
        self.retire(retired, "");
        Ok(())
    }

    async fn keep_house(&mut self, metrics: &Metrics) -> Result<bool> {
        let is_nothing = self.retired.chains.is_empty() && self.retired.sets.is_empty();
        if !is_nothing && self.retired_at.elapsed() >= REMOVE_AFTER {
            match tool("nft", &["-f", "-"], &nftables::removal(&self.retired)).await {
                Ok(_) => self.retired = Retired::default(),
                Err(error) => {
                    // They are empty and cost nothing; the next full write finds them.
                    metrics.cleanup_failures.inc();
                    tracing::debug!(error = &error as &dyn std::error::Error, "deleting unused chains");
                }
            }
        }
        let mut intact = true;
        for family in &self.families {
            let listed = attempt("nft", &["list", "chain", family.nft(), TABLE, "services"], "").await?;
            intact &= listed.status.success();
        }
        Ok(intact)
    }
}

/// Removes the tables; absent is success.
///
/// # Errors
/// When nft refuses.
pub(crate) async fn purge() -> Result<bool> {
    let mut found = false;
    for family in Family::ALL {
        let ip = family.nft();
        if attempt("nft", &["-t", "list", "table", ip, TABLE], "").await?.status.success() {
            found = true;
            tool("nft", &["delete", "table", ip, TABLE], "").await?;
        }
    }
    Ok(found)
}
