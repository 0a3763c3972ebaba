//! Get, list and watch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skep_api::error::ApiError;
use skep_storage::{Op, Revision, Storage, TxnRequest};
use tokio::sync::Mutex;
use tokio::sync::watch::Receiver;

use super::{Registry, Resource, Target, storage_error};
use crate::cache::{
    At, Filter, List, ListOptions, Object, Plan, Progress, WatchOptions, page_of, plan, wait_for,
};
use crate::custom::Stream;

/// A change that was just written is in the caches by then.
const SOON: Duration = Duration::from_millis(5);

/// Knows how new the caches are.
#[derive(Clone)]
pub(crate) struct Freshness {
    storage: Arc<dyn Storage>,
    progress: Receiver<Progress>,
    /// The newest change made for its event's sake alone.
    ticked: Arc<Mutex<Revision>>,
}

/// Changed to learn how far the feed is. It is no object's key.
const TICK: &str = "/registry/~progress";

impl Freshness {
    pub(crate) fn new(storage: Arc<dyn Storage>, progress: Receiver<Progress>) -> Self {
        Self { storage, progress, ticked: Arc::default() }
    }

    /// The store that the caches follow.
    pub(super) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// Are the caches filled?
    pub(crate) fn ready(&self) -> bool {
        self.progress.borrow().ready
    }

    /// Waits until the caches show everything the store had when this was called; returns the revision.
    pub(crate) async fn consistent(&self) -> Result<Revision, ApiError> {
        let revision = self.storage.current_revision().await.map_err(|error| storage_error(&error))?;
        self.reach(revision).await?;
        Ok(revision)
    }

    /// Makes the store say how far it is. One that can't say it truly is made to by a change of our own,
    /// whose event comes after all before it.
    async fn ask(&self, revision: Revision) -> Result<(), ApiError> {
        if self.storage.exact_progress() {
            return self.storage.request_progress().await.map_err(|error| storage_error(&error));
        }
        // One change serves all who wait.
        let mut ticked = self.ticked.lock().await;
        if *ticked < revision {
            let put = Op::Put { key: TICK.to_owned(), value: Bytes::new(), lease: 0 };
            let request = TxnRequest { success: vec![put], ..TxnRequest::default() };
            *ticked = self.storage.txn(request).await.map_err(|error| storage_error(&error))?.revision;
        }
        Ok(())
    }

    /// Waits until the caches have reached a revision.
    pub(crate) async fn reach(&self, revision: Revision) -> Result<(), ApiError> {
        let mut progress = self.progress.clone();
        let soon = progress.wait_for(|progress| progress.ready && progress.revision >= revision);
        let reached = tokio::time::timeout(SOON, soon).await.is_ok_and(|reached| reached.is_ok());
        if !reached {
            // Changes outside of what the caches follow are told by progress messages only. Asking for
            // one at once would make each read under load ask, though the change is on its way.
            self.ask(revision).await?;
        }
        wait_for(&mut progress, revision).await
    }
}

impl Registry {
    /// Waits until the caches show everything the store has.
    pub(crate) async fn consistent(&self) -> Result<Revision, ApiError> {
        self.freshness.consistent().await
    }

    async fn reach(&self, revision: Revision) -> Result<(), ApiError> {
        self.freshness.reach(revision).await
    }

    /// One object. `revision` as in [`ListOptions::resource_version`].
    pub async fn get(&self, target: &Target, revision: Option<Revision>) -> Result<Arc<Object>, ApiError> {
        let resource = self.resource(&target.resource)?;
        match revision {
            None => _ = self.consistent().await?,
            Some(0) => {}
            Some(revision) => self.reach(revision).await?,
        }
        find(&resource, target).await
    }

    /// A page of a collection.
    pub async fn list(&self, target: &Target, options: &ListOptions) -> Result<List, ApiError> {
        let resource = self.resource(&target.resource)?;
        resource.kind().check_field_selector(&options.filter.fields)?;
        let plan = plan(options)?;
        if plan.consistent {
            self.consistent().await?;
        } else {
            let (At::Newest(revision) | At::Exactly(revision)) = plan.at;
            self.reach(revision).await?;
        }
        let Some(lens) = resource.lens() else { return self.cached_list(&resource, &plan, options).await };
        if lens.is_plain() && is_of_metadata(&options.filter) {
            let list = self.cached_list(&resource, &plan, options).await?;
            return Ok(List { items: lens.see_all(&list.items).await?, ..list });
        }
        // What is asked for shows after conversion only.
        let filter = Filter { namespace: options.filter.namespace.clone(), ..Filter::default() };
        let everything = ListOptions { filter, limit: 0, continue_token: None, ..options.clone() };
        let everything =
            self.cached_list(&resource, &Plan { after: None, ..plan.clone() }, &everything).await?;
        let seen = lens.see_all(&everything.items).await?;
        Ok(page_of(seen, options, plan.after.as_deref(), everything.revision))
    }

    /// Everything in a collection that passes the filter.
    pub async fn list_all(&self, target: &Target, filter: &Filter) -> Result<Vec<Arc<Object>>, ApiError> {
        let options = ListOptions { filter: filter.clone(), ..ListOptions::default() };
        Ok(self.list(target, &options).await?.items)
    }

    /// Opens a watch on a collection.
    pub async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<Stream, ApiError> {
        let resource = self.resource(&target.resource)?;
        resource.kind().check_field_selector(&options.filter.fields)?;
        match options.resource_version {
            None => _ = self.consistent().await?,
            Some(0) => {}
            Some(revision) => self.reach(revision).await?,
        }
        let Some(lens) = resource.lens() else {
            return Ok(self.cached_watch(&resource, options).await?.into());
        };
        if lens.is_plain() && is_of_metadata(&options.filter) {
            return Ok(Stream::through(self.cached_watch(&resource, options).await?, lens.clone(), None));
        }
        let filter = Filter { namespace: options.filter.namespace.clone(), ..Filter::default() };
        let watch = self.cached_watch(&resource, &WatchOptions { filter, ..options.clone() }).await?;
        Ok(Stream::through(watch, lens.clone(), Some(options.filter.clone())))
    }
}

/// Can the filter be decided on what is stored?
fn is_of_metadata(filter: &Filter) -> bool {
    filter.fields.requirements().iter().all(|requirement| requirement.field.starts_with("metadata."))
}

/// The object as it is served.
pub(super) async fn find(resource: &Resource, target: &Target) -> Result<Arc<Object>, ApiError> {
    let found = resource.get(&target.namespace, &target.name).await?;
    found.ok_or_else(|| ApiError::not_found(resource.gvr(), &target.name))
}
