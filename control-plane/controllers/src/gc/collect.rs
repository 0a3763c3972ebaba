//! What to do about one object.

use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use skep_client::events::EventType;
use skep_client::reconcile::Next;
use skep_client::{Api, DeleteParams, Error, PartialObject, Patch, PatchParams, Propagation};

use super::GarbageCollector;
use super::graph::{FOREGROUND, Graph, Known, ORPHAN};

/// What an owner reference leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It is there.
    Solid,
    /// It is being deleted in the foreground and waits for us.
    Waiting,
    /// It is gone.
    Gone,
    /// Nobody can say: its kind is not served, or the reference can't be right.
    Unknown,
}

impl GarbageCollector {
    fn graph<R>(&self, look: impl FnOnce(&Graph) -> R) -> R {
        look(&self.graph.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn api(&self, known: &Known) -> Api<PartialObject> {
        let namespace = known.resource.namespaced.then_some(known.namespace.as_str());
        self.client.resource(known.resource.gvr.clone(), namespace)
    }

    pub(super) async fn collect(&self, uid: String) -> Result<Next, Error> {
        if !self.is_synced() {
            // A graph with holes shows owners without dependents.
            return Ok(Next::After(Duration::from_millis(200)));
        }
        let Some(known) = self.graph(|g| g.get(&uid).cloned()) else { return Ok(Next::Wait) };
        let api = self.api(&known);
        let Some(live) = api.get_opt(&known.name).await? else { return Ok(Next::Wait) };
        let meta = live.metadata;
        if meta.uid.as_deref() != Some(&uid) {
            return Ok(Next::Wait);
        }
        if meta.deletion_timestamp.is_some() {
            let has = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
            if has(ORPHAN) {
                self.orphan_dependents(&uid).await?;
                remove_finalizer(&api, &meta, ORPHAN).await?;
            } else if has(FOREGROUND) {
                return self.finish_foreground(&api, &meta, &uid).await;
            }
            return Ok(Next::Wait);
        }
        self.judge(&api, &known, &meta, &uid).await
    }

    /// An object that is not being deleted: does it still have an owner?
    async fn judge(
        &self,
        api: &Api<PartialObject>,
        known: &Known,
        meta: &ObjectMeta,
        uid: &str,
    ) -> Result<Next, Error> {
        let owners = meta.owner_references.clone().unwrap_or_default();
        if owners.is_empty() {
            return Ok(Next::Wait);
        }
        let mut states = Vec::new();
        for owner in &owners {
            states.push(self.state(owner, known).await?);
        }
        if states.contains(&Owner::Unknown) {
            // Never delete for that: a kind may come (back).
            return Ok(Next::After(super::REFRESH));
        }
        if states.contains(&Owner::Solid) {
            if states.iter().any(|s| *s != Owner::Solid) {
                let kept: Vec<&OwnerReference> =
                    owners.iter().zip(&states).filter(|(_, s)| **s == Owner::Solid).map(|(o, _)| o).collect();
                write_owners(api, meta, &json!(kept)).await?;
            }
            return Ok(Next::Wait);
        }
        let has = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
        let dependents = self.graph(|g| g.dependents_of(uid));
        let propagation = if states.contains(&Owner::Waiting) && !dependents.is_empty() {
            // Two that wait for each other would wait for ever: ours stops blocking.
            let circle = self
                .graph(|g| dependents.iter().any(|d| g.get(d).is_some_and(|d| d.deleting && d.foreground)));
            if circle {
                let freed: Vec<OwnerReference> = owners
                    .into_iter()
                    .map(|o| OwnerReference { block_owner_deletion: Some(false), ..o })
                    .collect();
                write_owners(api, meta, &json!(freed)).await?;
                // The write changed the revision the deletion below would insist on.
                return Ok(Next::After(Duration::from_millis(10)));
            }
            Propagation::Foreground
        } else if has(ORPHAN) {
            Propagation::Orphan
        } else if has(FOREGROUND) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        let mut params = DeleteParams::uid(uid).propagation(propagation);
        if let Some(conditions) = &mut params.preconditions {
            // Owners may have been added since it was read.
            conditions.resource_version = meta.resource_version.clone();
        }
        tracing::debug!(resource = %known.resource.gvr, namespace = known.namespace, name = known.name, "collecting");
        match api.delete(&known.name, &params).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(Next::Wait),
        }
    }

    async fn state(&self, owner: &OwnerReference, dependent: &Known) -> Result<Owner, Error> {
        let Some(resource) = self.resource_of(&owner.api_version, &owner.kind) else {
            tracing::debug!(kind = owner.kind, api_version = owner.api_version, "owner of unknown kind");
            return Ok(Owner::Unknown);
        };
        if resource.namespaced && dependent.namespace.is_empty() {
            tracing::debug!(
                name = dependent.name,
                "a cluster-scoped object refers to an owner in a namespace"
            );
            return Ok(Owner::Unknown);
        }
        let known = self.graph(|g| g.get(&owner.uid).cloned());
        if let Some(known) = known {
            if known.resource.namespaced && known.namespace != dependent.namespace {
                // A reference across namespaces leads nowhere.
                self.tell_invalid(owner, dependent);
                return Ok(Owner::Gone);
            }
            let same = known.name == owner.name && known.resource.kind == owner.kind;
            if same && known.resource.gvr.group == resource.gvr.group {
                return Ok(if known.foreground { Owner::Waiting } else { Owner::Solid });
            }
        }
        let namespace = resource.namespaced.then_some(dependent.namespace.as_str());
        let api = self.client.resource::<PartialObject>(resource.gvr.clone(), namespace);
        Ok(match api.get_opt(&owner.name).await? {
            Some(live) if live.metadata.uid.as_deref() == Some(&owner.uid) => {
                let waits = live.metadata.deletion_timestamp.is_some()
                    && live.metadata.finalizers.iter().flatten().any(|f| f == FOREGROUND);
                if waits { Owner::Waiting } else { Owner::Solid }
            }
            _ => Owner::Gone,
        })
    }

    /// Tells of an owner reference that leads into another namespace.
    fn tell_invalid(&self, owner: &OwnerReference, dependent: &Known) {
        let gvr = &dependent.resource.gvr;
        let api_version =
            if gvr.group.is_empty() { gvr.version.clone() } else { format!("{}/{}", gvr.group, gvr.version) };
        let object = ObjectReference {
            api_version: Some(api_version),
            kind: Some(dependent.resource.kind.clone()),
            namespace: Some(dependent.namespace.clone()),
            name: Some(dependent.name.clone()),
            uid: Some(dependent.uid.clone()),
            ..ObjectReference::default()
        };
        let message = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
            owner.api_version, owner.kind, dependent.namespace, owner.name, owner.uid, dependent.namespace
        );
        self.recorder.event(&object, EventType::Warning, "OwnerRefInvalidNamespace", &message);
    }

