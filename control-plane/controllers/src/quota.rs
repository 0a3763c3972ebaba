//! ResourceQuotas: their status tells how much of what they limit there is.
//!
//! The kinds quotas count most often wake it when they change; a quota that counts others is looked at
//! every few seconds. Admission charges the same status before an object is stored; here it is brought in
//! line with what there is.

mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use serde_json::{Value, json};
use skep_api::resource::GroupVersionResource;
use skep_client::reconcile::Next;
use skep_client::{
    Client, DynamicObject, Error, Informer, ListParams, Patch, PatchParams, Store, Stored, WorkQueue,
};
use tokio_util::sync::CancellationToken;

use crate::discovery;
use crate::sources::Sources;
use crate::work::Key;
use plan::{Counted, Snapshot};

/// Kinds whose changes are told.
const TOLD: [(&str, &str); 5] = [
    ("pods", ""),
    ("services", ""),
    ("persistentvolumeclaims", ""),
    ("replicationcontrollers", ""),
    ("replicasets", "apps"),
];
const OFTEN: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_millis(200);
const SELDOM: Duration = Duration::from_secs(300);

/// The controller.
pub(crate) struct Quotas {
    client: Client,
    quotas: Store<ResourceQuota>,
    queue: WorkQueue<Key>,
}

impl Quotas {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_quotas(&mut sources.quotas, &queue);
        let quotas = sources.quotas.store();
        wake(&mut sources.pods, &quotas, &queue, |old, new| {
            let phase = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.clone());
            old.spec == new.spec && phase(old) == phase(new)
        });
        wake(&mut sources.services, &quotas, &queue, |old, new| old.spec == new.spec);
        wake(&mut sources.claims, &quotas, &queue, |old, new| old.spec == new.spec);
        wake(&mut sources.replication_controllers, &quotas, &queue, |_, _| true);
        wake(&mut sources.replica_sets, &quotas, &queue, |_, _| true);
        Self { client: client.clone(), quotas, queue }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("resourcequota", &self.queue, 3, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(quota) = self.quotas.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        let quota = json!(*quota);
        let counted = plan::all_counted(&quota);
        let mut objects = Vec::new();
        for gvr in self.resolve(&counted).await? {
            let api = self.client.resource::<DynamicObject>(gvr.clone(), Some(&key.namespace));
            let items: Vec<Value> =
                api.list(&ListParams::default()).await?.items.iter().map(|item| json!(item)).collect();
            objects.push((gvr, items));
        }
        let plan = plan::plan(&Snapshot { quota: &quota, objects: &objects });
        if let Some(status) = &plan.status {
            // Only if nothing was charged since: the count may not know it.
            let metadata = &quota["metadata"];
            let metadata = json!({"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]});
            let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
            let api = self.client.namespaced::<ResourceQuota>(&key.namespace);
            match api.patch_status(&key.name, &patch, &PatchParams::default()).await {
                Err(e) if e.is_not_found() => return Ok(Next::Wait),
                Err(e) if e.is_conflict() => return Ok(Next::After(SOON)),
                result => drop(result?),
            }
        }
        let told = |(resource, group): &Counted| TOLD.contains(&(resource.as_str(), group.as_str()));
        Ok(Next::After(if counted.iter().all(told) { SELDOM } else { OFTEN }))
    }

    /// The served version of each kind; kinds the server does not have are left out.
    async fn resolve(&self, counted: &BTreeSet<Counted>) -> Result<Vec<GroupVersionResource>, Error> {
        let fixed = |(resource, group): &Counted| match group.as_str() {
            _ if TOLD.contains(&(resource, group)) => true,
            "" => {
                matches!(resource.as_str(), "secrets" | "configmaps" | "resourcequotas" | "serviceaccounts")
            }
            _ => false,
        };
        let v1 = |(resource, group): &Counted| GroupVersionResource::new(group, "v1", resource.as_str());
        if counted.iter().all(fixed) {
            return Ok(counted.iter().map(v1).collect());
        }
        let (known, _) = discovery::resources(&self.client).await?;
        let of = |(resource, group): &Counted| {
            let mut same = known.iter().filter(|r| r.gvr.resource == *resource && r.gvr.group == *group);
            same.find(|r| r.namespaced && r.can("list")).map(|r| r.gvr.clone())
        };
        Ok(counted.iter().filter_map(of).collect())
    }
}

/// Enqueues quotas when what they limit changes, or their status tells another limit. What admission
/// charges is no reason to count again.
fn enqueue_quotas(informer: &mut Informer<ResourceQuota>, queue: &WorkQueue<Key>) {
    let queue = queue.clone();
    informer.add_callback(move |old: Option<&Arc<ResourceQuota>>, new: Option<&Arc<ResourceQuota>>| {
        let told = |quota: &ResourceQuota| {
            let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
            quota.status.as_ref().and_then(|status| status.hard.as_ref()) == hard
        };
        let charged = old.zip(new).is_some_and(|(old, new)| old.spec == new.spec && told(new));
        if let Some(quota) = new.or(old).filter(|_| !charged) {
            queue.add(Key::of(&quota.metadata));
        }
    });
}

/// Enqueues the quotas of a namespace when an object of it goes, or changes in what it uses. What comes
/// was charged by admission.
fn wake<K: Stored>(
    informer: &mut Informer<K>,
    quotas: &Store<ResourceQuota>,
    queue: &WorkQueue<Key>,
    same: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
) {
    let (quotas, queue) = (quotas.clone(), queue.clone());
    informer.add_callback(move |old: Option<&Arc<K>>, new: Option<&Arc<K>>| {
        let unchanged = old.zip(new).is_some_and(|(old, new)| same(old, new));
        let came = old.is_none();
        let Some(object) = new.or(old).filter(|_| !unchanged && !came) else { return };
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        for quota in quotas.list_namespace(namespace) {
            queue.add(Key::of(&quota.metadata));
        }
    });
}
