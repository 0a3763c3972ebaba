//! `skep net check`: looks at the kernel, the programs or rules, the maps, the routes and at other proxies; says what
//! it found and what to do about it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use skep_ebpf_abi::TCP;
use skep_ebpf_abi::service::frontend;
use skep_ebpf_loader::inspect::{Inspector, LinkState, MapState};
use skep_ebpf_loader::tables::{Lookup, Tables, socket_address};

use super::{Format, print};
use crate::backend::recorded_mode;
use crate::error::Result;
use crate::mode::ProxyMode;
use crate::rules::apply::{attempt, is_installed};

/// Maps are full before the last entry: hashes collide.
const PRESSURE: u64 = 80;
/// Addresses that are dialled.
const SAMPLES: usize = 3;
const DIAL: Duration = Duration::from_secs(1);
/// The programs that must be attached for sockets.
const SOCKET_LINKS: [&str; 9] = [
    "connect4",
    "connect6",
    "getpeername4",
    "getpeername6",
    "recvmsg4",
    "recvmsg6",
    "release",
    "sendmsg4",
    "sendmsg6",
];

/// How bad something is.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Note,
    Warning,
    Problem,
}

/// One thing that was looked at.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
struct Finding {
    check: &'static str,
    level: Level,
    found: String,
    advice: &'static str,
}

fn finding(check: &'static str, level: Level, found: impl Into<String>, advice: &'static str) -> Finding {
    Finding { check, level, found: found.into(), advice }
}

/// The report, and whether nothing is wrong.
#[derive(Debug)]
pub struct Report {
    /// What to print.
    pub text: String,
    /// No problem was found.
    pub sound: bool,
}

/// Looks at everything.
///
/// # Errors
/// When the report cannot be written; what cannot be read is a finding.
pub async fn check(pin_dir: &Path, record: &Path, format: Format) -> Result<Report> {
    let mode = recorded_mode(record);
    let mut findings = vec![match mode {
        Some(mode) => finding("mode", Level::Ok, mode.name(), ""),
        None => finding("mode", Level::Note, "no record of a proxy", "start `skep up` or `skep agent`"),
    }];
    findings.extend(kernel());
    let inspector = Inspector::new(pin_dir);
    let mut tables = Tables::default();
    match mode {
        Some(mode) if mode.is_rules() => findings.push(rules(mode).await),
        _ => match inspector.tables() {
            Ok(read) => {
                tables = read;
                findings.extend(links(&inspector.links().unwrap_or_default()));
                findings.extend(pressure(&inspector.usage().unwrap_or_default()));
                findings.extend(consistency(&tables));
                findings.extend(drops(&inspector.counters().unwrap_or_default()));
            }
            Err(error) => findings.push(finding(
                "maps",
                Level::Problem,
                error.to_string(),
                "the agent makes them at its start; its log says why it did not",
            )),
        },
    }
    findings.extend(dial(&tables).await);
    findings.push(guards(&std::fs::read_to_string("/proc/net/route").unwrap_or_default(), &tables));
    findings.extend(others(mode).await);
    let sound = findings.iter().all(|finding| finding.level < Level::Problem);
    let text = print(&findings, format, &["CHECK", "RESULT", "FOUND", "WHAT TO DO"], |finding| {
        let level = format!("{:?}", finding.level).to_lowercase();
        vec![finding.check.to_owned(), level, finding.found.clone(), finding.advice.to_owned()]
    })?;
    Ok(Report { text, sound })
}

/// What the kernel can do.
fn kernel() -> Vec<Finding> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let mut findings = vec![match version {
        version if version < (5, 10) => finding(
            "kernel",
            Level::Problem,
            release,
            "eBPF needs 5.10; the agent falls back to rules (--proxy-mode)",
        ),
        version if version < (6, 6) => finding(
            "kernel",
            Level::Note,
            release,
            "no TCX before 6.6: programs are replaced with a short gap at an upgrade",
        ),
        _ => finding("kernel", Level::Ok, release, ""),
    }];
    let v2 = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|root| Path::new(root).join("cgroup.controllers").exists());
    findings.push(match v2 {
        Some(root) => finding("cgroup v2", Level::Ok, root, ""),
        None => finding(
            "cgroup v2",
            Level::Problem,
            "not mounted",
            "socket load balancing needs it: mount cgroup2",
        ),
    });
    let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    findings.push(if forwarding.trim() == "1" {
        finding("forwarding", Level::Ok, "on", "")
    } else {
        finding(
            "forwarding",
            Level::Problem,
            "off",
            "another program switched it off: sysctl net.ipv4.ip_forward=1",
        )
    });
    findings
}

