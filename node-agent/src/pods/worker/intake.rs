//! What happens to a worker: jobs done, containers ended, probes' findings.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use skep_agent_core::{
    observed::{Attempt, Hindrance, Run},
    probe::{Kind, Verdict},
    view,
};
use skep_client::events::EventType;
use skep_runtime::{ContainerEvent, ContainerRecord, ContainerState, ExitRecord};
use tokio::{sync::broadcast::error::RecvError, task::JoinError};

use super::{
    super::{
        jobs::{self, Done, Failure},
        probing::{Finding, Probes},
        record,
    },
    Worker,
};

/// The pause before network or volumes are tried again grows to this.
const MAX_PREPARE_PAUSE: i64 = 30;

impl Worker {
    pub(super) fn done(&mut self, done: Result<(String, Done), JoinError>) {
        let (key, done) = match done {
            Ok(done) => done,
            Err(error) => {
                // A job that panicked must not hold its key for ever.
                tracing::error!(pod = self.pod.metadata.name, %error, "a job broke");
                self.under_way.clear();
                return;
            }
        };
        self.under_way.remove(&key);
        match done {
            Done::Volumes(Ok(places)) => {
                self.places = Some(places);
                self.seen.volumes = true;
            }
            Done::Network(Ok(network)) => {
                self.seen.network = Some(network.ips.clone());
                self.network = Some(network);
            }
            Done::Volumes(Err(message)) | Done::Network(Err(message)) => {
                let now = Timestamp::now();
                self.tries.failed(None, now);
                let pause = self.tries.pause().as_secs().clamp(1, MAX_PREPARE_PAUSE);
                let retry_at = now + SignedDuration::from_secs(pause);
                self.seen.hindrance =
                    Some(Hindrance { reason: "ContainerCreating".to_owned(), message, retry_at });
            }
            Done::Start { container, attempt, result } => self.started(&container, attempt, result),
            Done::Stop { container } => tracing::debug!(container, "stopped"),
            Done::CleanUp(Ok(())) => self.seen.cleaned = true,
            Done::CleanUp(Err(_)) | Done::Refreshed => {}
            Done::Finalize(Ok(())) => self.leave(),
            Done::Finalize(Err(error)) => {
                tracing::warn!(pod = self.pod.metadata.name, error, "cannot remove the object yet");
            }
        }
    }

    fn started(&mut self, name: &str, number: u32, result: Result<Attempt, Failure>) {
        let now = Timestamp::now();
        let (_, _, uid) = view::identity(&self.pod);
        let early = self.early.remove(&skep_runtime::container::container_id(uid, name, number)).flatten();
        let spec = view::container(&self.pod, name);
        let entry = self.seen.containers.entry(name.to_owned()).or_default();
        match result {
            Ok(attempt) => {
                entry.hindrance = None;
                entry.tries.reset();
                if let Some(before) = entry.attempt.take().filter(|before| before.number != attempt.number) {
                    entry.previous = Some(before);
                }
                if let Run::Exited(exit) = &attempt.run {
                    entry.backoff.failed(None, exit.finished_at);
                }
                entry.attempt = Some(attempt);
                entry.unhealthy = None;
                entry.started = spec.as_ref().is_none_or(|c| c.startup_probe.is_none());
                entry.ready = spec.as_ref().is_none_or(|c| c.readiness_probe.is_none());
                if let Some(exit) = early {
                    self.note_exit(name, number, &exit);
                }
            }
            Err(failure) => {
                entry.tries.failed(None, now);
                let image = failure.reason == "ErrImagePull";
                let pause = if image { entry.tries.patient_pause() } else { SignedDuration::from_secs(5) };
                // From the second failure on it is the waiting that is told.
                let again = entry.hindrance.is_some();
                let reason = if image && again { "ImagePullBackOff".to_owned() } else { failure.reason };
                let message = if image && again {
                    format!("Back-off pulling image: {}", failure.message)
                } else {
                    failure.message
                };
                entry.hindrance = Some(Hindrance { reason, message, retry_at: now + pause });
            }
        }
    }

