//! How services are served on this node, and what the kernel can do.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::rules::apply::{attempt, is_installed, tool};

/// Who translates service addresses.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// The eBPF programs.
    #[default]
    Ebpf,
    /// Rules of the nftables table `skep-proxy`.
    Nftables,
    /// Chains of iptables with the prefix `SKEP-`.
    Iptables,
}

impl ProxyMode {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Ebpf, Self::Nftables, Self::Iptables];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }

    /// Whether the kernel's packet filter does the work.
    pub const fn is_rules(self) -> bool {
        !matches!(self, Self::Ebpf)
    }

    /// Whether rules of this mode can be written here: the tool is there and the kernel takes what is needed.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe_rules(self) -> Result<()> {
        match self {
            Self::Ebpf => Ok(()),
            Self::Nftables => probe_nftables().await,
            Self::Iptables => probe_iptables().await,
        }
    }

    fn unusable(self, why: impl fmt::Display) -> Error {
        Error::Mode { mode: self, why: why.to_string() }
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ProxyMode {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| format!("{text:?} is none of ebpf, nftables, iptables"))
    }
}

/// Every kind of expression that the rules use. Checked only, never kept.
const NFTABLES_SAMPLE: &str = "\
add table ip skep-probe { comment \"probe\" ; }
add set ip skep-probe s { type ipv4_addr ; flags dynamic,timeout ; timeout 10s ; }
add map ip skep-probe m { type ipv4_addr . inet_proto . inet_service : verdict ; }
add chain ip skep-probe e
add rule ip skep-probe e update @s { ip saddr }
add rule ip skep-probe e meta mark set meta mark or 0x4000
add rule ip skep-probe e fib saddr type local return
add rule ip skep-probe e meta l4proto tcp dnat to 192.0.2.1:80
add chain ip skep-probe r
add rule ip skep-probe r meta l4proto tcp reject with tcp reset
add chain ip skep-probe c
add rule ip skep-probe c numgen random mod 1 vmap { 0 : goto e }
add element ip skep-probe m { 192.0.2.2 . tcp . 80 : goto c }
add chain ip skep-probe p { type nat hook prerouting priority dstnat ; }
add rule ip skep-probe p ip daddr . meta l4proto . th dport vmap @m
add chain ip skep-probe q { type nat hook postrouting priority srcnat ; }
add rule ip skep-probe q masquerade fully-random
";

async fn probe_nftables() -> Result<()> {
    let mode = ProxyMode::Nftables;
    if !is_installed("nft") {
        return Err(mode.unusable("nft is not installed (package nftables)"));
    }
    tool("nft", &["-c", "-f", "-"], NFTABLES_SAMPLE)
        .await
        .map(drop)
        .map_err(|error| mode.unusable(error.chain()))
}

/// In the nat table of a chain that nothing leads to; `--test` parses and builds, but does not commit.
const IPTABLES_SAMPLE: &str = "\
*nat
:SKEP-PROBE - [0:0]
-A SKEP-PROBE -m comment --comment x -m statistic --mode random --probability 0.5 -j RETURN
-A SKEP-PROBE -m recent --name SKEP-PROBE --rcheck --seconds 10 --reap -j RETURN
-A SKEP-PROBE -m addrtype --dst-type LOCAL -j RETURN
-A SKEP-PROBE -j MARK --or-mark 0x4000
-A SKEP-PROBE -p tcp -m tcp -j DNAT --to-destination 192.0.2.1:80
COMMIT
";

async fn probe_iptables() -> Result<()> {
    let mode = ProxyMode::Iptables;
    let Some(program) = iptables_variant().await else {
        return Err(mode.unusable("iptables is not installed"));
    };
    let restore = format!("{program}-restore");
    tool(&restore, &["--noflush", "--test"], IPTABLES_SAMPLE)
        .await
        .map(drop)
        .map_err(|error| mode.unusable(error.chain()))
}

/// The iptables to speak to: rules of the two variants are two sets of hooks, and what others wrote tells which one
/// this machine lives by. Without any rules, what the machine calls `iptables`.
pub(crate) async fn iptables_variant() -> Option<&'static str> {
    let (legacy, nft) = ("iptables-legacy", "iptables-nft");
    if is_installed("iptables-legacy-save") && is_installed("iptables-nft-save") {
        let rules = async |program: &str| {
            let save = format!("{program}-save");
            match attempt(&save, &[], "").await {
                Ok(output) => {
                    let text = String::from_utf8_lossy(&output.stdout).into_owned();
                    text.lines().filter(|line| line.starts_with("-A ") && !line.contains("SKEP-")).count()
                }
                Err(_) => 0,
            }
        };
        // Asking the legacy tool loads its tables; only the kernel's list tells whether it is in use.
        let in_use =
            std::fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|text| !text.trim().is_empty());
        let (old, new) = (if in_use { rules(legacy).await } else { 0 }, rules(nft).await);
        if old != new {
            return Some(if old > new { legacy } else { nft });
        }
    }
    is_installed("iptables-restore").then_some("iptables")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for mode in ProxyMode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        assert!("ipvs".parse::<ProxyMode>().is_err());
    }
}