fn links(links: &[LinkState]) -> Vec<Finding> {
    let there: BTreeSet<&str> =
        links.iter().filter(|link| link.program != 0).map(|link| link.name.as_str()).collect();
    let missing: Vec<&str> = SOCKET_LINKS.into_iter().filter(|name| !there.contains(name)).collect();
    let uplinks = there.iter().filter(|name| name.starts_with("uplink-in-")).count();
    let pods = there.iter().filter(|name| name.starts_with("pod-") && !name.starts_with("pod-out-")).count();
    vec![
        if missing.is_empty() {
            finding("socket programs", Level::Ok, format!("{} attached", SOCKET_LINKS.len()), "")
        } else {
            finding(
                "socket programs",
                Level::Problem,
                format!("not attached: {}", missing.join(", ")),
                "restart the agent; it attaches them again",
            )
        },
        if uplinks > 0 {
            finding("packet programs", Level::Ok, format!("{uplinks} uplinks, {pods} pods"), "")
        } else {
            finding(
                "packet programs",
                Level::Warning,
                "no uplink has one",
                "node ports are not served from outside; is the node's address on an interface?",
            )
        },
    ]
}

fn pressure(maps: &[MapState]) -> Vec<Finding> {
    let percent = |map: &MapState| map.used.map(|used| used as u64 * 100 / u64::from(map.limit.max(1)));
    let full: Vec<String> = maps
        .iter()
        .filter(|map| percent(map).is_some_and(|percent| percent >= PRESSURE))
        .map(|map| format!("{} {}%", map.name, percent(map).unwrap_or(0)))
        .collect();
    let bytes: u64 = maps.iter().map(|map| map.bytes).sum();
    vec![if full.is_empty() {
        finding("maps", Level::Ok, format!("{} maps, {} MiB", maps.len(), bytes >> 20), "")
    } else {
        finding(
            "maps",
            Level::Warning,
            full.join(", "),
            "nearly full: maps grow by themselves up to an eighth of the memory (--map-memory); what does not fit is refused and told in an Event",
        )
    }]
}

fn consistency(tables: &Tables) -> Vec<Finding> {
    let broken: Vec<String> = tables
        .frontends
        .keys()
        .filter_map(|key| match tables.lookup(key, false) {
            Lookup::Broken(why) => Some(format!("{}: {why}", socket_address(key.addr, key.port_be))),
            _ => None,
        })
        .collect();
    vec![if broken.is_empty() {
        finding("tables", Level::Ok, format!("{} frontends, all whole", tables.frontends.len()), "")
    } else {
        let more = if broken.len() > 3 { format!(" and {} more", broken.len() - 3) } else { String::new() };
        let first = broken.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
        finding("tables", Level::Problem, first + &more, "restart the agent; it completes the tables")
    }]
}

