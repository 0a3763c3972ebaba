//! The etcd engine: the same trait on an etcd cluster.
//!
//! Tasks: one compactor, which forgets history past its age (several servers on one etcd do no harm:
//! the later one finds it done). The channel reconnects by itself and spreads over the endpoints; reads
//! are tried again with a growing pause, writes never, since a lost answer says nothing about the
//! outcome. A watch that breaks ends with an error and its caller begins again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Certificate, Client, CompactionOptions, ConnectOptions, GetOptions, Identity, KvClient, LeaseClient,
    TlsOptions, WatchClient,
};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use crate::{
    Error, LeaseId, Range, RangeResult, Result, Revision, Storage, TxnRequest, TxnResult, WatchStream,
};
use convert::Keys;

mod convert;
mod failure;
mod watch;

/// etcd's own default limit on a request.
const MAX_REQUEST: usize = 3 << 19;
/// A list of everything must fit into one answer.
const MAX_ANSWER: usize = 1 << 30;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const READ_ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How to reach etcd.
#[derive(Clone, Default)]
pub struct EtcdConfig {
    /// `http://` or `https://` URLs of its members.
    pub endpoints: Vec<String>,
    /// Comes before every key; empty is fine.
    pub prefix: String,
    /// The authority of the members' certificates, in PEM.
    pub ca: Option<String>,
    /// Our client certificate, in PEM.
    pub cert: Option<String>,
    /// Its key, in PEM.
    pub key: Option<String>,
    /// History older than this is forgotten; `None`: somebody else compacts.
    pub history_age: Option<Duration>,
}

/// A store in etcd.
pub struct Etcd {
    kv: KvClient,
    watches: WatchClient,
    leases: LeaseClient,
    keys: Keys,
    progress: broadcast::Sender<()>,
    /// This etcd may announce progress before the events it is about.
    hasty_progress: bool,
    compactor: Option<JoinHandle<()>>,
}

impl Etcd {
    /// Connects and makes sure that somebody answers.
    pub async fn connect(config: EtcdConfig) -> Result<Arc<Self>> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(3))
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if let Some(tls) = tls(&config)? {
            options = options.with_tls(tls);
        }
        let client = Client::connect(&config.endpoints, Some(options))
            .await
            .map_err(|e| Error::Unavailable(format!("can't connect to etcd: {e}")))?;
        let version = version(&client).await?;
        let hasty_progress = is_hasty(&version);
        if hasty_progress {
            tracing::warn!(version, "this etcd is old: progress of watches is waited for a little longer");
        }
        let kv = client.kv_client().max_decoding_message_size(MAX_ANSWER);
        let compactor = config.history_age.map(|age| tokio::spawn(compact_by_age(kv.clone(), age)));
        Ok(Arc::new(Self {
            kv,
            watches: client.watch_client().max_decoding_message_size(MAX_ANSWER),
            leases: client.lease_client(),
            keys: Keys::new(config.prefix),
            progress: broadcast::channel(16).0,
            hasty_progress,
            compactor,
        }))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(compactor) = &self.compactor {
            compactor.abort();
        }
    }
}

fn tls(config: &EtcdConfig) -> Result<Option<TlsOptions>> {
    if config.ca.is_none() && config.cert.is_none() {
        return Ok(None);
    }
    let mut tls = TlsOptions::new();
    if let Some(ca) = &config.ca {
        tls = tls.ca_certificate(Certificate::from_pem(ca));
    }
    match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(cert, key)),
        (None, None) => {}
        _ => return Err(Error::Invalid("etcd: a client certificate needs its key".into())),
    }
    Ok(Some(tls))
}

async fn version(client: &Client) -> Result<String> {
    let client = client.clone();
    retried("etcd answers its version", move || {
        let mut client = client.clone();
        async move {
            let status = client.status().await.map_err(|e| failure::of_read(&e, 0))?;
            Ok(status.version().to_owned())
        }
    })
    .await
}

/// Before 3.4.31 and 3.5.13 a progress answer could overtake events on their way.
fn is_hasty(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor, patch) =
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    match (major, minor) {
        (3, 4) => patch < 31,
        (3, 5) => patch < 13,
        (3, minor) => minor < 4,
        (major, _) => major < 3,
    }
}

