//! The built-in plug-ins against a cluster in memory.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use skep_admission::plugins::resource_quota::Ledger;
use skep_admission::plugins::{Environment, Selection, chain};
use skep_admission::webhook::Metrics;
use skep_admission::{Attributes, LateAccess, Operation, Reader};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_api::user::UserInfo;

mod limits;
mod nodes;
mod pods;

/// Objects by resource.
#[derive(Default)]
pub(crate) struct Cluster(Vec<(&'static str, Arc<Value>)>);

impl Cluster {
    /// With the namespaces `team` and `ending`, and a default service account in `team`.
    pub(crate) fn new() -> Self {
        Self::default()
            .with("namespaces", json!({ "metadata": { "name": "team" } }))
            .with(
                "namespaces",
                json!({
                    "metadata": { "name": "ending", "deletionTimestamp": "2026-01-01T00:00:00Z" },
                }),
            )
            .with("serviceaccounts", json!({ "metadata": { "name": "default", "namespace": "team" } }))
    }

    pub(crate) fn with(mut self, resource: &'static str, object: Value) -> Self {
        self.0.push((resource, Arc::new(object)));
        self
    }

    fn all<'a>(
        &'a self,
        resource: &'a str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = Arc<Value>> + 'a {
        self.0
            .iter()
            .filter(move |(other, object)| {
                *other == resource && namespace.is_none_or(|namespace| object.namespace() == namespace)
            })
            .map(|(_, object)| Arc::clone(object))
    }

    /// Runs the standard chain over a request; gives the object as it would be stored.
    pub(crate) async fn run(self, mut attributes: Attributes) -> Result<Value, ApiError> {
        let cluster = Arc::new(self);
        let environment = Environment {
            reader: cluster.clone(),
            ledger: cluster,
            client: skep_webhook::Client::new(Arc::new(skep_webhook::NoServices)),
            access: Arc::new(LateAccess::default()),
            metrics: Metrics::default(),
            pod_security: skep_admission::plugins::pod_security::Config::default(),
        };
        let chain = chain(&environment, &Selection::default(), Vec::new());
        chain.admit(&mut attributes).await?;
        chain.validate(&attributes).await?;
        Ok(attributes.object.unwrap_or_default())
    }
}

#[async_trait]
impl Ledger for Cluster {
    async fn charge(&self, _quota: &Value) -> Result<bool, ApiError> {
        Ok(true)
    }
}

#[async_trait]
impl Reader for Cluster {
    async fn get(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Arc<Value>>, ApiError> {
        Ok(self.all(&gvr.resource, namespace).find(|object| object.name() == name))
    }

    async fn list(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        Ok(self.all(&gvr.resource, namespace).collect())
    }

    fn cached(&self, gvr: &GroupVersionResource) -> (Vec<Arc<Value>>, u64) {
        (self.all(&gvr.resource, None).collect(), 1)
    }

    fn version(&self, _gvr: &GroupVersionResource) -> u64 {
        1
    }
}

/// A request for an object of the core group, by jane, in `team`.
pub(crate) fn request(operation: Operation, resource: &str, object: Value) -> Attributes {
    let kind = if resource == "pods" { "Pod" } else { "Thing" };
    Attributes {
        operation,
        gvk: GroupVersionKind::new("", "v1", kind),
        gvr: GroupVersionResource::new("", "v1", resource),
        subresource: String::new(),
        namespace: "team".into(),
        name: object.name().to_owned(),
        object: Some(object),
        old_object: None,
        user: UserInfo::new("jane", ["people"]),
        ..Attributes::default()
    }
}

pub(crate) fn create(resource: &str, object: Value) -> Attributes {
    request(Operation::Create, resource, object)
}

pub(crate) fn pod() -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "team" },
        "spec": { "containers": [{ "name": "main", "image": "x" }] },
    })
}

pub(crate) fn message(outcome: Result<Value, ApiError>) -> String {
    let error = outcome.expect_err("is refused");
    assert_eq!(error.code, 403, "{error}");
    error.message
}
