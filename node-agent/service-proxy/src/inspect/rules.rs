//! What `skep net services` and `skep net backends` show when rules translate: read back from the rules themselves.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{Format, print};
use crate::error::Result;
use crate::mode::{ProxyMode, iptables_variant};
use crate::rules::apply::{attempt, tool};
use crate::rules::{Family, TABLE};

/// An address and where it leads.
#[derive(Serialize, Clone, PartialEq, Eq, Debug, PartialOrd, Ord)]
struct Row {
    /// `address:port`, or `*:port` for a node port.
    address: String,
    protocol: String,
    /// The service's port: `namespace/name/protocol/port`, or what becomes of the packet.
    target: String,
    backends: Vec<String>,
}

/// The addresses that rules translate.
///
/// # Errors
/// When the tool refuses.
pub async fn services(mode: ProxyMode, format: Format) -> Result<String> {
    let rows = rows(mode).await?;
    print(&rows, format, &["FRONTEND", "PROTOCOL", "SERVICE", "BACKENDS"], |row| {
        vec![row.address.clone(), row.protocol.clone(), row.target.clone(), row.backends.len().to_string()]
    })
}

#[derive(Serialize)]
struct BackendRow {
    address: String,
    frontends: Vec<String>,
}

/// The endpoints that rules lead to.
///
/// # Errors
/// When the tool refuses.
pub async fn backends(mode: ProxyMode, format: Format) -> Result<String> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows(mode).await? {
        for backend in row.backends {
            found.entry(backend).or_default().push(row.address.clone());
        }
    }
    let rows: Vec<BackendRow> =
        found.into_iter().map(|(address, frontends)| BackendRow { address, frontends }).collect();
    print(&rows, format, &["BACKEND", "FRONTENDS"], |row| vec![row.address.clone(), row.frontends.join(",")])
}

async fn rows(mode: ProxyMode) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for family in Family::ALL {
        if mode == ProxyMode::Nftables {
            let output = attempt("nft", &["-j", "list", "table", family.nft(), TABLE], "").await?;
            if output.status.success() {
                rows.extend(nftables(&serde_json::from_slice(&output.stdout)?));
            }
        } else if let Some(variant) = iptables_variant().await {
            let program = match family {
                Family::V4 => format!("{variant}-save"),
                Family::V6 => format!("{}-save", variant.replacen("iptables", "ip6tables", 1)),
            };
            rows.extend(iptables(&tool(&program, &["-t", "nat"], "").await?));
        }
    }
    rows.sort();
    Ok(rows)
}

/// The part of a chain's name after kind and digest.
fn unit(chain: &str) -> &str {
    chain.splitn(3, '-').nth(2).unwrap_or(chain)
}

fn nftables(table: &Value) -> Vec<Row> {
    let items: Vec<&Value> = table["nftables"].as_array().into_iter().flatten().collect();
    let mut backends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in items.iter().filter_map(|item| item.get("rule")) {
        let chain = rule["chain"].as_str().unwrap_or_default();
        let Some((owner, _)) = chain.strip_prefix("endpoint-").and_then(|_| unit(chain).rsplit_once("__"))
        else {
            continue;
        };
        for dnat in rule["expr"].as_array().into_iter().flatten().filter_map(|expr| expr.get("dnat")) {
            let address = dnat["addr"].as_str().unwrap_or_default();
            let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            backends.entry(owner.to_owned()).or_default().push(format!("{address}:{}", dnat["port"]));
        }
    }
    let mut rows = Vec::new();
    for map in items.iter().filter_map(|item| item.get("map")) {
        let name = map["name"].as_str().unwrap_or_default();
        if !matches!(
            name,
            "service-ips" | "service-nodeports" | "no-endpoint-services" | "no-endpoint-nodeports"
        ) {
            continue;
        }
        for pair in map["elem"].as_array().into_iter().flatten() {
            let (key, verdict) = (&pair[0]["concat"], &pair[1]);
            let words: Vec<String> = key
                .as_array()
                .into_iter()
                .flatten()
                .map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned))
                .collect();
            let [address @ .., protocol, port] = words.as_slice() else { continue };
            let address = match address.first() {
                Some(v6) if v6.contains(':') => format!("[{v6}]:{port}"),
                Some(v4) => format!("{v4}:{port}"),
                None => format!("*:{port}"),
            };
            let target = match verdict["goto"]["target"].as_str() {
                Some("reject-chain") => "rejected".to_owned(),
                Some(chain) => unit(chain).to_owned(),
                None => "dropped".to_owned(),
            };
            let backends = backends.get(&target).cloned().unwrap_or_default();
            rows.push(Row { address, protocol: protocol.to_uppercase(), target, backends });
        }
    }
    rows
}

