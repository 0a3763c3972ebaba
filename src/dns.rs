//! Options about names: whom the node asks about those outside the cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use skep_dns::Name;

/// Whom a node asks.
#[derive(Args, Clone, Debug)]
pub(crate) struct DnsOptions {
    /// Name servers for names outside the cluster, in place of those of --resolv-conf.
    #[arg(long, env = "SKEP_DNS_UPSTREAM", value_delimiter = ',', value_name = "IP[:PORT]")]
    dns_upstream: Vec<NameServer>,
    /// A domain with name servers of its own; may be given several times.
    #[arg(long, value_name = "DOMAIN=IP[:PORT],...")]
    dns_stub_domain: Vec<StubDomain>,
    /// The node's own resolver settings: where names outside the cluster are asked, and what pods with
    /// dnsPolicy Default get.
    #[arg(long, env = "SKEP_RESOLV_CONF", default_value = "/etc/resolv.conf", value_name = "PATH")]
    pub(crate) resolv_conf: PathBuf,
}

impl DnsOptions {
    pub(crate) fn upstreams(&self) -> Vec<SocketAddr> {
        self.dns_upstream.iter().map(|server| server.0).collect()
    }

    pub(crate) fn stub_domains(&self) -> Vec<(Name, Vec<SocketAddr>)> {
        let stubs = self.dns_stub_domain.iter();
        stubs.map(|StubDomain(domain, servers)| (domain.clone(), servers.clone())).collect()
    }
}

/// A name server; on port 53 unless it says otherwise.
#[derive(Clone, Copy, Debug)]
struct NameServer(SocketAddr);

impl FromStr for NameServer {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|ip| Self(SocketAddr::new(ip, 53))).or_else(|_| text.parse().map(Self))
    }
}

/// A domain and who knows its names.
#[derive(Clone, Debug)]
struct StubDomain(Name, Vec<SocketAddr>);

impl FromStr for StubDomain {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (domain, servers) = text.split_once('=').context("it has no '='")?;
        let mut domain = Name::from_ascii(domain)?;
        domain.set_fqdn(true);
        let servers = servers.split(',').map(|server| Ok(server.parse::<NameServer>()?.0));
        Ok(Self(domain, servers.collect::<Result<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_and_their_domains_are_read() {
        for (text, want) in [
            ("192.0.2.1", Some("192.0.2.1:53")),
            ("192.0.2.1:5353", Some("192.0.2.1:5353")),
            ("2001:db8::1", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]:5353", Some("[2001:db8::1]:5353")),
            ("dns.example", None),
            ("", None),
        ] {
            let got = text.parse::<NameServer>().ok().map(|server| server.0.to_string());
            assert_eq!(got.as_deref(), want, "{text:?}");
        }
        let stub: StubDomain = "corp.example=192.0.2.1,192.0.2.2:5353".parse().expect("a stub domain");
        assert_eq!((stub.0.to_ascii().as_str(), stub.1.len()), ("corp.example.", 2));
        for bad in ["corp.example", "corp.example=", "corp.example=x", "a..b=192.0.2.1"] {
            assert!(bad.parse::<StubDomain>().is_err(), "{bad:?}");
        }
    }
}
