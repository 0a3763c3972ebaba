//! IP addresses and ranges in objects: what is one, and what to warn of.
//!
//! Fields of old are read with leading zeros and as IPv4 within IPv6, as clients of old wrote them, and then refused
//! in these forms: other programs read them otherwise (upstream's `StrictIPCIDRValidation`, KEP-4858).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_api::field::{Error, ErrorList};

use super::check::At;

const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const ZEROS: &str = "must not have leading 0s";
const MAPPED: &str = "must not be an IPv4-mapped IPv6 address";
const RANGE_ZEROS: &str = "must not have leading 0s in IP or prefix length";
const RANGE_MAPPED: &str = "must not have an IPv4-mapped IPv6 address";
const HOST_BITS: &str = "must not have bits set beyond the prefix length";
/// Forms that were allowed once, and still are where they are.
const FORMS: [&str; 5] = [ZEROS, MAPPED, RANGE_ZEROS, RANGE_MAPPED, HOST_BITS];
const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address, leading zeros allowed.
fn sloppy(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() != 4 {
        return None;
    }
    let mut bytes = [0; 4];
    for (byte, part) in bytes.iter_mut().zip(parts) {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let number = part.trim_start_matches('0');
        *byte = match (digits, number) {
            (false, _) => return None,
            (true, "") => 0,
            (true, number) => number.parse().ok()?,
        };
    }
    Some(IpAddr::V4(Ipv4Addr::from(bytes)))
}

/// As upstream writes it: IPv4 within IPv6 as IPv4.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn bad(at: &At<'_>, detail: impl Into<String>) {
    at.error(Error::invalid(at.path(), at.text(), detail));
}

/// An address in a field of old. Says which, when it is well-formed.
pub fn ip(at: &At<'_>) -> Option<IpAddr> {
    let Some(address) = sloppy(at.text()) else {
        bad(at, NO_ADDRESS);
        return None;
    };
    if at.text().parse::<IpAddr>().is_err() {
        bad(at, ZEROS);
        return None;
    }
    if mapped(address) {
        bad(at, MAPPED);
        return None;
    }
    Some(address)
}

/// An address in a field of today: in its shortest form.
pub fn strict_ip(at: &At<'_>) -> Option<IpAddr> {
    let address = ip(at)?;
    if address.to_string() != at.text() {
        bad(at, format!("must be in canonical form (\"{address}\")"));
        return None;
    }
    Some(address)
}

