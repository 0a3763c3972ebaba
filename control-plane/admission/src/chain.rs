//! What plug-ins see, what they are, and the chain that runs them.

use std::sync::Arc;

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_api::user::UserInfo;
use tokio::time::Instant;

use crate::matching::Match;
use crate::metrics::Metrics;
use crate::{Notes, Reinvocation};

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Operation {
    /// An object is made.
    #[default]
    Create,
    /// An object, or a subresource of it, is changed.
    Update,
    /// An object is deleted.
    Delete,
    /// A connection to a subresource: exec, proxy, ...
    Connect,
}

impl Operation {
    /// The API's word: `CREATE`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A request under admission.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// What is being done.
    pub operation: Operation,
    /// The kind of `object`.
    pub gvk: GroupVersionKind,
    /// The resource asked for.
    pub gvr: GroupVersionResource,
    /// The subresource, empty for none.
    pub subresource: String,
    /// The namespace, empty for cluster scope.
    pub namespace: String,
    /// The name; empty on create with `generateName`.
    pub name: String,
    /// The new object; `None` on delete.
    pub object: Option<Value>,
    /// The object as it is; `None` on create.
    pub old_object: Option<Value>,
    /// Who asks.
    pub user: UserInfo,
    /// Nothing will be kept.
    pub dry_run: bool,
    /// The options of the request: `CreateOptions`, `UpdateOptions`, `DeleteOptions`, or null.
    pub options: Value,
    /// Where warnings and audit annotations go.
    pub notes: Notes,
    /// How far mutation has come.
    pub reinvocation: Reinvocation,
}

impl Attributes {
    /// Is it about this resource of this group, without a subresource.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.gvr.group == group && self.gvr.resource == resource
    }
}

/// How plug-ins read the cluster.
#[async_trait]
pub trait Reader: Send + Sync + 'static {
    /// One object; `None` when it is not there.
    async fn get(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Arc<Value>>, ApiError>;

    /// The objects of a namespace, or all.
    async fn list(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
    ) -> Result<Vec<Arc<Value>>, ApiError>;

    /// An object that somebody else than the client changed, as it would be decoded: types are checked,
    /// unknown fields dropped, defaults filled in.
    async fn settle(
        &self,
        gvr: &GroupVersionResource,
        gvk: &GroupVersionKind,
        object: Value,
    ) -> Result<Value, ApiError> {
        let _ = (gvr, gvk);
        Ok(object)
    }

    /// Do the objects of a resource lie in namespaces.
    fn is_namespaced(&self, gvr: &GroupVersionResource) -> bool {
        let _ = gvr;
        false
    }

    /// The structural schema of a kind that is not built in.
    fn structural(&self, gvk: &GroupVersionKind) -> Option<Arc<Value>> {
        let _ = gvk;
        None
    }

    /// The resource whose objects are of a kind.
    fn resource_of(&self, gvk: &GroupVersionKind) -> Option<GroupVersionResource> {
        let _ = gvk;
        None
    }

    /// The other groups and versions under which the same objects are served.
    fn equivalents(&self, gvr: &GroupVersionResource, subresource: &str) -> Vec<Match> {
        let _ = (gvr, subresource);
        Vec::new()
    }

    /// An object in another of the versions it is served in.
    async fn convert(&self, object: &Value, to: &GroupVersionKind) -> Result<Value, ApiError> {
        if object.gvk() == *to {
            return Ok(object.clone());
        }
        Err(ApiError::internal(format!("unable to convert to {}, Kind={}", to.api_version(), to.kind)))
    }

    /// All objects of a resource as they are known here now, and a number that changes with them: what
    /// is computed from them may be kept while it stays the same. Does not wait for the store. A reader
    /// without a cache knows of none.
    fn cached(&self, gvr: &GroupVersionResource) -> (Vec<Arc<Value>>, u64) {
        let _ = gvr;
        (Vec::new(), 0)
    }

    /// The number of [`Reader::cached`] alone.
    fn version(&self, gvr: &GroupVersionResource) -> u64 {
        let _ = gvr;
        0
    }
}

/// One admission plug-in.
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    /// Its name, as `--enable-admission-plugins` spells it.
    fn name(&self) -> &'static str;

    /// Does it care about such requests.
    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool;

    /// May change the object, or refuse.
    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let _ = attributes;
        Ok(())
    }

    /// May refuse; sees the object as it will be stored.
    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let _ = attributes;
        Ok(())
    }

    /// Adds what it counts to a collection of metrics.
    fn metrics(&self, collection: &mut Registry) {
        let _ = collection;
    }
}

/// Plug-ins in order.
#[derive(Default)]
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    metrics: Metrics,
}

impl Chain {
    /// A chain of these, in this order.
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self { plugins, metrics: Metrics::default() }
    }

    /// The names of its plug-ins.
    pub fn names(&self) -> Vec<&'static str> {
        self.plugins.iter().map(|plugin| plugin.name()).collect()
    }

    /// Would any plug-in look at such a request: lets the caller skip building attributes.
    pub fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.handles(operation, gvr, subresource))
    }

    /// Adds what the chain and its plug-ins count to a collection of metrics.
    pub fn metrics(&self, collection: &mut Registry) {
        self.metrics.register(collection);
        for plugin in &self.plugins {
            plugin.metrics(collection);
        }
    }

    /// Lets every plug-in change the object, in a second round when a later one changed what an earlier
    /// one wants to see.
    pub async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        self.admit_once(attributes).await?;
        if attributes.reinvocation.again() {
            self.admit_once(attributes).await?;
        }
        Ok(())
    }

    async fn admit_once(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        for plugin in self.concerned(attributes) {
            let start = Instant::now();
            let outcome = plugin.admit(attributes).await;
            self.metrics.ran(plugin.name(), "admit", attributes.operation, outcome.is_err(), start.elapsed());
            outcome?;
        }
        Ok(())
    }

    /// Lets every plug-in refuse the object.
    pub async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        for plugin in self.concerned(attributes) {
            let start = Instant::now();
            let outcome = plugin.validate(attributes).await;
            let refused = outcome.is_err();
            self.metrics.ran(plugin.name(), "validate", attributes.operation, refused, start.elapsed());
            outcome?;
        }
        Ok(())
    }

    /// The plug-ins that care about a request.
    fn concerned(&self, attributes: &Attributes) -> impl Iterator<Item = &dyn Plugin> + use<'_> {
        let (operation, gvr) = (attributes.operation, attributes.gvr.clone());
        let subresource = attributes.subresource.clone();
        let all = self.plugins.iter().map(|plugin| &**plugin);
        all.filter(move |plugin| plugin.handles(operation, &gvr, &subresource))
    }
}
