//! `status.typeChecking` of ValidatingAdmissionPolicies: their expressions are checked against the schemas of
//! the kinds they are for, as the server publishes them, once for each generation.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use serde_json::{Value, json};
use skep_admission::policy::{MOST_KINDS, TypedKind, named_resources, parameter_kind, type_warnings};
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_cel::Schema;
use skep_client::reconcile::Next;
use skep_client::{Client, Error, Patch, PatchParams, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::discovery;
use crate::sources::Sources;
use crate::work::{Key, enqueue_self};

const MANAGER: &str = "validatingadmissionpolicy-status";

/// The controller.
pub(crate) struct PolicyTypes {
    client: Client,
    policies: Store<ValidatingAdmissionPolicy>,
    queue: WorkQueue<Key>,
}

/// The published schemas that one check needs, each document read once.
struct Documents<'c> {
    client: &'c Client,
    schemas: BTreeMap<(String, String), Option<Value>>,
}

impl Documents<'_> {
    /// The schema of a kind; `None` when none is published.
    async fn schema(&mut self, gvk: &GroupVersionKind) -> Result<Option<Arc<Schema>>, Error> {
        let schemas = match self.schemas.entry((gvk.group.clone(), gvk.version.clone())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(read(self.client, &gvk.group, &gvk.version).await?),
        };
        let schemas = schemas.as_ref().and_then(Value::as_object);
        let schema = schemas.and_then(|all| Schema::from_openapi(all, &gvk.group, &gvk.version, &gvk.kind));
        Ok(schema.map(Arc::new))
    }
}

