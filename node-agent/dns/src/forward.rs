//! Names that are not the cluster's: asked of the node's name servers, answers kept.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};
use hickory_server::{
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    resolver::{
        TokioResolver,
        config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    },
};
use tokio::{sync::Semaphore, time};

use crate::{Error, Result, resolv_conf};

/// Questions under way to name servers; further ones are refused rather than piled up.
const MAX_UNDER_WAY: usize = 1000;
const CACHED_ANSWERS: u64 = 10_000;
/// Nothing is kept longer than this, whatever its TTL.
const MAX_KEPT: Duration = Duration::from_secs(3600);
const MAX_NEGATIVE_KEPT: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the name servers said.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    /// The SOA of a negative answer.
    pub(crate) authority: Vec<Record>,
}

impl Reply {
    fn failed(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authority: Vec::new() }
    }
}

/// Asks name servers; whom, may change while it runs.
pub(crate) struct Forwarder {
    resolver: ArcSwapOption<TokioResolver>,
    under_way: Semaphore,
}

impl Forwarder {
    pub(crate) fn new() -> Self {
        Self { resolver: ArcSwapOption::empty(), under_way: Semaphore::new(MAX_UNDER_WAY) }
    }

    /// Uses these name servers (on port 53) from now on.
    pub(crate) fn use_servers(&self, servers: &[IpAddr]) -> Result<()> {
        let servers = servers.iter().map(|ip| NameServerConfig::udp_and_tcp(*ip)).collect();
        self.use_configs(servers)
    }

    /// Uses these name servers from now on.
    pub(crate) fn use_configs(&self, servers: Vec<NameServerConfig>) -> Result<()> {
        if servers.is_empty() {
            self.resolver.store(None);
            return Ok(());
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options())
            .build()
            .map_err(Error::Forward)?;
        self.resolver.store(Some(Arc::new(resolver)));
        Ok(())
    }

    pub(crate) async fn ask(&self, name: &Name, kind: RecordType) -> Reply {
        let Some(resolver) = self.resolver.load_full() else {
            return Reply::failed(ResponseCode::Refused);
        };
        let Ok(_permit) = self.under_way.try_acquire() else {
            tracing::warn!(%name, "too many questions under way to the name servers");
            return Reply::failed(ResponseCode::ServFail);
        };
        let mut qualified = name.clone();
        // No search list: the client has tried its own.
        qualified.set_fqdn(true);
        match resolver.lookup(qualified, kind).await {
            Ok(lookup) => Reply {
                code: ResponseCode::NoError,
                answers: lookup.answers().to_vec(),
                authority: Vec::new(),
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Reply {
                code: none.response_code,
                answers: Vec::new(),
                authority: none
                    .soa
                    .map(|soa| {
                        let ttl = none.negative_ttl.unwrap_or(soa.ttl);
                        Record::from_rdata(soa.name.clone(), ttl, RData::SOA(soa.data.clone()))
                    })
                    .into_iter()
                    .collect(),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Reply::failed(code),
            Err(error) => {
                tracing::debug!(%name, %error, "the name servers do not answer");
                Reply::failed(ResponseCode::ServFail)
            }
        }
    }

    /// Follows resolv.conf for as long as it is polled.
    pub(crate) async fn follow(&self, path: &Path, own: &[IpAddr]) {
        let mut current: Option<Vec<IpAddr>> = None;
        loop {
            match tokio::fs::read_to_string(path).await {
                Ok(text) => {
                    let servers = resolv_conf::name_servers(&text, own);
                    if current.as_ref() != Some(&servers) {
                        tracing::info!(?servers, "name servers for names outside the cluster");
                        if let Err(error) = self.use_servers(&servers) {
                            tracing::warn!(error = &error as &dyn std::error::Error, "keeping the old ones");
                        }
                        current = Some(servers);
                    }
                }
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "no resolver settings");
                }
            }
            time::sleep(LOOK_AGAIN).await;
        }
    }
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.ndots = 0;
    options.timeout = TIMEOUT;
    options.attempts = 2;
    options.edns0 = true;
    options.cache_size = CACHED_ANSWERS;
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(MAX_KEPT);
    options.negative_max_ttl = Some(MAX_NEGATIVE_KEPT);
    // The chain of aliases is part of the answer.
    options.preserve_intermediates = true;
    options.try_tcp_on_error = true;
    options
}
