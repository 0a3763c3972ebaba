//! What authentication and authorization want to know of the cluster, answered by the registry; and the
//! task that keeps the RBAC snapshot true.

use std::sync::Arc;

use async_trait::async_trait;
use skep_admission::{Access, Answer, Question};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_api::selector::{FieldSelector, LabelSelector};
use skep_api::user::UserInfo;
use skep_auth::authentication::bootstrap::Secrets;
use skep_auth::authorization::node::NodePods;
use skep_auth::authorization::rbac::{Objects, Rbac, Snapshot};
use skep_auth::authorization::{Attributes, Authorizer};
use skep_auth::tokens::{BoundObject, Lookup, Seen};
use skep_registry::cache::{Filter, WatchOptions};
use skep_registry::{Registry, Target};
use tokio_util::sync::CancellationToken;

/// Pause before a broken watch is opened again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

fn core(resource: &str) -> GroupVersionResource {
    GroupVersionResource::new("", "v1", resource)
}

/// The registry as authentication and authorization see it.
#[derive(Clone)]
pub struct ClusterLookup(pub Arc<Registry>);

#[async_trait]
impl Lookup for ClusterLookup {
    async fn seen(&self, kind: BoundObject, namespace: &str, name: &str) -> Result<Option<Seen>, String> {
        let resource = match kind {
            BoundObject::ServiceAccount => "serviceaccounts",
            BoundObject::Pod => "pods",
            BoundObject::Secret => "secrets",
            BoundObject::Node => "nodes",
        };
        match self.0.get(&Target::new(core(resource), namespace, name), None).await {
            Ok(object) => {
                let deleted = object.value.deletion_timestamp().and_then(|time| {
                    let time: jiff::Timestamp = time.parse().ok()?;
                    u64::try_from(time.as_second()).ok()
                });
                Ok(Some(Seen { uid: object.value.uid().to_owned(), deleted }))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.message),
        }
    }
}

#[async_trait]
impl Secrets for ClusterLookup {
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<serde_json::Value>>, String> {
        match self.0.get(&Target::new(core("secrets"), namespace, name), None).await {
            Ok(object) => Ok(Some(object.value.clone())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.message),
        }
    }
}

#[async_trait]
impl NodePods for ClusterLookup {
    async fn pods(&self, node: &str, namespace: &str) -> Result<Vec<Arc<serde_json::Value>>, String> {
        let filter = Filter {
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            fields: FieldSelector::equals("spec.nodeName", node),
            ..Filter::default()
        };
        let pods = self.0.list_all(&Target::new(core("pods"), "", ""), &filter).await;
        let pods = pods.map_err(|error| error.message)?;
        Ok(pods.iter().map(|pod| pod.value.clone()).collect())
    }
}

/// The authorizers as admission plug-ins see them.
pub struct AuthorizerAccess(pub Arc<dyn Authorizer>);

#[async_trait]
impl Access for AuthorizerAccess {
    async fn may(&self, user: &UserInfo, question: Question<'_>) -> Answer {
        let fields = FieldSelector::parse(question.fields).unwrap_or_default();
        let labels = LabelSelector::parse(question.labels).unwrap_or_default();
        let attributes = if question.resource.is_empty() {
            Attributes::for_path(user, question.verb, question.path)
        } else {
            Attributes {
                version: question.version,
                subresource: question.subresource,
                namespace: question.namespace,
                name: question.name,
                fields: fields.requirements(),
                labels: labels.requirements(),
                ..Attributes::for_resource(user, question.verb, question.group, question.resource)
            }
        };
        let decision = self.0.authorize(&attributes).await;
        Answer { allowed: decision.allowed(), reason: decision.reason().to_owned() }
    }
}

/// What RBAC is made of.
const RBAC: [&str; 4] = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"];

fn rbac(resource: &str) -> Target {
    Target::new(GroupVersionResource::new("rbac.authorization.k8s.io", "v1", resource), "", "")
}

/// Reads every role and binding into a snapshot.
pub async fn publish_rbac(registry: &Registry, rbac_authorizer: &Rbac) -> Result<(), ApiError> {
    let mut objects = Vec::new();
    for resource in RBAC {
        objects.extend(registry.list_all(&rbac(resource), &Filter::default()).await?);
    }
    let objects = Objects::from_values(objects.iter().map(|object| &*object.value));
    rbac_authorizer.publish(Snapshot::new(&objects));
    Ok(())
}

/// Publishes a new snapshot after each change of a role or binding, until cancelled.
pub async fn follow_rbac(registry: Arc<Registry>, authorizer: Arc<Rbac>, cancel: CancellationToken) {
    let work = async {
        loop {
            if let Err(error) = follow(&registry, &authorizer).await {
                tracing::warn!(%error, "roles and bindings can't be watched");
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = cancel.cancelled() => {}
    }
}

/// Follows until a watch ends. The watches begin before the first snapshot is read, so nothing between
/// is missed.
async fn follow(registry: &Registry, authorizer: &Rbac) -> Result<(), ApiError> {
    let options = WatchOptions { initial_events: Some(false), ..WatchOptions::default() };
    let [mut a, mut b, mut c, mut d] = [
        registry.watch(&rbac(RBAC[0]), &options).await?,
        registry.watch(&rbac(RBAC[1]), &options).await?,
        registry.watch(&rbac(RBAC[2]), &options).await?,
        registry.watch(&rbac(RBAC[3]), &options).await?,
    ];
    loop {
        publish_rbac(registry, authorizer).await?;
        // Cancel safe: each takes its item in one step.
        let item = tokio::select! {
            item = a.next() => item,
            item = b.next() => item,
            item = c.next() => item,
            item = d.next() => item,
        };
        if item.is_none() {
            return Ok(());
        }
        for watch in [&mut a, &mut b, &mut c, &mut d] {
            while watch.try_next().is_some() {}
        }
    }
}