/// The published schemas of a group and version; `None` when it publishes none.
async fn read(client: &Client, group: &str, version: &str) -> Result<Option<Value>, Error> {
    let at = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
    match client.get_path::<Value>(&format!("/openapi/v3/{at}")).await {
        Ok(mut document) => Ok(document.pointer_mut("/components/schemas").map(Value::take)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

impl PolicyTypes {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.policies, &queue);
        Self { client: client.clone(), policies: sources.policies.store(), queue }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run(MANAGER, &self.queue, 1, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(policy) = self.policies.get("", &key.name) else { return Ok(Next::Wait) };
        let generation = policy.metadata.generation.unwrap_or_default();
        let observed = policy.status.as_ref().and_then(|status| status.observed_generation);
        if generation <= observed.unwrap_or_default() {
            return Ok(Next::Wait);
        }
        let policy = serde_json::to_value(&*policy).map_err(Error::Encode)?;
        let warnings = self.check(&policy).await?;
        let checking = if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
        let status = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": key.name},
            "status": {"observedGeneration": generation, "typeChecking": checking},
        });
        let params = PatchParams::apply(MANAGER);
        let api = self.client.all::<ValidatingAdmissionPolicy>();
        match api.patch_status(&key.name, &Patch::Apply(status), &params).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::Wait),
        }
    }

    async fn check(&self, policy: &Value) -> Result<Vec<Value>, Error> {
        let mut gvks = BTreeSet::new();
        for resources in named_resources(policy) {
            gvks.extend(self.kinds(&resources).await?);
        }
        let mut documents = Documents { client: &self.client, schemas: BTreeMap::new() };
        let mut kinds = Vec::new();
        for gvk in gvks {
            // A kind that publishes no schema, or is not there yet, can't be checked.
            if let Some(schema) = documents.schema(&gvk).await? {
                kinds.push(TypedKind { gvk, schema });
            }
        }
        let params = match parameter_kind(policy) {
            Some(gvk) => documents.schema(&gvk).await?,
            None => None,
        };
        Ok(type_warnings(policy, &kinds, params.as_ref()))
    }

    /// The kinds of the resources of one rule that the server has.
    async fn kinds(&self, resources: &[GroupVersionResource]) -> Result<Vec<GroupVersionKind>, Error> {
        let mut found: Vec<GroupVersionKind> = Vec::new();
        let mut lists: BTreeMap<(&str, &str), Vec<(String, String)>> = BTreeMap::new();
        for gvr in resources {
            if found.len() == MOST_KINDS {
                break;
            }
            let list = match lists.entry((gvr.group.as_str(), gvr.version.as_str())) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    place.insert(discovery::kinds(&self.client, &gvr.group, &gvr.version).await?)
                }
            };
            let kind = list.iter().find(|(plural, _)| *plural == gvr.resource);
            found.extend(kind.map(|(_, kind)| GroupVersionKind::new(&*gvr.group, &*gvr.version, &**kind)));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use skep_api::user::UserInfo;
    use skep_apiserver::{ApiServer, Config};
    use skep_auth::authentication::Chain;
    use skep_auth::authorization::AlwaysAllow;
    use skep_registry::{Options, Registry};
    use skep_storage::embedded::{self, Embedded};
    use tokio_util::task::TaskTracker;

    use super::*;

    /// The status once it is of this generation.
    async fn checked(client: &Client, name: &str, generation: i64) -> Vec<(String, String)> {
        let api = client.all::<ValidatingAdmissionPolicy>();
        for _ in 0..1000 {
            let policy = api.get(name).await.expect("a policy");
            let status = policy.status.unwrap_or_default();
            if status.observed_generation == Some(generation) {
                let warnings = status.type_checking.and_then(|checking| checking.expression_warnings);
                let warnings = warnings.unwrap_or_default().into_iter();
                return warnings.map(|one| (one.field_ref, one.warning)).collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} is not checked");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn policies_are_checked_against_what_the_server_publishes() {
        let dir = tempfile::tempdir().expect("a folder");
        let storage = Embedded::open(dir.path().join("store.redb"), embedded::Options::default()).await;
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let registry =
            Registry::start(storage.expect("a store"), Options::default(), &tracker, cancel.clone()).await;
        let config =
            Config::new(registry.expect("a registry"), Chain::new(Vec::new(), true), Arc::new(AlwaysAllow));
        let api = ApiServer::build(config);
        let client = Client::in_process(api.router(), UserInfo::new("system:test", ["system:masters"]));
        let definition: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {"name": "hives.bees.example.com"},
            "spec": {"group": "bees.example.com", "scope": "Namespaced",
                "names": {"plural": "hives", "singular": "hive", "kind": "Hive", "listKind": "HiveList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": {"type": "object", "properties": {
                        "bees": {"type": "integer"},
                    }}},
                }}}]},
        }))
        .expect("a definition");
        client.all::<CustomResourceDefinition>().create(&definition).await.expect("defined");
        for _ in 0..500 {
            if client.get_path::<Value>("/openapi/v3/apis/bees.example.com/v1").await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut sources = Sources::new(&client);
        let controller = PolicyTypes::new(&client, &mut sources);
        sources.start(&tracker, &cancel).await;
        let stop = cancel.clone();
        tracker.spawn(async move { controller.run(&stop).await });

        let policy = |expression: &str| -> ValidatingAdmissionPolicy {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments", "deployments/scale"]},
                    {"apiGroups": ["bees.example.com"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["hives", "nothing"]},
                    {"apiGroups": ["no.example.com"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["x"]},
                ]},
                "validations": [{"expression": expression}],
            }}))
            .expect("a policy")
        };
        let policies = client.all::<ValidatingAdmissionPolicy>();
        policies.create(&policy("object.spec.replicas > 1")).await.expect("made");
        let warnings = checked(&client, "p", 1).await;
        let [(field, text)] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert_eq!(field, "spec.validations[0].expression");
        assert_eq!(
            text,
            "bees.example.com/v1, Kind=Hive: ERROR: <input>:1:12: undefined field 'replicas'\n \
             | object.spec.replicas > 1\n | ...........^\n"
        );
        let mut next = policy("object.metadata.labels.all(key, key != '') && has(object.spec)");
        next.metadata.resource_version = policies.get("p").await.expect("there").metadata.resource_version;
        policies.replace("p", &next).await.expect("replaced");
        assert_eq!(checked(&client, "p", 2).await, []);
        cancel.cancel();
    }
}
