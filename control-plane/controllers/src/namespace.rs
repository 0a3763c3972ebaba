//! Deletes what is in a namespace that is being deleted, pods first, then lets the namespace go.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use skep_api::resource::GroupVersionResource;
use skep_client::reconcile::Next;
use skep_client::{
    Client, DeleteParams, Error, ListParams, PartialObject, Patch, PatchParams, Propagation, Store, WorkQueue,
};
use tokio_util::sync::CancellationToken;

use crate::discovery::{self, Resource};
use crate::sources::Sources;
use crate::work::{Key, enqueue_self};

/// Our finalizer in `spec.finalizers`.
const FINALIZER: &str = "kubernetes";
/// How soon to look again while something remains.
const AGAIN: Duration = Duration::from_millis(700);

/// The controller.
pub(crate) struct Namespaces {
    client: Client,
    namespaces: Store<Namespace>,
    queue: WorkQueue<Key>,
}

/// What is left in a namespace, and what went wrong.
#[derive(Debug, Default)]
struct Remains {
    /// Objects by resource.
    objects: BTreeMap<String, usize>,
    /// Objects by finalizer.
    finalizers: BTreeMap<String, usize>,
    discovery: Vec<String>,
    content: Vec<String>,
}

impl Namespaces {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.namespaces, &queue);
        Self { client: client.clone(), namespaces: sources.namespaces.store(), queue }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("namespace", &self.queue, 10, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(namespace) = self.namespaces.get("", &key.name) else { return Ok(Next::Wait) };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(Next::Wait);
        }
        let finalizers = namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten());
        if !finalizers.into_iter().any(|f| f == FINALIZER) {
            return Ok(Next::Wait);
        }
        let remains = self.empty(&key.name).await?;
        self.tell(&namespace, &remains).await?;
        if !(remains.objects.is_empty() && remains.discovery.is_empty() && remains.content.is_empty()) {
            return Ok(Next::After(AGAIN));
        }
        // Read anew: another may have added a finalizer of its own.
        let api = self.client.all::<Namespace>();
        let Some(mut live) = api.get_opt(&key.name).await? else { return Ok(Next::Wait) };
        if live.metadata.uid != namespace.metadata.uid {
            return Ok(Next::Wait);
        }
        if let Some(finalizers) = live.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
            finalizers.retain(|f| f != FINALIZER);
        }
        match api.replace_subresource(&key.name, "finalize", &live).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(Next::Wait),
        }
    }

    /// Asks for the deletion of everything and counts what is still there.
    async fn empty(&self, namespace: &str) -> Result<Remains, Error> {
        let mut remains = Remains::default();
        let (mut resources, failed) = discovery::resources(&self.client).await?;
        remains.discovery = failed;
        resources.retain(|r| r.namespaced && r.can("list") && (r.can("delete") || r.can("deletecollection")));
        // Pods go before what they may need while they end: secrets, volumes, policies.
        let (pods, others): (Vec<_>, Vec<_>) =
            resources.into_iter().partition(|r| r.gvr.group.is_empty() && r.gvr.resource == "pods");
        for resource in &pods {
            self.empty_resource(namespace, resource, &mut remains).await;
        }
        if !remains.objects.is_empty() {
            return Ok(remains);
        }
        for resource in &others {
            self.empty_resource(namespace, resource, &mut remains).await;
        }
        Ok(remains)
    }

    async fn empty_resource(&self, namespace: &str, resource: &Resource, remains: &mut Remains) {
        let result = self.try_empty(namespace, resource, remains).await;
        if let Err(error) = result {
            remains.content.push(error.to_string());
        }
    }

    async fn try_empty(
        &self,
        namespace: &str,
        resource: &Resource,
        remains: &mut Remains,
    ) -> Result<(), Error> {
        let api = self.client.resource::<PartialObject>(resource.gvr.clone(), Some(namespace));
        let before = api.list(&ListParams::default()).await?;
        if before.items.is_empty() {
            return Ok(());
        }
        let params = DeleteParams::default().propagation(Propagation::Background);
        if resource.can("deletecollection") {
            api.delete_collection(&params, &ListParams::default()).await?;
        } else {
            for object in &before.items {
                match api.delete(object.metadata.name.as_deref().unwrap_or_default(), &params).await {
                    Err(e) if !e.is_not_found() => return Err(e),
                    _ => {}
                }
            }
        }
        let after = api.list(&ListParams::default()).await?;
        if after.items.is_empty() {
            return Ok(());
        }
        let name = format!("{}.{}", resource.gvr.resource, resource.gvr.group);
        remains.objects.insert(name, after.items.len());
        let mut kept = false;
        for finalizer in after.items.iter().flat_map(|o| o.metadata.finalizers.iter().flatten()) {
            *remains.finalizers.entry(finalizer.clone()).or_default() += 1;
            kept = true;
        }
        // What has time left, or finalizers, may still be there; everything else should be gone.
        let graceful = |o: &PartialObject| o.metadata.deletion_grace_period_seconds.is_some_and(|s| s > 0);
        if !kept && !after.items.iter().any(graceful) {
            let GroupVersionResource { group, version, resource } = &resource.gvr;
            remains.content.push(format!(
                "unexpected items still remain in namespace: {namespace} for gvr: {group}/{version}, Resource={resource}"
            ));
        }
        Ok(())
    }

    async fn tell(&self, namespace: &Namespace, remains: &Remains) -> Result<(), Error> {
        let before = namespace.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let after = conditions(&before, remains, Timestamp::now());
        let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
        if after == before && phase == Some("Terminating") {
            return Ok(());
        }
        let patch = Patch::Merge(json!({
            "metadata": {"uid": namespace.metadata.uid},
            "status": {"phase": "Terminating", "conditions": after},
        }));
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        match self.client.all::<Namespace>().patch_status(name, &patch, &PatchParams::default()).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }
}