/// What a counter of drops means.
fn drops(counters: &[(&'static str, u64)]) -> Vec<Finding> {
    let advice = |name: &str| match name {
        "drop_flows_full" => {
            Some((Level::Problem, "the table of flows is full: new connections from outside fail"))
        }
        "drop_no_port" => Some((Level::Problem, "no source port is free towards one destination")),
        "drop_no_source" => Some((Level::Warning, "the node has no address of a packet's family")),
        "drop_rewrite" => Some((Level::Warning, "packets too short or odd to be rewritten")),
        "drop_no_route" => {
            Some((Level::Warning, "no route to an endpoint: is the other node's route there?"))
        }
        "drop_no_backend" => {
            Some((Level::Note, "a traffic policy left no endpoint, or one was just removed"))
        }
        "drop_source_range" => Some((Level::Note, "clients outside of loadBalancerSourceRanges")),
        "drop_hold" => {
            Some((Level::Note, "first packets while maps grew or an upgrade took over; they are sent again"))
        }
        "drop_no_tunnel" => Some((Level::Warning, "a pod of a node that the tunnel does not know")),
        "drop_tunnel_source" => {
            Some((Level::Warning, "tunnelled packets whose sender is no node of this cluster, or forged"))
        }
        "drop_policy" => {
            Some((Level::Note, "network policies do their work: `skep net policy denied` says whose"))
        }
        "drop_verdicts_full" => {
            Some((Level::Problem, "the table of flows that network policies decided is full: new ones fail"))
        }
        "drop_spoofed" => Some((Level::Warning, "a pod sends with an address that is not its own")),
        "drop_fragment" => Some((Level::Note, "fragments to a service: lower the clients' MTU")),
        "socket_inconsistent" => {
            Some((Level::Warning, "a set was read while it changed; harmless unless it grows"))
        }
        _ => None,
    };
    let found = counters.iter().filter(|(_, value)| *value > 0).filter_map(|(name, value)| {
        let (level, advice) = advice(name)?;
        Some(finding("drops", level, format!("{name} {value}"), advice))
    });
    found.collect()
}

async fn rules(mode: ProxyMode) -> Finding {
    let advice = "somebody removed them; the agent writes them again within ten seconds while it runs";
    let there = match mode {
        ProxyMode::Nftables => {
            let list = attempt("nft", &["list", "chain", "ip", crate::rules::TABLE, "services"], "").await;
            list.is_ok_and(|output| output.status.success())
        }
        _ => match crate::mode::iptables_variant().await {
            Some(variant) => {
                let list = ["-w", "10", "-t", "nat", "-C", "PREROUTING", "-j", "SKEP-SERVICES"];
                attempt(variant, &list, "").await.is_ok_and(|output| output.status.success())
            }
            None => false,
        },
    };
    if there {
        finding("rules", Level::Ok, "in place", "")
    } else {
        finding("rules", Level::Problem, "not there", advice)
    }
}

/// Dials a few cluster IPs that have endpoints.
async fn dial(tables: &Tables) -> Vec<Finding> {
    let served = tables.frontends.iter().filter(|(key, value)| {
        key.protocol == TCP
            && value.flags & frontend::KIND_MASK == frontend::CLUSTER_IP
            && matches!(tables.lookup(key, false), Lookup::Backends(_))
    });
    let mut findings = Vec::new();
    for (key, _) in served.take(SAMPLES) {
        let target: SocketAddr = socket_address(key.addr, key.port_be);
        let connect = tokio::net::TcpStream::connect(target);
        findings.push(match tokio::time::timeout(DIAL, connect).await {
            Ok(Ok(_)) => finding("dial", Level::Ok, format!("{target} answers"), ""),
            Ok(Err(error)) => finding(
                "dial",
                Level::Warning,
                format!("{target}: {error}"),
                "the endpoint does not listen, or this shell is outside of the node's cgroup",
            ),
            Err(_) => finding(
                "dial",
                Level::Warning,
                format!("{target}: no answer"),
                "an endpoint is gone or its node unreachable; see `skep net backends`",
            ),
        });
    }
    findings
}

/// Whether what is not translated could leave by the default route. `routes` is the kernel's table of IPv4 routes.
fn guards(routes: &str, tables: &Tables) -> Finding {
    let cluster_ips: Vec<u32> = tables
        .frontends
        .iter()
        .filter(|(_, value)| value.flags & frontend::KIND_MASK == frontend::CLUSTER_IP)
        .filter_map(|(key, _)| match IpAddr::from(key.addr) {
            IpAddr::V4(address) => Some(u32::from(address)),
            IpAddr::V6(_) => None,
        })
        .collect();
    // Interface, destination, gateway, flags, ..., mask at 7; numbers in the machine's order, bytes in the network's.
    let kept: Vec<(u32, u32)> = routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
            let dead_end = number(3)? & 0x200 != 0 || fields.first() == Some(&"lo");
            let (net, mask) = (u32::from_be(number(1)?), u32::from_be(number(7)?));
            (dead_end && mask != 0).then_some((net, mask))
        })
        .collect();
    let leaks = cluster_ips.iter().filter(|ip| !kept.iter().any(|(net, mask)| **ip & mask == *net)).count();
    if leaks == 0 {
        finding("leaks", Level::Ok, "untranslated service addresses end on this node", "")
    } else {
        finding(
            "leaks",
            Level::Warning,
            format!("{leaks} cluster IPs would leave by the default route"),
            "restart the agent; it sets the routes again",
        )
    }
}

