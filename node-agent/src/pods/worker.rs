//! One pod's worker: asks the state machine what to do, orders jobs, takes their results in.
//!
//! The worker itself never waits for anything slow: every wait is an arm of its one `select!`.

mod intake;

pub(super) use intake::of_pod;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use skep_agent_core::{
    observed::Observed,
    state::{Action, Outcome, Stage, Step, advance},
    status, view,
};
use skep_runtime::{ContainerRecord, ExitRecord};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    SharedTools,
    jobs::{self, Done},
    probing::Finding,
    record, report,
    request::Surroundings,
};

/// How often volumes made of API objects are brought up to date.
const REFRESH: Duration = Duration::from_secs(30);
/// Longest sleep; a look now and then costs nothing.
const LONGEST: Duration = Duration::from_secs(60);

/// The pod as the manager sees it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub pod: Arc<Pod>,
    /// It is no longer in the API: stop at once, nothing to finalize.
    pub vanished: bool,
}

/// The worker of one pod.
pub(super) struct Worker {
    tools: SharedTools,
    pod: Arc<Pod>,
    vanished: bool,
    stage: Stage,
    seen: Observed,
    network: Option<jobs::Network>,
    places: Option<BTreeMap<String, PathBuf>>,
    jobs: JoinSet<(String, Done)>,
    under_way: HashSet<String>,
    /// Ends of containers whose start job has not reported yet, by id; only ids being started are kept.
    early: HashMap<String, Option<ExitRecord>>,
    pulling: CancellationToken,
    probes: HashMap<String, AbortHandle>,
    probe_tasks: JoinSet<()>,
    findings: (mpsc::Sender<Finding>, mpsc::Receiver<Finding>),
    status: watch::Sender<Option<PodStatus>>,
    first_seen: Instant,
    told_start: bool,
    finalized: bool,
    tries: skep_agent_core::backoff::Backoff,
}

impl Worker {
    /// Takes over what the runtime has of the pod, and works until nothing is left of it.
    pub(super) async fn run(
        tools: SharedTools,
        mut wanted: watch::Receiver<Wanted>,
        records: Vec<ContainerRecord>,
        cancel: CancellationToken,
    ) {
        let first = wanted.borrow_and_update().clone();
        let mut events = tools.runtime.events();
        let status = watch::Sender::new(None);
        let reporter = report::run(tools.client.clone(), first.pod.clone(), status.subscribe());
        let mut worker = Self {
            stage: first_stage(&first.pod),
            pod: first.pod.clone(),
            vanished: false,
            seen: Observed::default(),
            network: None,
            places: None,
            jobs: JoinSet::new(),
            under_way: HashSet::new(),
            early: HashMap::new(),
            pulling: cancel.child_token(),
            probes: HashMap::new(),
            probe_tasks: JoinSet::new(),
            findings: mpsc::channel(64),
            status,
            first_seen: Instant::now(),
            told_start: !records.is_empty(),
            finalized: false,
            tries: skep_agent_core::backoff::Backoff::default(),
            tools,
        };
        worker.adopt(&records).await;
        worker.take(first);
        let work = async {
            let mut refresh = time::interval_at(Instant::now() + REFRESH, REFRESH);
            loop {
                let wake = worker.step();
                if worker.finalized {
                    return;
                }
                // Cancel-safe: channels and timers only; a lagging event receiver re-reads the runtime.
                tokio::select! {
                    changed = wanted.changed() => match changed {
                        Ok(()) => { let now = wanted.borrow_and_update().clone(); worker.take(now); }
                        Err(_) => return,
                    },
                    Some(done) = worker.jobs.join_next() => worker.done(done),
                    event = events.recv() => worker.event(event).await,
                    Some(finding) = worker.findings.1.recv() => worker.found(finding),
                    _ = refresh.tick() => worker.refresh(),
                    () = time::sleep_until(wake) => {}
                }
            }
        };
        // The reporter ends early only when the object is gone; work goes on then.
        let report = async {
            reporter.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
            () = report => {}
        }
    }

    async fn adopt(&mut self, records: &[ContainerRecord]) {
        let (_, _, uid) = view::identity(&self.pod);
        let folder = self.tools.node.pod_folder(uid);
        let names: HashSet<&str> = records.iter().map(|r| r.name.as_str()).collect();
        for name in names {
            let container = record::adopt(&self.pod, &folder, records, name).await;
            if container.is_running()
                && let Some(attempt) = &container.attempt
            {
                self.tools.directory.runs(&attempt.id);
            }
            self.seen.containers.insert(name.to_owned(), container);
        }
    }

