//! The endpoints of the `kubernetes` service: every API server that is there. Each keeps a key in the
//! store that lives by a lease; each writes the endpoints of all whose key is there. One that dies
//! disappears when its lease ends, one that stops takes itself out. One at a loopback address is not
//! listed: nobody in the cluster reaches it there, and endpoints may not have such addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_api::user::UserInfo;
use skep_registry::{Membership, Registry, Target, WriteOptions};
use tokio_util::sync::CancellationToken;

/// How often the key is renewed and the endpoints are looked at.
const RENEW: Duration = Duration::from_secs(10);

/// How long a server that died is still listed.
const TTL: Duration = Duration::from_secs(15);

/// Tries of one repair when others write at the same time.
const TRIES: usize = 5;

/// Goodbye takes no longer.
const LEAVE: Duration = Duration::from_secs(3);

/// One API server among those of its cluster.
pub struct Announcement {
    member: Membership,
    port: u16,
    every: Duration,
}

impl Announcement {
    /// The server at this address, as the cluster reaches it.
    pub fn new(address: IpAddr, port: u16) -> Self {
        Self::timed(address, port, RENEW, TTL)
    }

    /// The same with other times.
    pub fn timed(address: IpAddr, port: u16, every: Duration, ttl: Duration) -> Self {
        Self { member: Membership::new(address, ttl), port, every }
    }

    /// Says that this server is there, and writes the endpoints.
    pub async fn announce(&mut self, registry: &Registry) -> Result<(), ApiError> {
        registry.renew_member(&mut self.member).await?;
        self.reconcile(registry).await
    }

    /// Announces until cancelled, then takes the server out.
    pub async fn run(mut self, registry: Arc<Registry>, cancel: CancellationToken) {
        let mut interval = tokio::time::interval(self.every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = interval.tick() => {}
            }
            if let Err(error) = self.announce(&registry).await {
                tracing::warn!(%error, "the endpoints of the kubernetes service could not be looked after");
            }
        }
        let leave = async {
            registry.remove_member(&mut self.member).await?;
            self.reconcile(&registry).await
        };
        match tokio::time::timeout(LEAVE, leave).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the server could not take itself out"),
            Err(_) => tracing::debug!("the server had no time to take itself out"),
        }
    }

    /// Writes the endpoints of all servers, where they are others.
    async fn reconcile(&self, registry: &Registry) -> Result<(), ApiError> {
        let mut members = registry.members().await?;
        members.retain(|ip| !ip.is_loopback());
        if members.is_empty() {
            // The last one keeps its place: clients that come back find it there.
            return Ok(());
        }
        for (v4, kind, name) in [(true, "IPv4", "kubernetes"), (false, "IPv6", "kubernetes-ipv6")] {
            let addresses: Vec<&IpAddr> = members.iter().filter(|ip| ip.is_ipv4() == v4).collect();
            // A cluster of one family has one slice, of the old name.
            let name = if members.iter().all(|ip| ip.is_ipv4() == v4) { "kubernetes" } else { name };
            if !addresses.is_empty() {
                keep(registry, &slice(name, kind, &addresses, self.port)).await?;
            }
        }
        keep(registry, &endpoints(&members, self.port)).await
    }
}

/// Makes an object, or puts everything but its metadata back.
async fn keep(registry: &Registry, wanted: &Value) -> Result<(), ApiError> {
    let options = WriteOptions {
        user: UserInfo::new("system:apiserver", ["system:masters"]),
        field_manager: "kube-apiserver".to_owned(),
        ..WriteOptions::default()
    };
    let gvk = wanted.gvk();
    let plural = if gvk.kind == "Endpoints" { "endpoints" } else { "endpointslices" };
    let resource = GroupVersionResource::new(gvk.group, gvk.version, plural);
    let target = Target::new(resource, wanted.namespace(), wanted.name());
    for _ in 0..TRIES {
        let stored = match registry.get(&target, None).await {
            Ok(stored) => stored,
            Err(error) if error.is_not_found() => {
                match registry.create(&target, wanted.clone(), &options).await {
                    // Another server was faster.
                    Err(error) if error.is_already_exists() => continue,
                    other => return other.map(drop),
                }
            }
            Err(error) => return Err(error),
        };
        let mut object = Value::clone(&stored.value);
        for field in ["addressType", "endpoints", "ports", "subsets"] {
            if let Some(value) = wanted.get(field) {
                object[field] = value.clone();
            }
        }
        if object == *stored.value {
            return Ok(());
        }
        match registry.update(&target, object, &options).await {
            Err(error) if error.is_conflict() => {}
            other => return other.map(drop),
        }
    }
    Ok(())
}

fn port(port: u16) -> Value {
    json!({"name": "https", "port": port, "protocol": "TCP"})
}

fn slice(name: &str, family: &str, addresses: &[&IpAddr], number: u16) -> Value {
    let endpoint = |ip: &&IpAddr| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family,
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [port(number)],
    })
}

fn endpoints(addresses: &[IpAddr], number: u16) -> Value {
    let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": addresses, "ports": [port(number)]}],
    })
}
