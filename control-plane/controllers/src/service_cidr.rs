//! Ranges of service addresses: each is kept while addresses of it are in use, and made ready
//! (KEP-1880).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use skep_client::reconcile::Next;
use skep_client::{Client, Error, Patch, PatchParams, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};

/// Keeps a range.
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Who has made an address: ours and upstream's allocator.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// How long a range stays after its last address: allocators in other servers learn meanwhile that it goes.
const GRACE: Duration = Duration::from_secs(10);

/// The controller.
pub(crate) struct ServiceCidrs {
    client: Client,
    ranges: Store<ServiceCIDR>,
    addresses: Store<IPAddress>,
    queue: WorkQueue<Key>,
}

/// What a range needs next.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nothing.
    Rest,
    /// A finalizer.
    Keep,
    /// This condition: status, reason, message.
    Tell(&'static str, &'static str, &'static str),
    /// Another look after this time.
    Wait(Duration),
    /// Nothing keeps it any more.
    Release,
}

impl ServiceCidrs {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.service_ranges, &queue);
        let ranges = sources.service_ranges.store();
        // What keeps a range that goes: its addresses, and whether another range has them too.
        let going = move |ranges: &Store<ServiceCIDR>| -> Vec<Key> {
            let all = ranges.list();
            let going = all.iter().filter(|range| range.metadata.deletion_timestamp.is_some());
            going.map(|range| Key::of(&range.metadata)).collect()
        };
        let known = ranges.clone();
        enqueue_for(&mut sources.service_ranges, &queue, move |_: &Arc<ServiceCIDR>| going(&known));
        let known = ranges.clone();
        enqueue_for(&mut sources.service_addresses, &queue, move |_: &Arc<IPAddress>| going(&known));
        Self { client: client.clone(), ranges, addresses: sources.service_addresses.store(), queue }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("service-cidrs", &self.queue, 1, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(range) = self.ranges.get("", &key.name) else { return Ok(Next::Wait) };
        let addresses = self.addresses.list();
        let given: Vec<IpAddr> = addresses.iter().filter_map(|address| given(&address.metadata)).collect();
        let now = Timestamp::now();
        let api = self.client.all::<ServiceCIDR>();
        let meta = &range.metadata;
        let version = json!({"uid": meta.uid, "resourceVersion": meta.resource_version});
        let params = PatchParams::default();
        let finalizers = |finalizers: Vec<&str>| {
            let mut patch = json!({"metadata": version});
            patch["metadata"]["finalizers"] = json!(finalizers);
            Patch::Merge(patch)
        };
        let has = meta.finalizers.iter().flatten().map(String::as_str);
        let done = match plan(&range, &self.ranges.list(), &given, now) {
            Step::Rest => return Ok(Next::Wait),
            Step::Wait(time) => return Ok(Next::After(time)),
            Step::Keep => api.patch(&key.name, &finalizers(has.chain([FINALIZER]).collect()), &params).await,
            Step::Release => {
                let rest = has.filter(|finalizer| *finalizer != FINALIZER).collect();
                api.patch(&key.name, &finalizers(rest), &params).await
            }
            Step::Tell(status, reason, message) => {
                let patch =
                    json!({"metadata": version, "status": told(&range, status, reason, message, now)});
                api.patch_status(&key.name, &Patch::Merge(patch), &params).await
            }
        };
        match done {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Next::Wait),
        }
    }
}

/// The address of an object that the allocator has made.
fn given(meta: &ObjectMeta) -> Option<IpAddr> {
    let label = meta.labels.as_ref()?.get(MANAGED_BY)?;
    (label == ALLOCATOR).then(|| meta.name.as_deref()?.parse().ok()).flatten()
}

fn nets(range: &ServiceCIDR) -> Vec<IpNet> {
    let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn is_ready(range: &ServiceCIDR, status: &str, reason: &str) -> bool {
    let conditions = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|c| c.type_ == "Ready")
        .any(|c| c.status == status && (status == "True" || c.reason == reason))
}