    pub(super) async fn event(&mut self, event: Result<ContainerEvent, RecvError>) {
        match event {
            Ok(event) => self.ended(&event.id, event.exit).await,
            Err(RecvError::Closed) => std::future::pending().await,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "too many ends of containers at once; reading them again");
                match self.tools.runtime.containers().await {
                    Ok(records) => {
                        for record in records {
                            if let ContainerState::Exited(exit) = record.state {
                                self.ended(&record.id, exit).await;
                            }
                        }
                    }
                    Err(error) => tracing::warn!(%error, "cannot list containers"),
                }
            }
        }
    }

    async fn ended(&mut self, id: &str, exit: ExitRecord) {
        if let Some(early) = self.early.get_mut(id) {
            *early = Some(exit);
            return;
        }
        let found = self.seen.containers.iter().find_map(|(name, c)| {
            c.attempt
                .as_ref()
                .filter(|a| a.id == id && !matches!(a.run, Run::Exited(_)))
                .map(|a| (name.clone(), a.number))
        });
        if let Some((name, number)) = found {
            self.note_exit(&name, number, &exit);
            self.read_message(&name).await;
        }
    }

    /// Notes the end; the message follows by [`Self::read_message`].
    fn note_exit(&mut self, name: &str, number: u32, exit: &ExitRecord) {
        let Some(entry) = self.seen.containers.get_mut(name) else { return };
        let Some(attempt) = entry.attempt.as_mut().filter(|a| a.number == number) else { return };
        let reason = match (&exit.reason, exit.oom, exit.code) {
            (Some(reason), ..) => reason.clone(),
            (None, true, _) => "OOMKilled".to_owned(),
            (None, _, 0) => "Completed".to_owned(),
            (None, ..) => "Error".to_owned(),
        };
        self.tools.directory.ended(&attempt.id);
        entry.backoff.failed(exit.started_at, exit.finished_at);
        let message = exit.message.clone().unwrap_or_else(|| {
            let (_, _, uid) = view::identity(&self.pod);
            record::file_message(&self.tools.node.pod_folder(uid), name, number)
        });
        attempt.run = Run::Exited(skep_agent_core::observed::Exit {
            code: exit.code,
            started_at: exit.started_at,
            finished_at: exit.finished_at,
            reason,
            message,
        });
        entry.ready = false;
        entry.started = false;
        let again = view::spec(&self.pod).restart_policy.as_deref() != Some("Never");
        if entry.backoff.pause() > SignedDuration::ZERO
            && again
            && self.pod.metadata.deletion_timestamp.is_none()
        {
            let (namespace, pod, uid) = view::identity(&self.pod);
            let text = format!("Back-off restarting failed container {name} in pod {pod}_{namespace}({uid})");
            self.tools.recorder.about(&*self.pod, EventType::Warning, "BackOff", &text);
        }
        if let Some(probe) = self.probes.remove(name) {
            probe.abort();
        }
    }

    async fn read_message(&mut self, name: &str) {
        let (_, _, uid) = view::identity(&self.pod);
        let folder = self.tools.node.pod_folder(uid);
        let spec = view::container(&self.pod, name);
        let Some(attempt) = self.seen.containers.get_mut(name).and_then(|c| c.attempt.as_mut()) else {
            return;
        };
        let Run::Exited(exit) = &mut attempt.run else { return };
        if !exit.message.is_empty() {
            return;
        }
        let log = skep_runtime::logs::container_log(
            &skep_runtime::logs::pod_folder(
                &self.tools.node.log_dir,
                self.pod.metadata.namespace.as_deref().unwrap_or_default(),
                self.pod.metadata.name.as_deref().unwrap_or_default(),
                uid,
            ),
            name,
            attempt.number,
        );
        exit.message = record::message(spec.as_ref(), &folder, name, attempt.number, &log, exit.code).await;
    }

    pub(super) fn found(&mut self, finding: Finding) {
        let Finding { container: name, attempt, kind, failure, verdict } = finding;
        let Some(entry) = self.seen.containers.get_mut(&name) else { return };
        if !entry.is_running() || entry.attempt.as_ref().map(|a| a.number) != Some(attempt) {
            return;
        }
        if let Some(failure) = &failure {
            let text = format!("{kind} probe failed: {failure}");
            self.tools.recorder.about(&*self.pod, EventType::Warning, "Unhealthy", &text);
        }
        match (kind, verdict) {
            (Kind::Startup, Some(Verdict::Success)) => entry.started = true,
            (Kind::Startup, Some(Verdict::Failure)) => {
                entry.unhealthy = Some("failed startup probe".to_owned());
            }
            (Kind::Liveness, Some(Verdict::Failure)) => {
                entry.unhealthy = Some("failed liveness probe".to_owned());
            }
            (Kind::Readiness, Some(verdict)) => entry.ready = verdict == Verdict::Success,
            (Kind::Liveness, Some(Verdict::Success)) | (_, None) => {}
        }
    }

    /// Every running attempt with probes has a task for them.
    pub(super) fn supervise_probes(&mut self) {
        while self.probe_tasks.try_join_next().is_some() {}
        if !matches!(self.stage, super::Stage::Initializing | super::Stage::Running) {
            return;
        }
        let Some(around) = self.surroundings() else { return };
        let mut fresh = Vec::new();
        for (name, entry) in &self.seen.containers {
            let Some(Attempt { id, number, run: Run::Running(since), .. }) = &entry.attempt else { continue };
            if self.probes.contains_key(name) {
                continue;
            }
            let Some(spec) = view::container(&self.pod, name) else { continue };
            if spec.startup_probe.is_none() && spec.liveness_probe.is_none() && spec.readiness_probe.is_none()
            {
                continue;
            }
            fresh.push((
                name.clone(),
                Probes {
                    target: jobs::target(&self.tools, &spec, id, &around),
                    attempt: *number,
                    started_at: *since,
                    started: entry.started,
                },
            ));
        }
        for (name, probes) in fresh {
            let handle = self.probe_tasks.spawn(probes.run(self.findings.0.clone()));
            self.probes.insert(name, handle);
        }
    }

    pub(super) fn refresh(&mut self) {
        if !self.seen.volumes
            || self.under_way.contains("refresh")
            || self.pod.metadata.deletion_timestamp.is_some()
        {
            return;
        }
        let (tools, pod) = (self.tools.clone(), self.pod.clone());
        self.under_way.insert("refresh".to_owned());
        self.spawn("refresh".to_owned(), async move {
            let refreshed = tokio::time::timeout(Duration::from_secs(60), tools.volumes.refresh(&pod)).await;
            match refreshed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(pod = pod.metadata.name, %error, "volumes keep their old contents");
                }
                Err(_) => tracing::warn!(pod = pod.metadata.name, "refreshing the volumes takes too long"),
            }
            Done::Refreshed
        });
    }
}

/// Which of the runtime's records belong to a pod.
pub(in crate::pods) fn of_pod(records: &[ContainerRecord], uid: &str) -> Vec<ContainerRecord> {
    records.iter().filter(|r| r.pod.uid == uid).cloned().collect()
}
