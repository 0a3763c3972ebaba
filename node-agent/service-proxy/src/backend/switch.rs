//! From one mode to another, and the end of all of them.
//!
//! The record says what mode this node was left in and which sysctls were changed for it. Without a record every mode
//! is looked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{iptables, nftables};
use crate::error::{Error, Result};
use crate::mode::ProxyMode;
use crate::rules::apply::is_installed;
use crate::run::ProxyConfig;

/// Lets packets between loopback and other interfaces pass the routing, which node ports on 127.0.0.1 need.
const ROUTE_LOCALNET: &str = "net/ipv4/conf/all/route_localnet";

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Record {
    mode: ProxyMode,
    /// What sysctls were before.
    sysctls: BTreeMap<String, String>,
}

fn read(path: &Path) -> Option<Record> {
    // One that cannot be read is as good as none: everything is looked for then.
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The mode that a node was left in.
pub fn recorded_mode(path: &Path) -> Option<ProxyMode> {
    read(path).map(|record| record.mode)
}

fn write(path: &Path, record: &Record) -> Result<()> {
    let text = serde_json::to_vec_pretty(record)?;
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).map_err(Error::file(&fresh))?;
    fs::rename(&fresh, path).map_err(Error::file(path))
}

fn sysctl(name: &str) -> std::path::PathBuf {
    Path::new("/proc/sys").join(name)
}

/// Sets a sysctl and keeps what it was.
fn change(record: &mut Record, name: &str, value: &str) -> Result<()> {
    let path = sysctl(name);
    let before = fs::read_to_string(&path).map_err(Error::file(&path))?.trim().to_owned();
    if before != value {
        record.sysctls.entry(name.to_owned()).or_insert(before);
        fs::write(&path, value).map_err(Error::file(&path))?;
    }
    Ok(())
}

fn restore(record: &mut Record) -> Result<()> {
    while let Some((name, value)) = record.sysctls.pop_first() {
        let path = sysctl(&name);
        fs::write(&path, value).map_err(Error::file(&path))?;
    }
    Ok(())
}

/// Removes what other modes have in the kernel. To be called when this mode serves everything.
pub(crate) async fn settle(config: &ProxyConfig) -> Result<()> {
    let before = config.record.as_deref().and_then(read);
    let mut record = before.clone().unwrap_or_default();
    let was = |mode| before.as_ref().is_none_or(|before| before.mode == mode);
    if config.mode.is_rules() {
        // First, so that a crash leaves no change without its record.
        record.mode = config.mode;
        let path = sysctl(ROUTE_LOCALNET);
        let is_needed = config.options.serves_loopback();
        if is_needed
            && let Ok(value) = fs::read_to_string(&path)
            && value.trim() != "1"
        {
            record.sysctls.entry(ROUTE_LOCALNET.to_owned()).or_insert_with(|| value.trim().to_owned());
        }
        if let Some(path) = &config.record {
            write(path, &record)?;
        }
        if is_needed {
            change(&mut record, ROUTE_LOCALNET, "1")?;
        } else {
            restore(&mut record)?;
        }
        if let Some(plane) = &config.data_plane {
            plane.leave_services()?;
        }
    }
    if config.mode != ProxyMode::Nftables && was(ProxyMode::Nftables) && is_installed("nft") {
        told(nftables::purge().await?, ProxyMode::Nftables);
    }
    if config.mode != ProxyMode::Iptables && was(ProxyMode::Iptables) {
        told(iptables::purge().await?, ProxyMode::Iptables);
    }
    if !config.mode.is_rules() {
        restore(&mut record)?;
        if let Some(plane) = &config.data_plane {
            plane.take_services()?;
        }
    }
    record.mode = config.mode;
    match &config.record {
        Some(path) if before.as_ref() != Some(&record) => write(path, &record),
        _ => Ok(()),
    }
}

fn told(found: bool, mode: ProxyMode) {
    if found {
        tracing::info!(%mode, "removed what another proxy mode had left");
    }
}

/// Removes the rules of all modes, and undoes sysctls by the record; nothing there is success.
///
/// # Errors
/// When a tool refuses.
pub async fn purge_rules(record: &Path) -> Result<()> {
    let known = read(record);
    // A record of eBPF says that no rules were left; without any, they are looked for.
    if known.as_ref().is_none_or(|record| record.mode.is_rules()) {
        if is_installed("nft") {
            nftables::purge().await?;
        }
        iptables::purge().await?;
    }
    if let Some(mut record) = known {
        restore(&mut record)?;
    }
    match fs::remove_file(record) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(record)(error)),
        _ => Ok(()),
    }
}