/// The word after `option` in a rule.
fn after<'a>(rule: &'a str, option: &str) -> Option<&'a str> {
    let (_, rest) = rule.split_once(option)?;
    rest.trim_start().split(' ').next().map(|word| word.trim_matches('"'))
}

fn iptables(saved: &str) -> Vec<Row> {
    let rules: Vec<&str> = saved.lines().filter(|line| line.starts_with("-A SKEP-")).collect();
    let mut backends: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| rule.starts_with("-A SKEP-SEP-")) {
        if let (Some(unit), Some(target)) = (after(rule, "--comment"), after(rule, "--to-destination")) {
            backends.entry(unit).or_default().push(target.to_owned());
        }
    }
    let shared =
        |rule: &&&str| rule.starts_with("-A SKEP-SERVICES ") || rule.starts_with("-A SKEP-NODEPORTS ");
    rules
        .iter()
        .filter(shared)
        .filter_map(|rule| {
            let (port, protocol) = (after(rule, "--dport")?, after(rule, " -p ")?);
            let target = after(rule, "--comment")?.to_owned();
            let address = after(rule, " -d ").map_or("*", |net| net.split('/').next().unwrap_or(net));
            let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            let backends = backends.get(target.as_str()).cloned().unwrap_or_default();
            Some(Row {
                address: format!("{address}:{port}"),
                protocol: protocol.to_uppercase(),
                target,
                backends,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nft_tables_are_read_back() {
        let chain = "endpoint-AAAAAAAA-ns/web/tcp/http__10.244.0.5/8080";
        let table = json!({"nftables": [
            {"rule": {"chain": chain, "expr": [{"dnat": {"addr": "10.244.0.5", "port": 8080}}]}},
            {"map": {"name": "service-ips", "elem": [
                [{"concat": ["10.96.0.2", "tcp", 80]}, {"goto": {"target": "service-BBBBBBBB-ns/web/tcp/http"}}]]}},
            {"map": {"name": "no-endpoint-nodeports", "elem": [
                [{"concat": ["udp", 30053]}, {"goto": {"target": "reject-chain"}}]]}},
        ]});
        let rows = nftables(&table);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].address.as_str(), rows[0].target.as_str()), ("10.96.0.2:80", "ns/web/tcp/http"));
        assert_eq!(rows[0].backends, ["10.244.0.5:8080"]);
        assert_eq!((rows[1].address.as_str(), rows[1].target.as_str()), ("*:30053", "rejected"));
    }

    #[test]
    fn iptables_chains_are_read_back() {
        let saved = "*nat\n:SKEP-SERVICES - [0:0]\n\
            -A SKEP-SEP-X -p tcp -m comment --comment \"ns/web/tcp/http\" -m tcp -j DNAT --to-destination 10.244.0.5:8080\n\
            -A SKEP-SERVICES -d 10.96.0.2/32 -p tcp -m comment --comment \"ns/web/tcp/http\" -m tcp --dport 80 -j SKEP-SVC-Y\n\
            -A SKEP-SERVICES -d 192.0.2.1/32 -j SKEP-NODEPORTS\n\
            -A SKEP-NODEPORTS -p tcp -m comment --comment \"ns/web/tcp/http\" -m tcp --dport 30080 -j SKEP-EXT-Y\n";
        let rows = iptables(saved);
        let addresses: Vec<&str> = rows.iter().map(|row| row.address.as_str()).collect();
        assert_eq!(addresses, ["10.96.0.2:80", "*:30080"]);
        assert!(rows.iter().all(|row| row.backends == ["10.244.0.5:8080"] && row.protocol == "TCP"));
    }
}
