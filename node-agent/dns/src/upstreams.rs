//! Which name servers there are: those that the options name, or those of the node's resolv.conf, which is watched.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use hickory_proto::rr::Name;
use tokio::{sync::watch, time};

use crate::{forward::Upstreams, resolv_conf};

/// Where name servers listen.
const PORT: u16 = 53;
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Where the name servers are found.
#[derive(Clone, Debug, Default)]
pub struct UpstreamConfig {
    /// These, and no others; empty: those of resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// The node's own resolver settings, watched for changes. `None`: only the cluster is answered.
    pub resolv_conf: Option<PathBuf>,
    /// Domains with name servers of their own.
    pub stub_domains: Vec<(Name, Vec<SocketAddr>)>,
    /// The addresses that lead to this answerer: never asked. Those with a port only on that port.
    pub own: Vec<SocketAddr>,
    /// Addresses that lead to this answerer on whatever port (the ClusterIP of kube-dns).
    pub own_addresses: Vec<IpAddr>,
}

impl UpstreamConfig {
    fn is_own(&self, address: SocketAddr) -> bool {
        self.own_addresses.contains(&address.ip()) || self.own.contains(&address)
    }

    fn others(&self, servers: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        servers.into_iter().filter(|address| !self.is_own(*address)).collect()
    }

    /// The servers, given the text of resolv.conf.
    fn servers(&self, text: &str) -> Upstreams {
        let servers = if self.servers.is_empty() {
            let found = resolv_conf::name_servers(text, |ip| self.is_own(SocketAddr::new(ip, PORT)));
            found.into_iter().map(|ip| SocketAddr::new(ip, PORT)).collect()
        } else {
            self.others(self.servers.iter().copied())
        };
        let stub_domains = self
            .stub_domains
            .iter()
            .map(|(domain, servers)| (domain.clone(), self.others(servers.iter().copied())))
            .collect();
        Upstreams { servers, stub_domains }
    }

    /// The file to watch.
    fn watched(&self) -> Option<&Path> {
        self.resolv_conf.as_deref().filter(|_| self.servers.is_empty())
    }

    /// The servers as of now; a file that cannot be read names none.
    pub(crate) fn now(&self) -> Upstreams {
        let text = self.watched().and_then(|path| std::fs::read_to_string(path).ok());
        self.servers(&text.unwrap_or_default())
    }
}

/// Follows resolv.conf for as long as it is polled. While it cannot be read, the servers stay.
pub(crate) async fn follow(config: &UpstreamConfig, upstreams: &watch::Sender<Upstreams>) {
    tell(&upstreams.borrow());
    let Some(path) = config.watched() else { return std::future::pending().await };
    loop {
        time::sleep(LOOK_AGAIN).await;
        match tokio::fs::read_to_string(path).await {
            Ok(text) => {
                let newest = config.servers(&text);
                let changed = upstreams.send_if_modified(|current| {
                    let changed = *current != newest;
                    *current = newest;
                    changed
                });
                if changed {
                    tell(&upstreams.borrow());
                }
            }
            Err(error) => tracing::debug!(path = %path.display(), %error, "no resolver settings"),
        }
    }
}

fn tell(upstreams: &Upstreams) {
    tracing::info!(servers = ?upstreams.servers, "name servers for names outside the cluster");
    for (domain, servers) in &upstreams.stub_domains {
        tracing::info!(%domain, ?servers, "name servers for this domain");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn options_come_before_the_file_and_nobody_asks_himself() {
        let domain = Name::from_ascii("corp.example.").expect("a name");
        let mut config = UpstreamConfig {
            stub_domains: vec![(domain.clone(), vec![at("192.0.2.9:53"), at("192.0.2.1:10053")])],
            own: vec![at("192.0.2.1:10053")],
            own_addresses: vec!["10.96.0.10".parse().expect("an address")],
            ..UpstreamConfig::default()
        };
        let text = "nameserver 10.96.0.10\nnameserver 192.0.2.1\n";
        // Another server on this machine is not this one.
        let want = Upstreams {
            servers: vec![at("192.0.2.1:53")],
            stub_domains: vec![(domain, vec![at("192.0.2.9:53")])],
        };
        assert_eq!(config.servers(text), want);
        config.servers = vec![at("192.0.2.1:10053"), at("198.51.100.1:5353")];
        assert_eq!(config.servers(text).servers, [at("198.51.100.1:5353")]);
    }
}