/// The conditions that tell how the deletion gets on. Pure.
fn conditions(before: &[NamespaceCondition], remains: &Remains, now: Timestamp) -> Vec<NamespaceCondition> {
    let objects: Vec<String> = remains
        .objects
        .iter()
        .map(|(resource, n)| format!("{resource} has {n} resource instances"))
        .collect();
    let finalizers: Vec<String> =
        remains.finalizers.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let states = [
        (
            "NamespaceDeletionDiscoveryFailure",
            (!remains.discovery.is_empty()).then(|| {
                let message = format!(
                    "Discovery failed for some groups, {} failing: unable to retrieve the complete list of \
                     server APIs: {}",
                    remains.discovery.len(),
                    remains.discovery.join(", ")
                );
                ("DiscoveryFailed", message)
            }),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            (!remains.content.is_empty()).then(|| {
                let mut errors = remains.content.clone();
                errors.sort();
                let message = format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    errors.len(),
                    errors.join(", ")
                );
                ("ContentDeletionFailed", message)
            }),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            (!objects.is_empty()).then(|| {
                ("SomeResourcesRemain", format!("Some resources are remaining: {}", objects.join(", ")))
            }),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            (!finalizers.is_empty()).then(|| {
                let message = format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    finalizers.join(", ")
                );
                ("SomeFinalizersRemain", message)
            }),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    states
        .into_iter()
        .map(|(kind, problem, fine)| {
            let status = if problem.is_some() { "True" } else { "False" };
            let (reason, message) = problem.unwrap_or((fine.0, fine.1.to_owned()));
            let known = before.iter().find(|c| c.type_ == kind && c.status == status);
            let since = known.and_then(|c| c.last_transition_time.clone());
            NamespaceCondition {
                type_: kind.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_transition_time: Some(since.unwrap_or(Time(now))),
            }
        })
        .collect()
}

/// Whether new objects may be made in a namespace.
pub(crate) fn is_alive(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Terminating")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(remains: &Remains, before: &[NamespaceCondition]) -> Vec<NamespaceCondition> {
        conditions(before, remains, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn conditions_say_what_is_left_as_upstream_words_it() {
        let remains = Remains {
            objects: BTreeMap::from([("pods.".to_owned(), 2), ("things.example.com".to_owned(), 1)]),
            finalizers: BTreeMap::from([("example.com/keep".to_owned(), 1)]),
            discovery: vec![
                "metrics.k8s.io/v1beta1: the server is currently unable to handle the request".to_owned(),
            ],
            content: vec!["b".to_owned(), "a".to_owned()],
        };
        let conditions = told(&remains, &[]);
        let said: Vec<[&str; 4]> = conditions
            .iter()
            .map(|c| {
                let text =
                    |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned().leak() as &str;
                [c.type_.as_str(), c.status.as_str(), text(&c.reason), text(&c.message)]
            })
            .collect();
        assert_eq!(
            said,
            [
                [
                    "NamespaceDeletionDiscoveryFailure",
                    "True",
                    "DiscoveryFailed",
                    "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
                     metrics.k8s.io/v1beta1: the server is currently unable to handle the request",
                ],
                [
                    "NamespaceDeletionGroupVersionParsingFailure",
                    "False",
                    "ParsedGroupVersions",
                    "All legacy kube types successfully parsed",
                ],
                [
                    "NamespaceDeletionContentFailure",
                    "True",
                    "ContentDeletionFailed",
                    "Failed to delete all resource types, 2 remaining: a, b",
                ],
                [
                    "NamespaceContentRemaining",
                    "True",
                    "SomeResourcesRemain",
                    "Some resources are remaining: pods. has 2 resource instances, things.example.com has 1 resource instances",
                ],
                [
                    "NamespaceFinalizersRemaining",
                    "True",
                    "SomeFinalizersRemain",
                    "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances",
                ],
            ]
        );
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let before = told(&Remains::default(), &[]);
        assert!(before.iter().all(|c| c.status == "False"));
        let later = Timestamp::UNIX_EPOCH + Duration::from_secs(60);
        let remains = Remains { content: vec!["a".to_owned()], ..Remains::default() };
        let after = conditions(&before, &remains, later);
        let changed: Vec<&str> = after
            .iter()
            .filter(|c| c.last_transition_time == Some(Time(later)))
            .map(|c| c.type_.as_str())
            .collect();
        assert_eq!(changed, ["NamespaceDeletionContentFailure"]);
    }
}
