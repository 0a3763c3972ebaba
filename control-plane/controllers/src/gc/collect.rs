//! What to do about one object.

use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};
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
        let known = self.graph(|g| g.get(&owner.uid).cloned());
        if let Some(known) = known {
            let away = known.resource.namespaced && known.namespace != dependent.namespace;
            // A reference across namespaces leads nowhere.
            return Ok(match (away, known.foreground) {
                (true, _) => Owner::Gone,
                (false, true) => Owner::Waiting,
                (false, false) => Owner::Solid,
            });
        }
        let Some(resource) = self.resource_of(&owner.api_version, &owner.kind) else {
            // A kind we do not know may come (back): never delete for that.
            tracing::debug!(kind = owner.kind, api_version = owner.api_version, "owner of unknown kind");
            return Ok(Owner::Solid);
        };
        let namespace = resource.namespaced.then_some(dependent.namespace.as_str());
        if namespace == Some("") {
            return Ok(Owner::Solid);
        }
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
