//! Deletes finished Jobs some time after their end, when they ask for it.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Propagation, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::sources::Sources;
use crate::work::{Key, enqueue_self};

/// The controller.
pub(crate) struct Ttl {
    client: Client,
    jobs: Store<Job>,
    queue: WorkQueue<Key>,
}

impl Ttl {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.jobs, &queue);
        Self { client: client.clone(), jobs: sources.jobs.store(), queue }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("ttl-after-finished", &self.queue, 2, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        match left(&job, Timestamp::now()) {
            None => return Ok(Next::Wait),
            Some(left) if !left.is_zero() => return Ok(Next::After(left)),
            Some(_) => {}
        }
        // The time to live may have been raised since the store saw it.
        let api = self.client.namespaced::<Job>(&key.namespace);
        let Some(live) = api.get_opt(&key.name).await? else { return Ok(Next::Wait) };
        if left(&live, Timestamp::now()) != Some(Duration::ZERO) {
            return Ok(Next::Wait);
        }
        let params = DeleteParams::uid(live.metadata.uid.unwrap_or_default());
        match api.delete(&key.name, &params.propagation(Propagation::Foreground)).await {
            Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e),
            _ => Ok(Next::Wait),
        }
    }
}

/// How long the Job still lives; `None` while there is no end in sight. Pure.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let mut ends = conditions.iter().filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed"));
    let end = ends.find(|c| c.status == "True")?.last_transition_time.as_ref()?.0;
    let left = i64::from(ttl) - now.duration_since(end).as_secs();
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}