/// Other programs that serve the same addresses.
async fn others(mode: Option<ProxyMode>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut conflict = |what: &str, advice| {
        found.push(finding("other proxies", Level::Problem, what, advice));
    };
    let text = |output: Result<std::process::Output>| {
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    if is_installed("nft") {
        let tables = text(attempt("nft", &["list", "tables"], "").await);
        if tables.lines().any(|line| line.ends_with(" kube-proxy")) {
            conflict("kube-proxy's nftables tables", "stop kube-proxy and run `kube-proxy --cleanup`");
        }
        if mode != Some(ProxyMode::Nftables) && tables.contains(crate::rules::TABLE) {
            conflict("tables of our own nftables mode", "restart the agent; it removes them");
        }
    }
    if is_installed("iptables-save") {
        let rules = text(attempt("iptables-save", &["-t", "nat"], "").await);
        if rules.contains(":KUBE-SERVICES") {
            conflict("kube-proxy's iptables chains", "stop kube-proxy and run `kube-proxy --cleanup`");
        }
        if mode != Some(ProxyMode::Iptables) && rules.contains(":SKEP-SERVICES") {
            conflict("chains of our own iptables mode", "restart the agent; it removes them");
        }
    }
    let virtual_servers = std::fs::read_to_string("/proc/net/ip_vs").unwrap_or_default();
    if virtual_servers.lines().any(|line| line.starts_with("TCP") || line.starts_with("UDP")) {
        conflict("IPVS services", "stop kube-proxy and run `ipvsadm --clear`");
    }
    let cilium = ["/sys/fs/bpf/cilium", "/sys/fs/bpf/tc/globals/cilium_lb4_services_v2"];
    if cilium.into_iter().any(|path| Path::new(path).exists()) {
        conflict("Cilium's pinned maps", "remove Cilium with its own clean-up, or reboot");
    }
    if found.is_empty() {
        found.push(finding("other proxies", Level::Ok, "none", ""));
    }
    found
}

#[cfg(test)]
mod tests {
    use skep_ebpf_abi::service::{Frontend, FrontendKey};

    use super::*;

    fn levels(findings: &[Finding]) -> Vec<Level> {
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_missing_program_is_a_problem() {
        let all = SOCKET_LINKS.into_iter().chain(["uplink-in-2"]);
        let all: Vec<LinkState> = all.map(|name| LinkState { name: name.to_owned(), program: 7 }).collect();
        assert_eq!(levels(&links(&all)), [Level::Ok, Level::Ok]);
        assert_eq!(levels(&links(&all[1..])), [Level::Problem, Level::Ok]);
        assert_eq!(levels(&links(&all[..9])), [Level::Ok, Level::Warning]);
    }

    #[test]
    fn a_map_that_is_nearly_full_is_told() {
        let map = |used| MapState { name: "flows".to_owned(), used: Some(used), limit: 100, bytes: 1 };
        assert_eq!(levels(&pressure(&[map(79)])), [Level::Ok]);
        assert_eq!(levels(&pressure(&[map(80)])), [Level::Warning]);
    }

    #[test]
    fn a_cluster_ip_without_a_dead_end_leaks() {
        let address: IpAddr = "10.96.0.10".parse().expect("an address");
        let key = FrontendKey::new(address.into(), 80, TCP);
        let value = Frontend { external_set: 1, internal_set: 1, flags: frontend::CLUSTER_IP };
        let tables = Tables { frontends: [(key, value)].into(), ..Tables::default() };
        let title = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        let route = |line: &str| guards(&format!("{title}{line}\n"), &tables).level;
        assert_eq!(route("eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0"), Level::Warning);
        assert_eq!(route("* 0000600A 00000000 0201 0 0 1024 0000FFFF 0 0 0"), Level::Ok);
        assert_eq!(route("lo 0000600A 00000000 0001 0 0 0 0000FFFF 0 0 0"), Level::Ok);
        assert_eq!(route("eth0 0000600A 00000000 0001 0 0 0 0000FFFF 0 0 0"), Level::Warning);
    }

    #[test]
    fn every_drop_has_an_explanation() {
        let all: Vec<(&'static str, u64)> = skep_ebpf_abi::counter::Counter::ALL
            .into_iter()
            .map(|(_, name)| (name, 1))
            .filter(|(name, _)| name.starts_with("drop_"))
            .collect();
        assert_eq!(drops(&all).len(), all.len());
        assert_eq!(drops(&[("drop_no_port", 0), ("packet_reply", 9)]), []);
    }
}