/// Pure.
fn plan(range: &ServiceCIDR, all: &[Arc<ServiceCIDR>], given: &[IpAddr], now: Timestamp) -> Step {
    let kept = range.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let Some(deleted) = &range.metadata.deletion_timestamp else {
        return match (kept, is_ready(range, "True", "")) {
            (false, _) => Step::Keep,
            (true, false) => Step::Tell("True", "Ready", "Kubernetes Service CIDR is ready"),
            (true, true) => Step::Rest,
        };
    };
    if !kept {
        return Step::Rest;
    }
    let others: Vec<IpNet> = all
        .iter()
        .filter(|other| other.metadata.name != range.metadata.name)
        .filter(|other| other.metadata.deletion_timestamp.is_none() && is_ready(other, "True", ""))
        .flat_map(|other| nets(other))
        .collect();
    let contains = |nets: &[IpNet], address: &IpAddr| nets.iter().any(|net| net.contains(address));
    let own = nets(range);
    if given.iter().any(|address| contains(&own, address) && !contains(&others, address)) {
        if is_ready(range, "False", "Terminating") {
            return Step::Rest;
        }
        return Step::Tell(
            "False",
            "Terminating",
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
        );
    }
    let since = now.duration_since(deleted.0).unsigned_abs();
    match GRACE.checked_sub(since).filter(|rest| !rest.is_zero()) {
        Some(rest) => Step::Wait(rest),
        None => Step::Release,
    }
}

/// The status with this condition; others stay.
fn told(range: &ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    let conditions = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut all: Vec<Value> = conditions.filter(|c| c.type_ != "Ready").map(|c| json!(c)).collect();
    all.push(json!({
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }));
    json!({"conditions": all})
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn range(name: &str, net: &str, rest: &Value) -> ServiceCIDR {
        let mut object = json!({"metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": {"cidrs": [net]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        for (field, value) in rest.as_object().into_iter().flatten() {
            object["metadata"][field] = value.clone();
        }
        serde_json::from_value(object).expect("a range")
    }

    fn step(range: &ServiceCIDR, others: &[ServiceCIDR], given: &[&str]) -> Step {
        let all: Vec<Arc<ServiceCIDR>> = others.iter().chain([range]).cloned().map(Arc::new).collect();
        let given: Vec<IpAddr> = given.iter().map(|text| text.parse().expect("an address")).collect();
        plan(range, &all, &given, NOW.parse().expect("a time"))
    }

    #[test]
    fn a_range_is_kept_and_made_ready() {
        let mut new = range("a", "10.0.0.0/28", &json!({"finalizers": []}));
        new.status = None;
        assert_eq!(step(&new, &[], &[]), Step::Keep);
        new.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        assert!(matches!(step(&new, &[], &[]), Step::Tell("True", ..)));
        assert_eq!(step(&range("a", "10.0.0.0/28", &json!({})), &[], &[]), Step::Rest);
    }

    #[test]
    fn a_range_goes_after_its_addresses() {
        let going = range("a", "10.0.0.0/28", &json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
        assert!(matches!(step(&going, &[], &["10.0.0.3"]), Step::Tell("False", "Terminating", _)));
        assert_eq!(step(&going, &[], &["10.0.1.3"]), Step::Release, "another range's address");
        let wider = range("b", "10.0.0.0/24", &json!({}));
        assert_eq!(
            step(&going, std::slice::from_ref(&wider), &["10.0.0.3"]),
            Step::Release,
            "another range has it"
        );
        let mut unready = wider;
        unready.status = None;
        assert!(matches!(step(&going, &[unready], &["10.0.0.3"]), Step::Tell("False", ..)));
        let young = range("a", "10.0.0.0/28", &json!({"deletionTimestamp": "2026-01-01T00:00:56Z"}));
        assert_eq!(step(&young, &[], &[]), Step::Wait(Duration::from_secs(6)));
    }

    #[test]
    fn only_the_allocators_addresses_keep_a_range() {
        let meta = |manager: &str| ObjectMeta {
            name: Some("10.0.0.3".to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), manager.to_owned())].into()),
            ..ObjectMeta::default()
        };
        assert!(given(&meta(ALLOCATOR)).is_some());
        assert!(given(&meta("someone")).is_none());
    }
}
