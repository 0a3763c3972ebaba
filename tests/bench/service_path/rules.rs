//! Rules of the shape that kube-proxy gives them, in a node's namespace: for iptables a chain per service and
//! per endpoint, for nftables a verdict map and a chain per service.

use std::{fmt::Write as _, io::Write as _, net::SocketAddr, process::Stdio};

use anyhow::{Context, Result, ensure};
use skep_tests::NetBox;

const CLUSTER: &str = "10.244.0.0/16";
const MASQUERADE_MARK: &str = "0x4000";

/// A service and where it leads.
pub(crate) struct Service {
    pub(crate) vip: SocketAddr,
    pub(crate) backends: Vec<SocketAddr>,
}

/// A kind of rules.
pub(crate) struct Flavour {
    pub(crate) label: &'static str,
    pub(crate) row: &'static str,
    command: &'static [&'static str],
    text: fn(&[Service]) -> String,
}

/// The kinds that are measured.
pub(crate) const FLAVOURS: &[Flavour] = &[
    Flavour {
        label: "iptables",
        row: "pod to ClusterIP, iptables",
        command: &["iptables-nft-restore"],
        text: iptables,
    },
    Flavour {
        label: "iptables-legacy",
        row: "pod to ClusterIP, iptables (legacy)",
        command: &["iptables-legacy-restore"],
        text: iptables,
    },
    Flavour {
        label: "nftables",
        row: "pod to ClusterIP, nftables",
        command: &["nft", "-f", "-"],
        text: nftables,
    },
];

/// Loads the rules in a node's namespace.
pub(crate) fn load(flavour: &Flavour, node: &NetBox, services: &[Service]) -> Result<()> {
    let [program, arguments @ ..] = flavour.command else { return Ok(()) };
    let mut child = node
        .command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let mut input = child.stdin.take().context("no input")?;
    input.write_all((flavour.text)(services).as_bytes())?;
    drop(input);
    let status = child.wait()?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}

/// Writing to a string does not fail.
macro_rules! line {
    ($text:expr, $($words:tt)*) => { writeln!($text, $($words)*).expect("text") };
}

fn iptables(services: &[Service]) -> String {
    let mut text = String::new();
    line!(text, "*filter");
    for chain in
        ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL"]
    {
        line!(text, ":{chain} - [0:0]");
    }
    let new = "-m conntrack --ctstate NEW";
    for (hook, chain) in [
        ("INPUT", "KUBE-PROXY-FIREWALL"),
        ("INPUT", "KUBE-EXTERNAL-SERVICES"),
        ("FORWARD", "KUBE-PROXY-FIREWALL"),
        ("FORWARD", "KUBE-SERVICES"),
        ("FORWARD", "KUBE-EXTERNAL-SERVICES"),
        ("OUTPUT", "KUBE-PROXY-FIREWALL"),
        ("OUTPUT", "KUBE-SERVICES"),
    ] {
        line!(text, "-A {hook} {new} -j {chain}");
    }
    line!(text, "-A INPUT -j KUBE-NODEPORTS");
    line!(text, "-A FORWARD -j KUBE-FORWARD");
    line!(text, "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP");
    line!(text, "-A KUBE-FORWARD -m mark --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j ACCEPT");
    line!(text, "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    line!(text, "COMMIT\n*nat");
    for chain in ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"] {
        line!(text, ":{chain} - [0:0]");
    }
    for (number, service) in services.iter().enumerate() {
        line!(text, ":KUBE-SVC-{number:016} - [0:0]");
        for endpoint in 0..service.backends.len() {
            line!(text, ":KUBE-SEP-{number:012}-{endpoint:03} - [0:0]");
        }
    }
    line!(text, "-A PREROUTING -j KUBE-SERVICES");
    line!(text, "-A OUTPUT -j KUBE-SERVICES");
    line!(text, "-A POSTROUTING -j KUBE-POSTROUTING");
    line!(text, "-A KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE_MARK}");
    line!(text, "-A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j RETURN");
    line!(text, "-A KUBE-POSTROUTING -j MARK --xor-mark {MASQUERADE_MARK}");
    line!(text, "-A KUBE-POSTROUTING -j MASQUERADE --random-fully");
    // The measured service is the last, so that a walk along all is part of the figure.
    for (number, service) in services.iter().enumerate().rev() {
        let (ip, port) = (service.vip.ip(), service.vip.port());
        let dialled = format!("-d {ip}/32 -p tcp -m tcp --dport {port}");
        let comment = format!("-m comment --comment \"default/service-{number}:http\"");
        line!(text, "-A KUBE-SERVICES {dialled} {comment} -j KUBE-SVC-{number:016}");
        line!(text, "-A KUBE-SVC-{number:016} ! -s {CLUSTER} {dialled} {comment} -j KUBE-MARK-MASQ");
        let count = service.backends.len();
        for (endpoint, backend) in service.backends.iter().enumerate() {
            let chain = format!("KUBE-SEP-{number:012}-{endpoint:03}");
            let left = count - endpoint;
            #[allow(clippy::cast_precision_loss)]
            let chance = match left {
                1 => String::new(),
                left => format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64),
            };
            line!(text, "-A KUBE-SVC-{number:016} {comment} {chance}-j {chain}");
            line!(text, "-A {chain} -s {}/32 {comment} -j KUBE-MARK-MASQ", backend.ip());
            line!(text, "-A {chain} -p tcp {comment} -m tcp -j DNAT --to-destination {backend}");
        }
    }
    line!(text, "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS");
    line!(text, "COMMIT");
    text
}

fn nftables(services: &[Service]) -> String {
    let mut text = String::from("table ip kube-proxy {\n");
    line!(text, "chain mark-for-masquerade {{ meta mark set meta mark or {MASQUERADE_MARK}; }}");
    for (number, service) in services.iter().enumerate() {
        let (ip, port, count) = (service.vip.ip(), service.vip.port(), service.backends.len());
        for (endpoint, backend) in service.backends.iter().enumerate() {
            line!(
                text,
                "chain endpoint-{number}-{endpoint} {{ ip saddr {} jump mark-for-masquerade; meta l4proto tcp dnat to {backend}; }}",
                backend.ip()
            );
        }
        let choices: Vec<String> =
            (0..count).map(|endpoint| format!("{endpoint} : goto endpoint-{number}-{endpoint}")).collect();
        line!(
            text,
            "chain service-{number} {{ ip daddr {ip} tcp dport {port} ip saddr != {CLUSTER} jump mark-for-masquerade; numgen random mod {count} vmap {{ {} }}; }}",
            choices.join(", ")
        );
    }
    let elements: Vec<String> = services
        .iter()
        .enumerate()
        .map(|(number, service)| {
            format!("{} . tcp . {} : goto service-{number}", service.vip.ip(), service.vip.port())
        })
        .collect();
    line!(
        text,
        "map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {} }}; }}",
        elements.join(", ")
    );
    line!(text, "chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}");
    line!(
        text,
        "chain masquerading {{ meta mark & {MASQUERADE_MARK} == 0 return; meta mark set meta mark xor {MASQUERADE_MARK}; masquerade fully-random; }}"
    );
    for (hook, priority, work) in [
        ("prerouting", "dstnat", "jump services"),
        ("output", "-100", "jump services"),
        ("postrouting", "srcnat", "jump masquerading"),
    ] {
        line!(text, "chain nat-{hook} {{ type nat hook {hook} priority {priority}; {work}; }}");
    }
    line!(text, "chain filter-forward {{ type filter hook forward priority -110; ct state invalid drop; }}");
    text.push_str("}\n");
    text
}