/// An address that a backend can have.
pub fn endpoint(at: &At<'_>) {
    let Some(address) = sloppy(at.text()).map(canonical) else {
        bad(at, "must be a valid IP address");
        return;
    };
    if address.is_unspecified() {
        bad(at, format!("may not be unspecified ({})", at.text()));
    }
    if address.is_loopback() {
        bad(at, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if link_local {
        bad(at, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    let group = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    if group {
        bad(at, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// Address and length of a range, leading zeros allowed.
fn sloppy_range(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = sloppy(address)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
    let bits = bits.parse::<u8>().ok().filter(|bits| digits && *bits <= most)?;
    Some((address, bits))
}

/// A range in a field of old. Says which, when it is well-formed.
pub fn cidr(at: &At<'_>) -> Option<ipnet::IpNet> {
    let Some((address, bits)) = sloppy_range(at.text()) else {
        bad(at, NO_RANGE);
        return None;
    };
    let (text, length) = at.text().split_once('/').unwrap_or_default();
    if text.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0')) {
        bad(at, RANGE_ZEROS);
        return None;
    }
    if mapped(address) {
        bad(at, RANGE_MAPPED);
        return None;
    }
    let net = ipnet::IpNet::new(address, bits).ok()?;
    if net.trunc() != net {
        bad(at, HOST_BITS);
        return None;
    }
    Some(net)
}

/// What is wrong with a change, less what was wrong before with the form of its addresses.
#[must_use]
pub fn ratchet(errors: &ErrorList, before: &ErrorList) -> ErrorList {
    let known: Vec<&Error> = before.iter().filter(|error| FORMS.contains(&error.detail.as_str())).collect();
    let new =
        |error: &&Error| !known.iter().any(|old| old.value == error.value && old.detail == error.detail);
    errors.iter().filter(new).cloned().collect::<Vec<_>>().into()
}

/// What to say of an address that others may read otherwise.
pub fn ip_warnings(told: &mut Vec<String>, at: &str, text: &str) {
    let Some(address) = sloppy(text) else { return };
    if text.parse::<IpAddr>().is_err() || mapped(address) {
        let better = canonical(address);
        told.push(format!("{at}: non-standard IP address {text:?} is invalid: use \"{better}\""));
    } else if address.is_ipv6() && address.to_string() != text {
        told.push(format!(
            "{at}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{address}\")"
        ));
    }
}

/// What to say of a range that others may read otherwise.
pub fn cidr_warnings(told: &mut Vec<String>, at: &str, text: &str) {
    let Some((address, bits)) = sloppy_range(text) else { return };
    let plain = canonical(address);
    // A range of IPv4 within IPv6 counts its bits from the front of the IPv6 address.
    let length = if plain.is_ipv4() && address.is_ipv6() { bits.saturating_sub(96) } else { bits };
    let Ok(net) = ipnet::IpNet::new(plain, length) else { return };
    let before = told.len();
    if net.trunc() != net {
        let most = net.max_prefix_len();
        told.push(format!(
            "{at}: CIDR value {text:?} is ambiguous in this context (should be \"{}\" or \"{plain}/{most}\"?)",
            net.trunc()
        ));
    }
    let (front, digits) = text.split_once('/').unwrap_or_default();
    let zeros = digits.len() > 1 && digits.starts_with('0');
    if front.parse::<IpAddr>().is_err() || zeros || mapped(address) {
        told.push(format!("{at}: non-standard CIDR value {text:?} is invalid: use \"{}\"", net.trunc()));
    }
    if told.len() == before && address.is_ipv6() && net.to_string() != text {
        told.push(format!(
            "{at}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format (\"{net}\")"
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::check::check;

    #[test]
    fn addresses_of_old_and_of_today() {
        let cases = [
            ("10.0.0.1", None, None),
            ("010.0.0.1", Some("must not have leading 0s"), Some("must not have leading 0s")),
            (
                "::ffff:1.2.3.4",
                Some("must not be an IPv4-mapped IPv6 address"),
                Some("must not be an IPv4-mapped IPv6 address"),
            ),
            ("FD00::1", None, Some("must be in canonical form (\"fd00::1\")")),
            ("1.2.3", Some(NO_ADDRESS), Some(NO_ADDRESS)),
            ("", Some(NO_ADDRESS), Some(NO_ADDRESS)),
        ];
        for (text, old, today) in cases {
            let object = json!({"a": text});
            let line = |detail: &str| format!("a: Invalid value: {text:?}: {detail}");
            let told = check(&object, |root| {
                ip(&root.child("a"));
            });
            assert_eq!(told.lines(), old.map(line).into_iter().collect::<Vec<_>>(), "{text}");
            let told = check(&object, |root| {
                strict_ip(&root.child("a"));
            });
            assert_eq!(told.lines(), today.map(line).into_iter().collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn ranges() {
        for (text, detail) in [
            ("10.0.0.0/8", None),
            ("10.0.0.1/8", Some(HOST_BITS)),
            ("10.0.0.0/08", Some("must not have leading 0s in IP or prefix length")),
            ("::ffff:1.2.3.4/120", Some("must not have an IPv4-mapped IPv6 address")),
            ("10.0.0.0", Some(NO_RANGE)),
            ("10.0.0.0/33", Some(NO_RANGE)),
        ] {
            let object = json!({"a": text});
            let told = check(&object, |root| {
                cidr(&root.child("a"));
            });
            let want: Vec<String> =
                detail.map(|detail| format!("a: Invalid value: {text:?}: {detail}")).into_iter().collect();
            assert_eq!(told.lines(), want, "{text}");
        }
    }

    #[test]
    fn backends_are_reachable() {
        for (text, range) in [
            ("0.0.0.0", "unspecified"),
            ("127.0.0.1", "loopback"),
            ("169.254.1.1", "link-local range"),
            ("fe80::1", "link-local range"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
        ] {
            let object = json!({"a": text});
            let told = check(&object, |root| endpoint(&root.child("a"))).lines();
            assert!(told.len() == 1 && told[0].contains(range), "{text}: {told:?}");
        }
        assert!(check(&json!({"a": "10.0.0.1"}), |root| endpoint(&root.child("a"))).is_empty());
    }

    #[test]
    fn warnings() {
        let mut told = Vec::new();
        for text in ["10.0.0.1", "fd00::1", "none", "010.0.0.1", "::ffff:1.2.3.4", "FD00::1"] {
            ip_warnings(&mut told, "a", text);
        }
        for text in ["10.0.0.0/8", "10.0.0.1/8", "010.0.0.0/8", "fd00:0::/16"] {
            cidr_warnings(&mut told, "c", text);
        }
        assert_eq!(
            told,
            [
                "a: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"",
                "a: non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\"",
                "a: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
                "c: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
                "c: non-standard CIDR value \"010.0.0.0/8\" is invalid: use \"10.0.0.0/8\"",
                "c: IPv6 CIDR value \"fd00:0::/16\" should be in RFC 5952 canonical format (\"fd00::/16\")",
            ]
        );
    }
}
