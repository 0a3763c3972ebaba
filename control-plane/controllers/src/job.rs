//! Jobs: pods until enough of them have succeeded, or too many have failed.
//!
//! A finished pod is counted exactly once: its uid goes into `uncountedTerminatedPods`, then its
//! finalizer goes, then it moves from there into the counters. A crash between any two leaves enough to
//! go on from.

mod indexes;
mod plan;

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::selector::LabelSelector;
use skep_client::events::{EventType, Recorder};
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Patch, PatchParams, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::expectations::Expectations;
use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};
use crate::{owners, pods};
use plan::{Plan, Snapshot, Start, by_index};

/// Keeps a pod until it is counted.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const WORKERS: usize = 5;

/// The controller.
pub(crate) struct Jobs {
    client: Client,
    events: Recorder,
    jobs: Store<Job>,
    pods: Store<Pod>,
    queue: WorkQueue<Key>,
    expectations: Expectations,
}

impl Jobs {
    pub(crate) fn new(client: &Client, events: &Recorder, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.jobs, &queue);
        let known = sources.jobs.store();
        enqueue_for(&mut sources.pods, &queue, move |pod: &Arc<Pod>| {
            owners::claimants(&pod.metadata, &known, |job| selects(job, pod))
        });
        Self {
            client: client.clone(),
            events: events.clone(),
            jobs: sources.jobs.store(),
            pods: sources.pods.store(),
            queue,
            expectations: Expectations::default(),
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        let orphans = self.free_orphans(cancel);
        let work = skep_client::reconcile::run("job", &self.queue, WORKERS, cancel, |key| self.sync(key));
        futures::join!(orphans, work);
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let settled = self.expectations.met(&uid, &self.pods);
        let mut mine = Vec::new();
        let api = self.client.namespaced::<Pod>(&key.namespace);
        for pod in self.pods.indexed(&pods::by_owner(&uid)) {
            if selects(&job, &pod) {
                mine.push(pod);
            } else if job.metadata.deletion_timestamp.is_none() {
                self.let_go(&pod, &uid).await?;
            }
        }
        if job.metadata.deletion_timestamp.is_none() {
            let jobs = self.client.namespaced::<Job>(&key.namespace);
            let owner = owners::controller_ref(&*job);
            for pod in self.pods.indexed(&pods::by_orphanage(&key.namespace)) {
                if selects(&job, &pod) && pods::is_active(&pod) {
                    owners::adopt(&jobs, &owner, &api, &pod.metadata).await?;
                }
            }
        }
        let plan = plan::plan(&Snapshot { job: &job, pods: &mine, settled, now: Timestamp::now() });
        self.apply(&job, &key, &uid, plan).await
    }

    async fn apply(&self, job: &Job, key: &Key, uid: &str, plan: Plan) -> Result<Next, Error> {
        let api = self.client.namespaced::<Pod>(&key.namespace);
        let deleted = join_all(plan.delete.iter().map(|pod| async {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            // What we end ourselves is no failure: it is not counted.
            self.untrack(pod).await?;
            let params = DeleteParams::uid(pod.metadata.uid.clone().unwrap_or_default());
            match api.delete(name, &params).await {
                Err(e) if !e.is_not_found() => Err(e),
                _ => {
                    self.expectations.deleted(uid, &**pod);
                    let message = format!("Deleted pod: {name}");
                    self.events.about(job, EventType::Normal, "SuccessfulDelete", &message);
                    Ok(())
                }
            }
        }))
        .await;
        deleted.into_iter().collect::<Result<(), Error>>()?;
        let mut missing = 0;
        let mut failure = None;
        let created = join_all(plan.create.iter().map(|start| self.start(job, *start))).await;
        for error in created.into_iter().filter_map(Result::err) {
            missing += 1;
            failure.get_or_insert(error);
        }
        if let Some(mut status) = plan.status {
            // Those that could not be made are not there.
            if let Some(active) = status["active"].as_i64() {
                status["active"] = json!(active - missing);
            }
            // The revision guards the counters: a stale Job would lose or repeat some.
            let revision = &job.metadata.resource_version;
            let patch = Patch::Merge(
                json!({"metadata": {"uid": uid, "resourceVersion": revision}, "status": status}),
            );
            let jobs = self.client.namespaced::<Job>(&key.namespace);
            match jobs.patch_status(&key.name, &patch, &PatchParams::default()).await {
                Err(e) if e.is_not_found() => return Ok(Next::Wait),
                result => drop(result?),
            }
            if let Some((kind, reason, message)) = &plan.event {
                self.events.about(job, *kind, reason, message);
            }
        }
        // Only now that their uids are written down.
        let freed = join_all(plan.untrack.iter().map(|pod| self.untrack(pod))).await;
        freed.into_iter().collect::<Result<(), Error>>()?;
        match failure {
            Some(error) => Err(error),
            None => Ok(plan.again.map_or(Next::Wait, Next::After)),
        }
    }

