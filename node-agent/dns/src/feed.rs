//! From changes in the API to a new index.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use skep_client::{Client, Informer, ListParams, Store};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    DnsConfig, entry,
    index::{Index, ServiceKey, Zone},
    snapshot,
};

/// The index is written to its file so often at most.
const SAVE_PAUSE: Duration = Duration::from_secs(10);

/// The label that says whose endpoints a slice holds.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The index that answers are made from; empty until it is complete.
pub(crate) type Published = ArcSwapOption<Index>;

/// Services that changed since the last look.
#[derive(Default)]
struct Dirty {
    keys: Mutex<BTreeSet<ServiceKey>>,
    some: Notify,
}

impl Dirty {
    fn add(&self, key: Option<ServiceKey>) {
        if let Some(key) = key {
            self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
            self.some.notify_one();
        }
    }

    fn take(&self) -> BTreeSet<ServiceKey> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The running informers and what they found changed.
pub(crate) struct Feed {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    dirty: Arc<Dirty>,
}

impl Feed {
    /// Starts the informers.
    pub(crate) fn start(client: &Client, tasks: &TaskTracker, cancel: &CancellationToken) -> Self {
        let dirty = Arc::new(Dirty::default());
        let (by_service, by_slice) = (Arc::clone(&dirty), Arc::clone(&dirty));
        let services = Informer::<Service>::new(client.all(), ListParams::default())
            .on_change(move |old, new| {
                by_service.add(new.or(old).and_then(|service| service_key(&service.metadata)));
            })
            .spawn(tasks, cancel.clone());
        let slices = Informer::<EndpointSlice>::new(client.all(), ListParams::default())
            .index_by(|slice| slice_key(&slice.metadata).map(|key| index_key(&key)).into_iter().collect())
            .on_change(move |old, new| {
                // A slice may have been given to another service.
                by_slice.add(old.and_then(|slice| slice_key(&slice.metadata)));
                by_slice.add(new.and_then(|slice| slice_key(&slice.metadata)));
            })
            .spawn(tasks, cancel.clone());
        Self { services, slices, dirty }
    }

    /// Keeps the published index true, for as long as it is polled.
    pub(crate) async fn run(self, zone: Zone, published: &Published, config: &DnsConfig) {
        self.services.synced().await;
        self.slices.synced().await;
        let mut index = Index::new(zone);
        for service in self.services.list() {
            self.dirty.add(service_key(&service.metadata));
        }
        let (mut first, mut saved) = (true, Instant::now() - SAVE_PAUSE);
        let mut unsaved = false;
        loop {
            let changed = self.dirty.take();
            let mut news = std::mem::take(&mut first);
            for key in &changed {
                news |= index.put(key, self.entry(key));
            }
            if news {
                published.store(Some(Arc::new(index.clone())));
                config.metrics.services.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
                tracing::debug!(services = index.len(), changed = changed.len(), "names published");
                unsaved = config.snapshot.is_some();
            }
            config.ready.send_replace(true);
            // Cancel-safe: a notification is kept until it is taken.
            tokio::select! {
                () = self.dirty.some.notified() => {}
                () = time::sleep_until(saved + SAVE_PAUSE), if unsaved => {
                    keep(config, &index).await;
                    (unsaved, saved) = (false, Instant::now());
                }
            }
        }
    }

    fn entry(&self, key: &ServiceKey) -> Option<entry::Entry> {
        let service = self.services.get(&key.namespace, &key.name)?;
        entry::of(&service, &self.slices.indexed(&index_key(key)))
    }
}

/// Writes the index to its file.
async fn keep(config: &DnsConfig, index: &Index) {
    let (Some(path), index) = (config.snapshot.clone(), index.clone()) else { return };
    let outcome = tokio::task::spawn_blocking(move || snapshot::save(&path, &index)).await;
    if let Ok(Err(error)) = outcome {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a restart will have to wait for the API server"
        );
    }
}

fn service_key(meta: &ObjectMeta) -> Option<ServiceKey> {
    Some(ServiceKey { namespace: meta.namespace.clone()?, name: meta.name.clone()? })
}

fn slice_key(meta: &ObjectMeta) -> Option<ServiceKey> {
    let name = meta.labels.as_ref()?.get(SERVICE_LABEL)?.clone();
    Some(ServiceKey { namespace: meta.namespace.clone()?, name })
}

fn index_key(key: &ServiceKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}
