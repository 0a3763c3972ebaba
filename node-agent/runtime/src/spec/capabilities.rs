//! Linux capabilities: the default set, adding, dropping, and what this machine can give at all.

use super::Security;
use crate::{Error, Result};

/// In the kernel's numbering.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container gets when nothing is said: the set every common engine gives.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The container's capabilities, in the kernel's order, limited to `bounding`.
#[must_use]
pub fn effective(security: &Security, bounding: &[String]) -> Vec<String> {
    if security.privileged {
        return bounding.to_vec();
    }
    let names = |list: &[String]| list.iter().map(|c| strip(c)).collect::<Vec<_>>();
    let (add, drop) = (names(&security.add), names(&security.drop));
    let has = |list: &[String], name: &str| list.iter().any(|c| c == name);
    let (add_all, drop_all) = (has(&add, "ALL"), has(&drop, "ALL"));
    bounding
        .iter()
        .filter(|capability| {
            let name = capability.trim_start_matches("CAP_");
            let base = add_all || (DEFAULT.contains(&name) && !drop_all);
            // A name that is dropped explicitly stays dropped even under add ALL; one that is added
            // explicitly is there even under drop ALL.
            (base && !has(&drop, name)) || has(&add, name)
        })
        .cloned()
        .collect()
}

fn strip(capability: &str) -> String {
    let upper = capability.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
}

/// Our own bounding set: more than that cannot be given to anyone.
pub fn bounding_set() -> Result<Vec<String>> {
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(Error::io("read", "/proc/self/status"))?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    Ok(NAMES
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask & (1 << bit) != 0)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_and_dropping() {
        let bounding: Vec<String> = NAMES.iter().map(|n| format!("CAP_{n}")).collect();
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let with = |add: &[&str], drop: &[&str]| {
            effective(&Security { add: list(add), drop: list(drop), ..Security::default() }, &bounding)
        };
        assert_eq!(with(&[], &[]).len(), 14);
        assert_eq!(with(&["NET_BIND_SERVICE"], &["ALL"]), ["CAP_NET_BIND_SERVICE"]);
        assert_eq!(with(&["ALL"], &[]).len(), 41);
        assert!(!with(&["ALL"], &["CAP_SYS_ADMIN"]).contains(&"CAP_SYS_ADMIN".to_owned()));
        assert!(with(&["net_admin"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!with(&[], &["CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
    }
}