    fn take(&mut self, wanted: Wanted) {
        self.vanished = wanted.vanished;
        let mut pod = wanted.pod;
        if wanted.vanished {
            let pod = Arc::make_mut(&mut pod);
            pod.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
            pod.metadata.deletion_grace_period_seconds = Some(0);
        } else {
            self.tools.directory.put(pod.clone());
        }
        self.pod = pod;
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.pulling.cancel();
        }
    }

    /// One round: advance, order what is new, publish the status. Until when to sleep.
    fn step(&mut self) -> Instant {
        let now = Timestamp::now();
        self.seen.starting = self.under_way.iter().any(|key| key.starts_with("start/"));
        let Step { stage, actions, wake_at } = advance(&self.pod, &self.stage, &self.seen, now);
        if stage != self.stage {
            tracing::debug!(pod = self.pod.metadata.name, from = ?self.stage, to = ?stage, "stage");
            if matches!(stage, Stage::Terminating { .. }) {
                self.pulling.cancel();
            }
            self.stage = stage;
        }
        self.publish(now);
        for action in actions {
            self.order(action);
        }
        self.supervise_probes();
        let sleep =
            wake_at.map_or(LONGEST, |at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        Instant::now() + sleep.clamp(Duration::from_millis(1), LONGEST)
    }

    fn publish(&mut self, now: Timestamp) {
        // An adopted pod's network is there, only not looked at yet: it must not seem lost for a moment.
        let unseen = self.told_start && self.seen.network.is_none() && self.seen.hindrance.is_none();
        if self.vanished || (unseen && matches!(self.stage, Stage::Preparing)) {
            return;
        }
        let status = status::compute(&self.pod, &self.stage, &self.seen, &self.tools.node.ips, now);
        // What is written becomes the base of the next: times must not change by recomputing them.
        if self.pod.status.as_ref() != Some(&status) {
            Arc::make_mut(&mut self.pod).status = Some(status.clone());
        }
        self.status.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&status);
            *last = Some(status);
            changed
        });
        let running = view::spec(&self.pod).containers.iter().all(|c| {
            self.seen.container(&c.name).is_some_and(skep_agent_core::observed::Container::is_running)
        });
        if running && !self.told_start {
            self.told_start = true;
            self.tools.metrics.pod_start.observe(self.first_seen.elapsed().as_secs_f64());
        }
    }

    fn surroundings(&self) -> Option<Surroundings> {
        let network = self.network.clone()?;
        Some(Surroundings {
            ips: network.ips,
            netns: network.netns,
            sandbox: Some(network.sandbox),
            files: network.files,
            places: self.places.clone()?,
        })
    }

    fn order(&mut self, action: Action) {
        let key = action.key();
        if self.under_way.contains(&key) {
            return;
        }
        let (tools, pod) = (self.tools.clone(), self.pod.clone());
        let (_, _, uid) = view::identity(&pod);
        let name = key.clone();
        match action {
            Action::PrepareVolumes => self.spawn(name, jobs::volumes(tools, pod)),
            Action::SetUpNetwork => self.spawn(name, jobs::network(tools, pod)),
            Action::Start { container, attempt } => {
                let (Some(around), Some(spec)) = (self.surroundings(), view::container(&pod, &container))
                else {
                    return;
                };
                self.early.insert(skep_runtime::container::container_id(uid, &container, attempt), None);
                let pulling = self.pulling.clone();
                self.spawn(name, jobs::start(tools, pod, spec, attempt, around, pulling));
            }
            Action::Stop { container, attempt, grace, why } => {
                let around = self.surroundings();
                self.spawn(name, jobs::stop(tools, pod, container, attempt, grace, why, around));
            }
            Action::CleanUp { .. } => {
                self.probes.clear();
                self.probe_tasks.abort_all();
                self.spawn(name, jobs::clean_up(tools, pod));
            }
            Action::Finalize => {
                if self.vanished {
                    self.leave();
                    return;
                }
                let status = self.status.borrow().clone();
                self.spawn(name, jobs::finalize(tools, pod, status));
            }
        }
        self.under_way.insert(key);
    }

    fn spawn(&mut self, key: String, job: impl Future<Output = Done> + Send + 'static) {
        self.jobs.spawn(async move { (key, job.await) });
    }

    fn leave(&mut self) {
        self.tools.directory.remove(&self.pod);
        self.finalized = true;
    }
}

/// A pod that was over before stays over, whatever is left of its containers.
fn first_stage(pod: &Pod) -> Stage {
    match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
        Some("Succeeded") => Stage::Finished { outcome: Outcome::Succeeded, verdict: None },
        Some("Failed") => Stage::Finished { outcome: Outcome::Failed, verdict: None },
        _ => Stage::Preparing,
    }
}
