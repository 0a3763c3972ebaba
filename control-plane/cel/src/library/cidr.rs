//! Networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Outcome, address, fail, mismatch};
use crate::eval::EvalError;
use crate::functions::Declare;
use crate::value::{Library, Value};

/// A network as written: the address may have bits beyond the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub(crate) address: IpAddr,
    prefix: u8,
}

impl Cidr {
    pub(crate) fn parse(text: &str) -> Result<Self, EvalError> {
        const AGAIN: &str = "network address parse error during conversion from string";
        let shown: String = text.chars().take(64).collect();
        let digits = text.rsplit_once('/').map_or("", |(_, digits)| digits);
        // `/08` and `/+8` are no prefixes.
        let canonical =
            digits == "0" || (!digits.starts_with('0') && digits.chars().all(|c| c.is_ascii_digit()));
        match text.parse::<IpNet>() {
            Ok(net) if canonical => match net.addr() {
                IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
                    fail(format!("{AGAIN}: IPv4-mapped IPv6 address {shown:?} is not allowed"))
                }
                address => Ok(Self { address, prefix: net.prefix_len() }),
            },
            _ => fail(format!("{AGAIN}: {AGAIN}: netip.ParsePrefix({shown:?}): unable to parse")),
        }
    }

    fn net(&self) -> Option<IpNet> {
        IpNet::new(self.address, self.prefix).ok().map(|net| net.trunc())
    }

    fn holds(&self, ip: &IpAddr) -> bool {
        self.net().is_some_and(|net| net.contains(ip))
    }
}

pub(super) fn declare(declare: Declare<'_>) {
    declare("string_to_cidr", "cidr(string) -> net.CIDR", |args| match args {
        [Value::String(text)] => Ok(Value::Library(Library::Cidr(Cidr::parse(text)?))),
        _ => mismatch(),
    });
    declare("cidr_to_string", "string(net.CIDR) -> string", |args| match args {
        [Value::Library(Library::Cidr(cidr))] => Ok(format!("{}/{}", cidr.address, cidr.prefix).into()),
        _ => mismatch(),
    });
    declare("is_cidr", "isCIDR(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(Cidr::parse(text).is_ok())),
        _ => mismatch(),
    });
    declare("cidr_contains_ip_string", "(net.CIDR).containsIP(string) -> bool", contains_ip);
    declare("cidr_contains_ip_ip", "(net.CIDR).containsIP(net.IP) -> bool", contains_ip);
    declare("cidr_contains_cidr_string", "(net.CIDR).containsCIDR(string) -> bool", contains_cidr);
    declare("cidr_contains_cidr", "(net.CIDR).containsCIDR(net.CIDR) -> bool", contains_cidr);
    declare("cidr_ip", "(net.CIDR).ip() -> net.IP", |args| match args {
        [Value::Library(Library::Cidr(cidr))] => Ok(Value::Library(Library::Ip(cidr.address))),
        _ => mismatch(),
    });
    declare("cidr_prefix_length", "(net.CIDR).prefixLength() -> int", |args| match args {
        [Value::Library(Library::Cidr(cidr))] => Ok(Value::Int(i64::from(cidr.prefix))),
        _ => mismatch(),
    });
    declare("cidr_masked", "(net.CIDR).masked() -> net.CIDR", |args| match args {
        [Value::Library(Library::Cidr(cidr))] => {
            let address = cidr.net().map_or(cidr.address, |net| net.network());
            Ok(Value::Library(Library::Cidr(Cidr { address, ..*cidr })))
        }
        _ => mismatch(),
    });
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let ip = match args {
        [_, Value::String(text)] => address::parse(text)?,
        [_, Value::Library(Library::Ip(ip))] => *ip,
        _ => return mismatch(),
    };
    match args {
        [Value::Library(Library::Cidr(cidr)), _] => Ok(Value::Bool(cidr.holds(&ip))),
        _ => mismatch(),
    }
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let inner = match args {
        [_, Value::String(text)] => Cidr::parse(text)?,
        [_, Value::Library(Library::Cidr(inner))] => *inner,
        _ => return mismatch(),
    };
    match args {
        [Value::Library(Library::Cidr(outer)), _] => {
            Ok(Value::Bool(outer.prefix <= inner.prefix && outer.holds(&inner.address)))
        }
        _ => mismatch(),
    }
}