    async fn start(&self, job: &Job, start: Start) -> Result<(), Error> {
        let pod = new_pod(job, start);
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<Pod>(job.metadata.namespace.as_deref().unwrap_or_default());
        match api.create(&pod).await {
            Ok(pod) => {
                self.expectations.created(uid, &pod);
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                self.events.about(
                    job,
                    EventType::Normal,
                    "SuccessfulCreate",
                    &format!("Created pod: {name}"),
                );
                Ok(())
            }
            Err(e) if e.is_namespace_terminating() => Ok(()),
            Err(e) => {
                self.events.about(job, EventType::Warning, "FailedCreate", &format!("Error creating: {e}"));
                Err(e)
            }
        }
    }

    async fn untrack(&self, pod: &Pod) -> Result<(), Error> {
        let left: Vec<&String> =
            pod.metadata.finalizers.iter().flatten().filter(|f| *f != TRACKING).collect();
        let left = if left.is_empty() { Value::Null } else { json!(left) };
        let patch = Patch::Merge(json!({"metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "finalizers": left,
        }}));
        let api = self.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
        match api
            .patch(pod.metadata.name.as_deref().unwrap_or_default(), &patch, &PatchParams::default())
            .await
        {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// A pod that no longer matches goes its own way, untracked.
    async fn let_go(&self, pod: &Pod, uid: &str) -> Result<(), Error> {
        let api = self.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
        let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
        owners.retain(|o| o.uid != uid);
        let left: Vec<&String> =
            pod.metadata.finalizers.iter().flatten().filter(|f| *f != TRACKING).collect();
        let patch = Patch::Merge(json!({"metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "ownerReferences": owners,
            "finalizers": left,
        }}));
        match api
            .patch(pod.metadata.name.as_deref().unwrap_or_default(), &patch, &PatchParams::default())
            .await
        {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// Pods whose Job is gone keep nobody waiting.
    async fn free_orphans(&self, cancel: &CancellationToken) {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(5));
        // Cancel-safe: a tick not taken comes again.
        while cancel.run_until_cancelled(tick.tick()).await.is_some() {
            for pod in self.pods.list() {
                let tracked = pod.metadata.finalizers.iter().flatten().any(|f| f == TRACKING);
                if !tracked {
                    continue;
                }
                let key = owners::controller_key::<Job>(&pod.metadata);
                let job = key.and_then(|k| self.jobs.get(&k.namespace, &k.name));
                let owned = job.is_some_and(|j| {
                    owners::is_controlled_by(&pod.metadata, j.metadata.uid.as_deref().unwrap_or_default())
                        && j.metadata.deletion_timestamp.is_none()
                });
                // A young pod may be known before its Job.
                let leaving = pod.metadata.deletion_timestamp.is_some();
                if !owned
                    && leaving
                    && let Err(error) = self.untrack(&pod).await
                {
                    tracing::debug!(pod = pod.metadata.name, %error, "cannot untrack a pod");
                }
            }
        }
    }
}

fn selects(job: &Job, pod: &Pod) -> bool {
    let selector = job.spec.as_ref().and_then(|s| s.selector.as_ref());
    LabelSelector::from_typed(selector)
        .is_ok_and(|s| !s.is_empty() && s.matches_map(pod.metadata.labels.as_ref()))
}

/// Whether the pods of a Job have numbers.
fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.completion_mode.as_deref()) == Some("Indexed")
}

/// The number of a pod.
fn index_of(pod: &Pod) -> Option<u32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

fn new_pod(job: &Job, Start { index, failures }: Start) -> Pod {
    let template = job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let prefix = index.map_or_else(|| name.to_owned(), |i| format!("{name}-{i}"));
    let mut pod = pods::from_template(&template, namespace, &prefix, owners::controller_ref(job));
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING.into());
    if let Some(failures) = failures {
        by_index::note(&mut pod, failures);
    }
    let Some(index) = index else { return pod };
    let number = index.to_string();
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.into(), number.clone());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), number.clone());
    if let Some(spec) = &mut pod.spec {
        spec.hostname.get_or_insert(prefix);
        let variable = EnvVar {
            name: "JOB_COMPLETION_INDEX".into(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    field_path: format!("metadata.labels['{INDEX}']"),
                    ..ObjectFieldSelector::default()
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        };
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let env = container.env.get_or_insert_default();
            if !env.iter().any(|e| e.name == variable.name) {
                env.push(variable.clone());
            }
        }
    }
    pod
}
