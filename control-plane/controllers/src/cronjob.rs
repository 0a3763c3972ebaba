//! CronJobs: a Job at certain times.
//!
//! A start time has one Job whose name tells it, so that a controller that was stopped between making it
//! and writing that down does not make it twice.

mod plan;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use serde_json::json;
use skep_client::events::{EventType, Recorder};
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Patch, PatchParams, Propagation, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::expectations::Expectations;
use crate::owners;
use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};
use plan::Snapshot;

/// Annotation of a Job: when it was due.
const DUE: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// A store that does not show yet what was done here is looked at again after this.
const STALE: Duration = Duration::from_secs(1);

/// The controller.
pub(crate) struct CronJobs {
    client: Client,
    events: Recorder,
    crons: Store<CronJob>,
    jobs: Store<Job>,
    queue: WorkQueue<Key>,
    expectations: Expectations,
}

impl CronJobs {
    pub(crate) fn new(client: &Client, events: &Recorder, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.cron_jobs, &queue);
        enqueue_for(&mut sources.jobs, &queue, |job: &Arc<Job>| {
            owners::controller_key::<CronJob>(&job.metadata).into_iter().collect()
        });
        Self {
            client: client.clone(),
            events: events.clone(),
            crons: sources.cron_jobs.store(),
            jobs: sources.jobs.store(),
            queue,
            expectations: Expectations::default(),
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("cronjob", &self.queue, 3, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(cron) = self.crons.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        let uid = cron.metadata.uid.clone().unwrap_or_default();
        if !self.expectations.met(&uid, &self.jobs) {
            return Ok(Next::After(STALE));
        }
        let jobs = self.jobs.indexed(&crate::sources::by_owner(&uid));
        let zone = match cron.spec.time_zone.as_deref() {
            None => Ok(TimeZone::UTC),
            Some(name) => TimeZone::get(name).map_err(|e| e.to_string()),
        };
        let now = Timestamp::now();
        let snapshot = Snapshot { cron: &cron, jobs: &jobs, zone, now };
        let plan = plan::plan(&snapshot);
        for (kind, reason, message) in &plan.events {
            self.events.about(&*cron, *kind, reason, message);
        }
        for job in &plan.delete {
            self.delete(&cron, &uid, job).await?;
        }
        let mut status = plan.status;
        let result = match plan.start {
            Some(due) => self.start(&cron, &uid, due, &snapshot, &mut status).await,
            None => Ok(()),
        };
        if cron.status.clone().unwrap_or_default() != status {
            self.write(&cron, &key, &status).await?;
        }
        result?;
        Ok(plan.again.map_or(Next::Wait, Next::After))
    }

    async fn write(&self, cron: &CronJob, key: &Key, status: &CronJobStatus) -> Result<(), Error> {
        // Every field is told: what is left out of a merge stays as it was.
        let patch = Patch::Merge(json!({
            "metadata": {"uid": cron.metadata.uid},
            "status": {
                "active": status.active,
                "lastScheduleTime": status.last_schedule_time,
                "lastSuccessfulTime": status.last_successful_time,
            },
        }));
        let api = self.client.namespaced::<CronJob>(&key.namespace);
        match api.patch_status(&key.name, &patch, &PatchParams::default()).await {
            Err(e) if e.is_not_found() => Ok(()),
            result => result.map(drop),
        }
    }

    async fn start(
        &self,
        cron: &CronJob,
        uid: &str,
        due: Timestamp,
        snapshot: &Snapshot<'_>,
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        let zone = snapshot.zone.clone().unwrap_or(TimeZone::UTC);
        let job = new_job(cron, due, &zone);
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<Job>(cron.metadata.namespace.as_deref().unwrap_or_default());
        let made = match api.create(&job).await {
            Ok(made) => {
                self.expectations.created(uid, &made);
                self.events.about(
                    cron,
                    EventType::Normal,
                    "SuccessfulCreate",
                    &format!("Created job {name}"),
                );
                made
            }
            Err(e) if e.is_namespace_terminating() => return Ok(()),
            Err(e) if e.is_already_exists() => {
                let live = api.get(name).await?;
                if !owners::is_controlled_by(&live.metadata, uid) {
                    let message = format!("Error creating job: {e}");
                    self.events.about(cron, EventType::Warning, "FailedCreate", &message);
                    return Err(e);
                }
                live
            }
            Err(e) => {
                let message = format!("Error creating job: {e}");
                self.events.about(cron, EventType::Warning, "FailedCreate", &message);
                return Err(e);
            }
        };
        status.active.get_or_insert_default().push(plan::reference(&made));
        status.last_schedule_time = Some(Time(due));
        Ok(())
    }

    async fn delete(&self, cron: &CronJob, uid: &str, job: &Arc<Job>) -> Result<(), Error> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams::uid(job.metadata.uid.clone().unwrap_or_default());
        let api = self.client.namespaced::<Job>(cron.metadata.namespace.as_deref().unwrap_or_default());
        match api.delete(name, &params.propagation(Propagation::Background)).await {
            Err(e) if !e.is_not_found() => {
                let message = format!("Deleted job: {e}");
                self.events.about(cron, EventType::Warning, "FailedDelete", &message);
                Err(e)
            }
            _ => {
                self.expectations.deleted(uid, &**job);
                self.events.about(
                    cron,
                    EventType::Normal,
                    "SuccessfulDelete",
                    &format!("Deleted job {name}"),
                );
                Ok(())
            }
        }
    }
}

fn new_job(cron: &CronJob, due: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let offset = zone.to_offset(due);
    let due_text = if zone.iana_name().is_none_or(|name| name == "UTC") {
        due.to_string()
    } else {
        due.display_with_offset(offset).to_string()
    };
    annotations.insert(DUE.into(), due_text);
    Job {
        metadata: ObjectMeta {
            name: Some(plan::job_name(cron, due)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            finalizers: meta.finalizers,
            owner_references: Some(vec![owners::controller_ref(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
