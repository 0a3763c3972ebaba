//! API aggregation: group-versions that extension servers in the cluster serve as if this server did.
//!
//! One task ([`Aggregator::run`]) follows the APIServices: it registers what is served here, visits each
//! extension server when something about it changed and now and then, writes the Available condition, and
//! keeps what the server tells of itself (discovery, OpenAPI). It publishes a [`State`] that requests read
//! without locks. Requests to a remote group-version are passed on by [`forward`] with the user in the
//! front proxy's headers; the extension server asks back with TokenReview and SubjectAccessReview.

mod availability;
mod backend;
mod discovery;
mod forward;
mod openapi;
mod priorities;
mod register;
mod table;
pub(crate) mod trust;
mod visit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures::{StreamExt, stream};
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_api::user::UserInfo;
use skep_auth::pki::CertPair;
use skep_registry::cache::{Filter, WatchItem, WatchOptions};
use skep_registry::custom::Stream;
use skep_registry::{DeleteOptions, Preconditions, Registry, Target, WriteOptions, kinds};
use tokio_util::sync::CancellationToken;

use availability::Condition;
use backend::Backend;
use register::{Action, Registrar};
use table::{GroupVersion, Reference, Table};
use visit::{Document, Visits};

/// Pause before a broken watch is opened again.
const PAUSE: Duration = Duration::from_millis(200);

/// The label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Writes at the same time.
const AT_ONCE: usize = 32;

/// What requests need to know, published whole.
#[derive(Default)]
pub(crate) struct State {
    table: Table,
    links: HashMap<GroupVersion, Arc<Link>>,
}

/// The way to the server of one APIService.
struct Link {
    /// What it was made of: connections live as long as that stays.
    made_of: (Reference, String, bool),
    backend: Result<Backend, backend::Error>,
}

/// The aggregator.
pub(crate) struct Aggregator {
    registry: Arc<Registry>,
    front_proxy: Option<CertPair>,
    state: ArcSwap<State>,
    /// What the extension servers last told of themselves.
    documents: ArcSwap<HashMap<GroupVersion, Arc<Document>>>,
    merged: ArcSwapOption<openapi::Merged>,
}

/// What the extension servers told, by group-version.
type Documents = Arc<HashMap<GroupVersion, Arc<Document>>>;

fn api_services() -> Target {
    Target::new(GroupVersionResource::new("apiregistration.k8s.io", "v1", "apiservices"), "", "")
}

fn definitions() -> Target {
    let resource = GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    Target::new(resource, "", "")
}

fn options() -> WriteOptions {
    WriteOptions {
        user: UserInfo::new("system:apiserver", ["system:masters"]),
        field_manager: "kube-apiserver".to_owned(),
        ..WriteOptions::default()
    }
}

impl Aggregator {
    pub(crate) fn new(registry: Arc<Registry>, front_proxy: Option<CertPair>) -> Self {
        Self {
            registry,
            front_proxy,
            state: ArcSwap::default(),
            documents: ArcSwap::default(),
            merged: ArcSwapOption::empty(),
        }
    }