/// Runs a read until it works, a fault is not passing, or patience ends.
async fn retried<T, F: Future<Output = Result<T>>>(what: &str, mut call: impl FnMut() -> F) -> Result<T> {
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let outcome = match tokio::time::timeout(CALL_TIMEOUT, call()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Unavailable(format!("{what}: no answer in {}s", CALL_TIMEOUT.as_secs()))),
        };
        match outcome {
            Err(Error::Unavailable(error)) if attempt < READ_ATTEMPTS => {
                tracing::debug!(error, what, "etcd is asked again");
                tokio::time::sleep(pause).await;
                pause *= 3;
            }
            outcome => return outcome,
        }
    }
    Err(Error::Unavailable(what.to_owned()))
}

async fn written<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Unknown(format!("etcd did not answer in {}s", CALL_TIMEOUT.as_secs()))),
    }
}

async fn compact_by_age(kv: KvClient, age: Duration) {
    let mut target = 0;
    loop {
        tokio::time::sleep(age).await;
        let outcome = async {
            let now = revision_now(&kv).await?;
            if target > 0 {
                match compact(&kv, target).await {
                    Ok(()) | Err(Error::Compacted { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(now)
        };
        match outcome.await {
            Ok(now) => target = now,
            Err(error) => tracing::warn!(%error, "etcd can't be compacted now"),
        }
    }
}

async fn revision_now(kv: &KvClient) -> Result<Revision> {
    let mut kv = kv.clone();
    // Any key does: the answer's header has the revision, and the read goes through the leader.
    let options = GetOptions::new().with_count_only();
    let answer = kv.get("/", Some(options)).await.map_err(|e| failure::of_read(&e, 0))?;
    convert::revision_of(answer.header())
}

async fn compact(kv: &KvClient, revision: Revision) -> Result<()> {
    let mut kv = kv.clone();
    let at = convert::to_etcd(revision)?;
    let options = CompactionOptions::new().with_physical();
    kv.compact(at, Some(options)).await.map_err(|e| failure::of_read(&e, revision))?;
    Ok(())
}

#[async_trait]
impl Storage for Etcd {
    async fn range(&self, range: Range) -> Result<RangeResult> {
        let (key, options) = self.keys.get(&range)?;
        let answer = retried("a range read", || {
            let (mut kv, key, options) = (self.kv.clone(), key.clone(), options.clone());
            async move { kv.get(key, Some(options)).await.map_err(|e| failure::of_read(&e, range.revision)) }
        })
        .await?;
        let revision = convert::revision_of(answer.header())?;
        self.keys.range_result(answer, revision)
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResult> {
        crate::embedded::check(&request, MAX_REQUEST)?;
        let (txn, limits) = self.keys.txn(&request)?;
        let mut kv = self.kv.clone();
        let answer = written(async { kv.txn(txn).await.map_err(|e| failure::of_write(&e, &limits)) }).await?;
        self.keys.txn_result(&answer)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let client = self.watches.clone();
        watch::open(client, self.keys.clone(), prefix, after, self.progress.subscribe(), self.hasty_progress)
            .await
    }

    async fn current_revision(&self) -> Result<Revision> {
        retried("the current revision", || revision_now(&self.kv)).await
    }

    async fn request_progress(&self) -> Result<()> {
        // Nobody listening is fine.
        drop(self.progress.send(()));
        Ok(())
    }

    fn exact_progress(&self) -> bool {
        !self.hasty_progress
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        written(compact(&self.kv, revision)).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).map_err(|e| Error::Invalid(e.to_string()))?;
        let mut leases = self.leases.clone();
        let grant = async {
            leases.grant(seconds, None).await.map_err(|e| failure::of_write(&e, &failure::Asked::default()))
        };
        Ok(written(grant).await?.id())
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<()> {
        retried("keeping a lease alive", || {
            let mut leases = self.leases.clone();
            async move { leases.keep_alive(lease).await.map(drop).map_err(|e| failure::of_lease(&e, lease)) }
        })
        .await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<()> {
        let mut leases = self.leases.clone();
        written(async { leases.revoke(lease).await.map(drop).map_err(|e| failure::of_lease(&e, lease)) })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::is_hasty;

    #[test]
    fn old_servers_are_known_by_their_version() {
        for (version, hasty) in [
            ("3.4.23", true),
            ("3.4.31", false),
            ("3.5.12", true),
            ("3.5.13", false),
            ("3.6.0", false),
            ("2.3.8", true),
        ] {
            assert_eq!(is_hasty(version), hasty, "{version}");
        }
    }
}
