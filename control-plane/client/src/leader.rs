//! Leader election by a Lease: one holder at a time, taken over when it stops renewing.
//!
//! Time is judged by when *we* saw the lease change, never by the clocks written in it.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::client::Client;
use crate::error::Result;

/// Which lease, who we are, and how fast.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Our identity, unique among candidates.
    pub identity: String,
    /// Others may take over when we have not renewed for this long.
    pub lease_duration: Duration,
    /// We stop leading when we could not renew for this long; shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// How often we try.
    pub retry_period: Duration,
}

impl LeaderConfig {
    /// The usual times: 15 s, 10 s, 2 s.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Waits to become the leader, runs `lead` with a token that is cancelled when leadership is lost,
/// and gives the lease back. Returns what `lead` returned, or `None` when cancelled before.
pub async fn run<F, Fut>(
    client: &Client,
    config: &LeaderConfig,
    cancel: &CancellationToken,
    lead: F,
) -> Option<Fut::Output>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future,
{
    let mut candidate =
        Candidate { api: client.namespaced(&config.namespace), config: config.clone(), seen: None };
    loop {
        match candidate.try_hold().await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => tracing::debug!(lease = config.name, %error, "cannot take the lease"),
        }
        cancel.run_until_cancelled(tokio::time::sleep(config.retry_period)).await?;
    }
    tracing::info!(lease = config.name, identity = config.identity, "leading");
    let leading = cancel.child_token();
    let renew = async {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(config.retry_period).await;
            match candidate.try_hold().await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => break,
                Err(error) => tracing::debug!(lease = config.name, %error, "cannot renew the lease"),
            }
            if renewed.elapsed() >= config.renew_deadline {
                break;
            }
        }
        tracing::warn!(lease = config.name, "lost the lease");
        leading.cancel();
        std::future::pending::<()>().await;
    };
    let output = tokio::select! {
        output = lead(leading.clone()) => output,
        () = renew => unreachable!("renewing waits for the work to end"),
    };
    if let Err(error) = candidate.release().await {
        tracing::debug!(lease = config.name, %error, "cannot give the lease back");
    }
    Some(output)
}

struct Candidate {
    api: Api<Lease>,
    config: LeaderConfig,
    /// The resource version last seen, and when it was first seen.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    /// Takes or renews the lease; `false` when another holds it.
    async fn try_hold(&mut self) -> Result<bool> {
        let now = MicroTime(Timestamp::now());
        let seconds = i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX);
        let Some(mut lease) = self.api.get_opt(&self.config.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.config.name.clone()),
                    namespace: Some(self.config.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(self.config.identity.clone()),
                    lease_duration_seconds: Some(seconds),
                    acquire_time: Some(now.clone()),
                    renew_time: Some(now),
                    lease_transitions: Some(0),
                    ..LeaseSpec::default()
                }),
            };
            return match self.api.create(&lease).await {
                Ok(_) => Ok(true),
                Err(e) if e.is_already_exists() => Ok(false),
                Err(e) => Err(e),
            };
        };
        let revision = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == revision => *since,
            _ => Instant::now(),
        };
        self.seen = Some((revision, since));
        let spec = lease.spec.get_or_insert_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.config.identity {
            let theirs = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
            if !holder.is_empty() && since.elapsed() < Duration::from_secs(theirs) {
                return Ok(false);
            }
            spec.holder_identity = Some(self.config.identity.clone());
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        }
        spec.lease_duration_seconds = Some(seconds);
        spec.renew_time = Some(now);
        match self.api.replace(&self.config.name, &lease).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_conflict() => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn release(&self) -> Result<()> {
        let mut lease = self.api.get(&self.config.name).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.config.identity.as_str()) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        self.api.replace(&self.config.name, &lease).await.map(drop)
    }
}