    /// An owner deleted in the foreground: pushes its dependents, and goes when none blocks.
    async fn finish_foreground(
        &self,
        api: &Api<PartialObject>,
        meta: &ObjectMeta,
        uid: &str,
    ) -> Result<Next, Error> {
        let blocking = self.graph(|g| g.blocking(uid));
        if blocking.is_empty() {
            remove_finalizer(api, meta, FOREGROUND).await?;
            return Ok(Next::Wait);
        }
        let pushed = self.graph(|g| {
            blocking.into_iter().filter(|d| g.get(d).is_some_and(|d| !d.deleting)).collect::<Vec<_>>()
        });
        pushed.into_iter().for_each(|uid| self.queue.add(uid));
        Ok(Next::Wait)
    }

    /// Takes the reference to a leaving owner out of all its dependents.
    async fn orphan_dependents(&self, uid: &str) -> Result<(), Error> {
        for dependent in self.graph(|g| g.dependents_of(uid)) {
            let Some(known) = self.graph(|g| g.get(&dependent).cloned()) else { continue };
            let api = self.api(&known);
            let Some(live) = api.get_opt(&known.name).await? else { continue };
            let meta = live.metadata;
            let mut owners = meta.owner_references.clone().unwrap_or_default();
            let before = owners.len();
            owners.retain(|o| o.uid != uid);
            if owners.len() != before && meta.uid.as_deref() == Some(&dependent) {
                write_owners(&api, &meta, &json!(owners)).await?;
            }
        }
        Ok(())
    }
}

async fn write_owners(api: &Api<PartialObject>, meta: &ObjectMeta, owners: &Value) -> Result<(), Error> {
    let owners = if owners.as_array().is_some_and(Vec::is_empty) { &Value::Null } else { owners };
    write(api, meta, &json!({"ownerReferences": owners})).await
}

async fn remove_finalizer(api: &Api<PartialObject>, meta: &ObjectMeta, finalizer: &str) -> Result<(), Error> {
    let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
    let left = if left.is_empty() { Value::Null } else { json!(left) };
    write(api, meta, &json!({"finalizers": left})).await
}

async fn write(api: &Api<PartialObject>, meta: &ObjectMeta, change: &Value) -> Result<(), Error> {
    let mut metadata = change.clone();
    metadata["uid"] = json!(meta.uid);
    metadata["resourceVersion"] = json!(meta.resource_version);
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let name = meta.name.as_deref().unwrap_or_default();
    match api.patch(name, &patch, &PatchParams::default()).await {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    }
}
