//! A scenario once more, with IPv6 in place of IPv4: every address becomes its counterpart, and slices are of that
//! family. What has IPv6 addresses already speaks of both families and stays as it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use ipnet::IpNet;
use serde_json::{Value, json};
use skep_service_proxy::ProxyMode;

use crate::script::Scenario;

/// The scenario's twin, unless it has IPv6 addresses itself. Rules serve nothing at `::1`: such checks are left out.
pub(crate) fn twin(scenario: &Value, mode: ProxyMode) -> Result<Option<Scenario>> {
    let mut twin = scenario.clone();
    if has_v6(&twin) {
        return Ok(None);
    }
    translate(&mut twin);
    if mode.is_rules() {
        for checks in
            twin["steps"].as_array_mut().into_iter().flatten().filter_map(|step| step.get_mut("check"))
        {
            if let Value::Array(checks) = checks {
                checks.retain(|check| !check["to"].as_str().is_some_and(|to| to.contains("[::1]")));
            }
        }
    }
    Ok(Some(serde_json::from_value(twin)?))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ','])
}

fn has_v6(value: &Value) -> bool {
    match value {
        Value::String(text) => words(text).any(|word| word.matches(':').count() > 1),
        Value::Array(items) => items.iter().any(has_v6),
        Value::Object(fields) => fields.iter().any(|(key, value)| key != "about" && has_v6(value)),
        _ => false,
    }
}

fn translate(value: &mut Value) {
    match value {
        Value::String(text) => *text = words(text).map(counterpart).collect::<Vec<_>>().join(" "),
        Value::Array(items) => items.iter_mut().for_each(translate),
        Value::Object(fields) => {
            if fields.contains_key("slice") {
                fields.insert("v6".to_owned(), json!(true));
            }
            // The proxy's own servers are asked over IPv4.
            fields
                .iter_mut()
                .filter(|(key, _)| *key != "about" && *key != "get")
                .for_each(|(_, value)| translate(value));
        }
        _ => {}
    }
}

/// The counterpart of an address, with a port or a prefix length or neither; another word is its own.
fn counterpart(word: &str) -> String {
    if let Ok(IpAddr::V4(ip)) = word.parse() {
        return address(ip).to_string();
    }
    if let Ok(SocketAddr::V4(socket)) = word.parse() {
        return format!("[{}]:{}", address(*socket.ip()), socket.port());
    }
    if let Ok(IpNet::V4(net)) = word.parse() {
        let length = match net.prefix_len() {
            16 => 56,
            24 => 64,
            25.. => net.prefix_len() + 96,
            other => other,
        };
        return format!("{}/{length}", address(net.addr()));
    }
    word.to_owned()
}

/// The digits of the last number are taken over as they are read, so that both look alike.
fn address(ip: Ipv4Addr) -> Ipv6Addr {
    let digits = |number: u8| u16::from_str_radix(&number.to_string(), 16).unwrap_or_default();
    match ip.octets() {
        [10, 96, _, last] => Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, digits(last)),
        [10, 244, node, last] => Ipv6Addr::new(0xfd00, 0x10, 0x244, digits(node), 0, 0, 0, digits(last)),
        [203, 0, 113, last] => Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, digits(last)),
        [198, 51, 100, last] => Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, digits(last)),
        [127, ..] => Ipv6Addr::LOCALHOST,
        [0, 0, 0, 0] => Ipv6Addr::UNSPECIFIED,
        [.., last] => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, digits(last)),
    }
}

#[test]
fn addresses_have_counterparts_and_other_words_have_none() {
    for (from, to) in [
        ("10.96.0.47", "fd00:96::47"),
        ("192.0.2.1:30080", "[2001:db8::1]:30080"),
        ("198.51.100.0/24", "2001:db8:51::/64"),
        ("192.0.2.9/32", "2001:db8::9/128"),
        ("192.0.2.76/30", "2001:db8::76/126"),
        ("10.244.1.5", "fd00:10:244:1::5"),
        ("127.0.0.1:8000", "[::1]:8000"),
        ("tcp", "tcp"),
    ] {
        assert_eq!(counterpart(from), to);
    }
}
