//! The generic store: every verb on every kind, in one fixed order.
//!
//! A write goes: decode (by the caller), default, prepare, admission mutates, default again, allocate,
//! validate, admission validates, managed fields, transaction. Each step is a function of the objects;
//! only the last one writes, under the condition that the object is still the one the steps looked at.

mod admit;
mod commit;
mod create;
mod delete;
mod fields;
mod meta;
mod patch;
mod pods;
mod read;
mod request;
mod resource;
mod scale;
mod services;
mod subresource;
mod update;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use skep_admission::Chain;
use skep_api::error::ApiError;
use skep_api::resource::GroupVersionResource;
use skep_storage::{Error, Revision, Storage};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alloc::{self, Allocators};
use crate::cache::{Feed, Filter, Object};
use crate::kinds;

pub(crate) use commit::storage_error;
use read::Freshness;
pub use request::{DeleteOptions, Deleted, Patch, Preconditions, Propagation, Target, WriteOptions, Written};
pub use resource::{ClusterReader, Resource};

/// Everything in the store that is an API object lies under this.
const PREFIX: &str = "/registry/";

/// How long history can be asked for.
const HISTORY: Duration = Duration::from_secs(5 * 60);

/// How often allocations are checked against the services.
const REPAIR: Duration = Duration::from_secs(3 * 60);

/// What a registry is made of.
pub struct Options {
    /// Ranges of service addresses, one a family, the default family first.
    pub service_ranges: Vec<IpNet>,
    /// Node ports.
    pub node_ports: RangeInclusive<u16>,
    /// Makes the admission chain; its plug-ins read the cluster through the reader.
    pub admission: Box<dyn FnOnce(Arc<ClusterReader>) -> Chain + Send>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            service_ranges: Vec::new(),
            node_ports: 30000..=32767,
            admission: Box::new(|_| Chain::new(Vec::new())),
        }
    }
}

/// The registry: the kinds, their caches, and the store behind them.
pub struct Registry {
    storage: Arc<dyn Storage>,
    resources: Arc<HashMap<GroupVersionResource, Arc<Resource>>>,
    freshness: Freshness,
    pools: Arc<Allocators>,
    admission: Chain,
    reader: Arc<ClusterReader>,
}

impl Registry {
    /// Starts a registry over a store: its caches follow the store until `cancel`, as tasks of
    /// `tasks`. Returns when the caches are filled.
    pub async fn start(
        storage: Arc<dyn Storage>,
        options: Options,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Arc<Self>, ApiError> {
        let mut feed = Feed::new(storage.clone(), PREFIX);
        let progress = feed.progress();
        let resources = Arc::new(resource::table(&mut feed));
        let freshness = Freshness::new(storage.clone(), progress.clone());
        let reader = Arc::new(ClusterReader::new(resources.clone(), freshness.clone()));
        let pools = Arc::new(Allocators::new(&options.service_ranges, options.node_ports));
        alloc::load(&*storage, &pools).await.map_err(|error| storage_error(&error))?;
        let forget = feed.forgetter();
        tasks.spawn(feed.run(cancel.clone()));
        let mut ready = progress.clone();
        let registry = Arc::new(Self {
            storage: storage.clone(),
            resources,
            freshness,
            pools,
            admission: (options.admission)(reader.clone()),
            reader,
        });
        ready
            .wait_for(|progress| progress.ready)
            .await
            .map_err(|_| ApiError::service_unavailable("the registry stopped while it was starting"))?;
        let compactor = compact(storage, forget);
        tasks.spawn(until(cancel.clone(), compactor));
        tasks.spawn(until(cancel, registry.clone().repair()));
        Ok(registry)
    }

    /// The stored resources, in the order of the table of kinds.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        kinds::TABLE.iter().filter_map(|row| self.resources.get(&row.gvr()))
    }

    /// A resource by name.
    pub fn resource(&self, name: &GroupVersionResource) -> Result<&Arc<Resource>, ApiError> {
        self.resources.get(name).ok_or_else(ApiError::no_such_path)
    }

    /// Reads the caches; also finds services for calls out of the server.
    pub fn reader(&self) -> &Arc<ClusterReader> {
        &self.reader
    }

    /// Does the store answer?
    pub async fn ping(&self) -> Result<(), ApiError> {
        self.storage.current_revision().await.map(|_| ()).map_err(|error| storage_error(&error))
    }

    /// Are the caches filled?
    pub fn ready(&self) -> bool {
        self.freshness.ready()
    }

    async fn repair(self: Arc<Self>) {
        let mut interval = tokio::time::interval(REPAIR);
        loop {
            interval.tick().await;
            if let Err(error) = self.repair_once().await {
                tracing::warn!(%error, "allocations could not be checked");
            }
        }
    }

    async fn repair_once(&self) -> Result<(), ApiError> {
        let services = GroupVersionResource::new("", "v1", "services");
        let floor = self.consistent().await?;
        let resource = self.resource(&services)?;
        let services = resource.cache().snapshot(&Filter::default());
        let key_of = |service: &Object| resource.key(&service.namespace, &service.name);
        alloc::repair(&*self.storage, &self.pools, floor, &services, key_of)
            .await
            .map_err(|error| storage_error(&error))
    }
}

/// Runs until cancelled.
async fn until(cancel: CancellationToken, work: impl Future<Output = ()> + Send) {
    tokio::select! {
        () = work => {}
        () = cancel.cancelled() => {}
    }
}

/// Lets the store forget what is older than the history kept.
async fn compact(storage: Arc<dyn Storage>, forget: impl Fn(Revision) + Send + 'static) {
    let (mut floor, mut done): (Revision, Revision) = (0, 0);
    loop {
        let next = storage.current_revision().await;
        tokio::time::sleep(HISTORY).await;
        if floor > done {
            match storage.compact(floor).await {
                // Another server was faster.
                Ok(()) | Err(Error::Compacted { .. }) => done = floor,
                Err(error) => tracing::warn!(%error, floor, "the store could not be compacted"),
            }
            forget(floor);
        }
        match next {
            Ok(next) => floor = next,
            Err(error) => tracing::warn!(%error, "the store does not tell its revision"),
        }
    }
}
