//! IP addresses.

use std::net::IpAddr;

use super::{Outcome, fail, mismatch};
use crate::eval::EvalError;
use crate::functions::{Body, Declare};
use crate::value::{Library, Value};

pub(super) fn declare(declare: Declare<'_>) {
    declare("string_to_ip", "ip(string) -> net.IP", |args| match args {
        [Value::String(text)] => Ok(Value::Library(Library::Ip(parse(text)?))),
        _ => mismatch(),
    });
    declare("ip_to_string", "string(net.IP) -> string", |args| match args {
        [Value::Library(Library::Ip(ip))] => Ok(ip.to_string().into()),
        _ => mismatch(),
    });
    declare("is_ip", "isIP(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(parse(text).is_ok())),
        _ => mismatch(),
    });
    declare("ip_is_canonical", "ip.isCanonical(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(parse(text)?.to_string() == **text)),
        _ => mismatch(),
    });
    declare("ip_family", "(net.IP).family() -> int", |args| match args {
        [Value::Library(Library::Ip(ip))] => Ok(Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
        _ => mismatch(),
    });
    let tests: [(&str, &str, Body); 5] = [
        ("ip_is_unspecified", "isUnspecified", |args| test(args, IpAddr::is_unspecified)),
        ("ip_is_loopback", "isLoopback", |args| test(args, IpAddr::is_loopback)),
        ("ip_is_link_local_multicast", "isLinkLocalMulticast", |args| test(args, link_local_multicast)),
        ("ip_is_link_local_unicast", "isLinkLocalUnicast", |args| test(args, link_local_unicast)),
        ("ip_is_global_unicast", "isGlobalUnicast", |args| test(args, global_unicast)),
    ];
    for (id, name, body) in tests {
        declare(id, &format!("(net.IP).{name}() -> bool"), body);
    }
}

/// An address; forms that mean the same address in two families are refused.
pub(super) fn parse(text: &str) -> Result<IpAddr, EvalError> {
    let shown: String = text.chars().take(64).collect();
    if text.contains('%') {
        return fail(format!("IP address {shown:?} with zone value is not allowed"));
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            fail(format!("IPv4-mapped IPv6 address {shown:?} is not allowed"))
        }
        Ok(ip) => Ok(ip),
        Err(_) => fail(format!(
            "IP Address {shown:?} parse error during conversion from string: ParseAddr({shown:?}): unable to parse IP"
        )),
    }
}

fn test<'a>(args: &[Value<'a>], test: fn(&IpAddr) -> bool) -> Outcome<'a> {
    match args {
        [Value::Library(Library::Ip(ip))] => Ok(Value::Bool(test(ip))),
        _ => mismatch(),
    }
}

fn link_local_multicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(ip.octets(), [224, 0, 0, _]),
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local_unicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// Any address of one host, private ones too.
fn global_unicast(ip: &IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local_unicast(ip))
}