    /// Follows the APIServices until cancelled.
    pub(crate) async fn run(&self, cancel: CancellationToken) {
        let work = async {
            loop {
                if let Err(error) = self.follow().await {
                    tracing::warn!(%error, "APIServices can't be followed");
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        cancel.run_until_cancelled(work).await;
    }

    /// Follows until a watch ends.
    async fn follow(&self) -> Result<(), ApiError> {
        let options = WatchOptions { initial_events: Some(false), ..WatchOptions::default() };
        let all = |group: &str, resource: &str| {
            Target::new(GroupVersionResource::new(group, "v1", resource), "", "")
        };
        let mut apis = self.registry.watch(&api_services(), &options).await?;
        let mut crds = self.registry.watch(&definitions(), &options).await?;
        let mut services = self.registry.watch(&all("", "services"), &options).await?;
        let mut slices = self.registry.watch(&all("discovery.k8s.io", "endpointslices"), &options).await?;
        let mut registrar = Registrar::default();
        let mut visits = Visits::default();
        loop {
            self.reload(&mut registrar).await?;
            let state = self.state.load_full();
            visits.keep(state.table.remotes());
            self.forget(&state);
            // Only a change of what is registered leads out of here.
            loop {
                visits.start(|at| self.visitor(&state, at));
                // Cancel safe: each takes what it returns in one step.
                tokio::select! {
                    item = apis.next() => {
                        if item.is_none() { return Ok(()) }
                        drain(&mut apis);
                        break;
                    }
                    item = crds.next() => {
                        if item.is_none() { return Ok(()) }
                        drain(&mut crds);
                        break;
                    }
                    item = services.next() => {
                        let Some(item) = item else { return Ok(()) };
                        visits.touch(&state.table, &item, |service| service.name().to_owned());
                    }
                    item = slices.next() => {
                        let Some(item) = item else { return Ok(()) };
                        let owner = |slice: &Value| slice.label(SERVICE_NAME).unwrap_or_default().to_owned();
                        visits.touch(&state.table, &item, owner);
                    }
                    learned = visits.next() => {
                        if let Some((at, document)) = learned {
                            self.learn(at, document);
                        }
                    }
                }
            }
        }
    }

    /// Reads what is registered, registers what is missing, and publishes the new state.
    async fn reload(&self, registrar: &mut Registrar) -> Result<(), ApiError> {
        let there = self.registry.list_all(&api_services(), &Filter::default()).await?;
        let crds = self.registry.list_all(&definitions(), &Filter::default()).await?;
        let wanted = register::wanted(
            kinds::TABLE.iter().map(|row| (row.group, row.version)),
            crds.iter().map(|crd| &*crd.value),
        );
        let actions = registrar.plan(&wanted, there.iter().map(|object| &*object.value));
        let table = Table::new(there.iter().map(|object| object.value.clone()));
        let old = self.state.load();
        let links = table.remotes().map(|entry| (entry.at.clone(), self.link(&old, entry))).collect();
        let state = Arc::new(State { table, links });
        self.state.store(state.clone());
        stream::iter(actions).for_each_concurrent(AT_ONCE, |action| self.act(action)).await;
        let local = state.table.entries().filter(|entry| entry.service.is_none());
        stream::iter(local)
            .for_each_concurrent(AT_ONCE, |entry| self.tell(entry.object.clone(), Condition::local()))
            .await;
        Ok(())
    }

    fn link(&self, old: &State, entry: &table::Entry) -> Arc<Link> {
        let spec = entry.object.get("spec").cloned().unwrap_or_default();
        let reference = entry.service.clone().unwrap_or(Reference {
            namespace: String::new(),
            name: String::new(),
            port: 443,
        });
        let insecure = spec.flag(&["insecureSkipTLSVerify"]);
        let made_of = (reference.clone(), spec.text(&["caBundle"]).to_owned(), insecure);
        if let Some(known) = old.links.values().find(|link| link.made_of == made_of) {
            return known.clone();
        }
        let backend = Backend::new(self.registry.clone(), reference, &spec, self.front_proxy.as_ref());
        Arc::new(Link { made_of, backend })
    }

    /// What one visit needs; it runs beside this task.
    fn visitor(&self, state: &State, at: &GroupVersion) -> Option<visit::Visitor> {
        let entry = state.table.remote(at)?;
        Some(visit::Visitor {
            registry: self.registry.clone(),
            link: state.links.get(at)?.clone(),
            at: at.clone(),
            reference: entry.service.clone()?,
            before: self.documents.load().get(at).cloned(),
        })
    }

    fn learn(&self, at: GroupVersion, document: Arc<Document>) {
        let mut documents = HashMap::clone(&self.documents.load());
        documents.insert(at, document);
        self.documents.store(Arc::new(documents));
    }

    /// Forgets the documents of servers that are not registered any more.
    fn forget(&self, state: &State) {
        let known = self.documents.load();
        if known.keys().any(|at| !state.links.contains_key(at)) {
            let mut documents = HashMap::clone(&known);
            documents.retain(|at, _| state.links.contains_key(at));
            self.documents.store(Arc::new(documents));
        }
    }

    async fn act(&self, action: Action) {
        let target = |object: &Value| api_services().named("", object.name());
        let outcome = match action {
            Action::Create(object) => {
                self.registry.create(&target(&object), object, &options()).await.map(drop)
            }
            Action::Update(object) => {
                self.registry.update(&target(&object), object, &options()).await.map(drop)
            }
            Action::Delete(name, uid) => {
                let preconditions = Preconditions { uid: Some(uid), ..Preconditions::default() };
                let how = DeleteOptions { preconditions, ..DeleteOptions::default() };
                self.registry.delete(&api_services().named("", name), &how, &options()).await.map(drop)
            }
        };
        match outcome {
            // Somebody else was there first; the change comes by the watch.
            Err(error) if error.is_already_exists() || error.is_conflict() || error.is_not_found() => {}
            Err(error) => tracing::warn!(%error, "an APIService could not be registered"),
            Ok(()) => {}
        }
    }

    async fn tell(&self, object: Arc<Value>, condition: Condition) {
        visit::tell(&self.registry, &object, &condition).await;
    }
}

/// Takes what has come meanwhile: all of it is read at once.
fn drain(watch: &mut Stream) {
    while watch.try_next().is_some() {}
}

/// The object an item is about.
fn object_of(item: &WatchItem) -> Option<&Value> {
    match item {
        WatchItem::Event(seen) => Some(&seen.object.value),
        WatchItem::Bookmark { .. } | WatchItem::Failed(_) => None,
    }
}
