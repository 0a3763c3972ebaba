//! The lease that tells of this API server: `apiserver-HASH` in `kube-system`, renewed while it runs.
//! Leases of servers that are long gone are removed by those that are there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_api::selector::LabelSelector;
use skep_api::user::UserInfo;
use skep_registry::cache::Filter;
use skep_registry::{DeleteOptions, Registry, Target, WriteOptions};
use tokio_util::sync::CancellationToken;

const LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";
const NAMESPACE: &str = "kube-system";

/// How long a lease is good for.
const DURATION: i64 = 3600;

/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(10);

/// Old ones are looked for once in so many renewals.
const COLLECT: u32 = 360;

/// `apiserver-` and a hash of what names this server.
pub fn name(host: &str) -> String {
    let digest = Sha256::digest(host.as_bytes());
    let mut text = String::from("apiserver-");
    let mut bits: u32 = 0;
    let mut held = 0;
    // Base 32 without padding, in lower case, of the first sixteen bytes.
    for byte in &digest[..16] {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(letter(bits >> held));
        }
    }
    if held > 0 {
        text.push(letter(bits << (5 - held)));
    }
    text
}

fn letter(bits: u32) -> char {
    char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits & 31) as usize])
}

fn target(name: &str) -> Target {
    Target::new(GroupVersionResource::new("coordination.k8s.io", "v1", "leases"), NAMESPACE, name)
}

fn options() -> WriteOptions {
    WriteOptions {
        user: UserInfo::new("system:apiserver", ["system:masters"]),
        field_manager: COMPONENT.to_owned(),
        ..WriteOptions::default()
    }
}

/// This machine's name.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Keeps the lease of the server at this address, until cancelled.
pub async fn keep(registry: Arc<Registry>, address: SocketAddr, cancel: CancellationToken) {
    // Several servers may share a machine.
    let host = host_name();
    let name = name(&format!("{host}/{address}"));
    let holder = format!("{name}_{:016x}", rand::random::<u64>());
    let work = async {
        let mut renewals: u32 = 0;
        loop {
            if let Err(error) = renew(&registry, &name, &host, &holder).await {
                tracing::warn!(%error, name, "the lease of this server could not be renewed");
            }
            if renewals.is_multiple_of(COLLECT)
                && let Err(error) = collect(&registry).await
            {
                tracing::warn!(%error, "old leases of servers could not be removed");
            }
            renewals = renewals.wrapping_add(1);
            tokio::time::sleep(RENEW).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = cancel.cancelled() => {}
    }
}

async fn renew(registry: &Registry, name: &str, host: &str, holder: &str) -> Result<(), ApiError> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": DURATION, "renewTime": now});
    match registry.get(&target(name), None).await {
        Ok(stored) => {
            let mut lease = Value::clone(&stored.value);
            lease["spec"] = spec;
            match registry.update(&target(name), lease, &options()).await {
                // The next renewal wins.
                Err(error) if !error.is_conflict() => Err(error),
                _ => Ok(()),
            }
        }
        Err(error) if error.is_not_found() => {
            // A label holds less than a host name may.
            let host: String = host.chars().take(63).collect();
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": name,
                    "namespace": NAMESPACE,
                    "labels": {LABEL: COMPONENT, "kubernetes.io/hostname": host},
                },
                "spec": spec,
            });
            registry.create(&target(name), lease, &options()).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

/// Removes leases that have ended.
async fn collect(registry: &Registry) -> Result<(), ApiError> {
    let labels = LabelSelector::parse(&format!("{LABEL}={COMPONENT}")).unwrap_or_default();
    let filter = Filter { namespace: Some(NAMESPACE.to_owned()), labels, ..Filter::default() };
    for lease in registry.list_all(&target(""), &filter).await? {
        let seconds = lease.value.int(&["spec", "leaseDurationSeconds"]).unwrap_or(0);
        let renewed: Option<Timestamp> = lease.value.text(&["spec", "renewTime"]).parse().ok();
        let over = renewed.is_none_or(|at| at.as_second() + seconds < Timestamp::now().as_second());
        if over {
            match registry.delete(&target(&lease.name), &DeleteOptions::default(), &options()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_are_as_long_as_upstreams() {
        let name = name("server-1");
        assert_eq!(name.len(), "apiserver-".len() + 26);
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
        assert_ne!(name, super::name("server-2"));
    }
}
