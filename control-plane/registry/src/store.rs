//! The generic store: every verb on every kind, in one fixed order.
//!
//! A write goes: decode (by the caller), default, prepare, admission mutates, default again, allocate,
//! validate, admission validates, managed fields, transaction. Each step is a function of the objects;
//! only the last one writes, under the condition that the object is still the one the steps looked at.

mod admit;
mod commit;
mod conversions;
mod create;
mod delete;
mod fields;
mod ledger;
mod members;
mod meta;
mod past;
mod patch;
mod pods;
mod read;
mod request;
mod resource;
mod scale;
mod services;
mod subresource;
mod update;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use skep_admission::Chain;
use skep_api::error::ApiError;
use skep_api::resource::GroupVersionResource;
use skep_storage::{Error, Revision, Storage};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alloc::{self, Allocators};
use crate::cache::{Feed, Filter, Object};
use crate::custom::{self, Table, Webhooks};
use crate::kinds;
use crate::strategy::Kind;

pub(crate) use commit::storage_error;
pub(crate) use conversions::Conversions;
pub use members::Membership;
pub(crate) use meta::{new_uid, now};
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
    table: Arc<ArcSwap<Table>>,
    settled: watch::Sender<Revision>,
    webhooks: Arc<Webhooks>,
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
        let table = Arc::new(ArcSwap::from_pointee(Table::new(resource::built_in(&mut feed))));
        let freshness = Freshness::new(storage.clone(), progress.clone());
        let reader = Arc::new(ClusterReader::new(table.clone(), freshness.clone()));
        let pools = Arc::new(Allocators::new(&options.service_ranges, options.node_ports));
        alloc::migrate(&*storage).await.map_err(|error| storage_error(&error))?;
        let loaded = alloc::load(&*storage, &pools).await.map_err(|error| storage_error(&error))?;
        tasks.spawn(until(cancel.clone(), alloc::follow(storage.clone(), pools.clone(), loaded)));
        let forget = feed.forgetter();
        let handle = feed.handle();
        tasks.spawn(feed.run(cancel.clone()));
        let mut ready = progress.clone();
        let registry = Arc::new(Self {
            storage: storage.clone(),
            table,
            settled: watch::channel(0).0,
            webhooks: Arc::new(Webhooks::new(reader.clone())),
            freshness,
            pools,
            admission: (options.admission)(reader.clone()),
            reader,
        });
        ready
            .wait_for(|progress| progress.ready)
            .await
            .map_err(|_| ApiError::service_unavailable("the registry stopped while it was starting"))?;
        tasks.spawn(until(cancel.clone(), custom::follow(registry.clone(), handle, progress)));
        registry.definitions_settled().await?;
        tasks.spawn(until(cancel.clone(), custom::tend(registry.clone())));
        let compactor = compact(storage, forget);
        tasks.spawn(until(cancel.clone(), compactor));
        tasks.spawn(until(cancel, registry.clone().repair()));
        Ok(registry)
    }

    /// The stored resources as they are now: the built-in ones in the order of the table of kinds, then
    /// the custom ones.
    pub fn resources(&self) -> Vec<Arc<Resource>> {
        self.table.load().all().to_vec()
    }

    /// A resource by name.
    pub fn resource(&self, name: &GroupVersionResource) -> Result<Arc<Resource>, ApiError> {
        self.table.load().get(name).cloned().ok_or_else(ApiError::no_such_path)
    }

    /// A kind by the name of its resource, also one that is not stored.
    pub async fn find_kind(&self, name: &GroupVersionResource) -> Result<Kind, ApiError> {
        match kinds::by_resource(&name.group, &name.version, &name.resource) {
            Some(row) => Ok(Kind::BuiltIn(row)),
            None => Ok(self.find_resource(name).await?.kind().clone()),
        }
    }

    /// The same, without waiting for what may be on its way.
    pub fn known_kind(&self, name: &GroupVersionResource) -> Option<Kind> {
        match kinds::by_resource(&name.group, &name.version, &name.resource) {
            Some(row) => Some(Kind::BuiltIn(row)),
            None => self.resource(name).ok().map(|resource| resource.kind().clone()),
        }
    }

    /// A number that changes whenever the custom resources do.
    pub fn generation(&self) -> u64 {
        self.table.load().generation()
    }

    /// Everything discovery shows.
    pub fn served(&self) -> Vec<Kind> {
        let custom = self.resources().into_iter().map(|resource| resource.kind().clone());
        let custom =
            custom.filter(|kind| kind.custom().is_some_and(|custom| custom.definition().established));
        kinds::TABLE.iter().map(|row| Kind::BuiltIn(row)).chain(custom).collect()
    }

    /// Changes whenever the custom resources do.
    pub fn settled(&self) -> watch::Receiver<Revision> {
        self.settled.subscribe()
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    pub(crate) fn swap(&self, table: Table) {
        self.table.store(Arc::new(table));
    }

    /// The table shows all definitions up to this revision.
    pub(crate) fn definitions_done(&self, revision: Revision) {
        self.settled.send_replace(revision);
    }

    /// What calls conversion webhooks.
    pub(crate) fn webhooks(&self) -> Arc<Webhooks> {
        self.webhooks.clone()
    }

    /// Reads the caches; also finds services for calls out of the server.
    pub fn reader(&self) -> &Arc<ClusterReader> {
        &self.reader
    }

    /// The admission chain.
    pub fn admission(&self) -> &Chain {
        &self.admission
    }

    /// The ranges of service addresses the server was started with, one a family.
    pub fn service_ranges(&self) -> &[IpNet] {
        self.pools.configured()
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
