//! The audit log: what was asked, by whom, and how it ended, as much as the policy wants.
//!
//! Requests never wait for a back end: events go through a bounded queue to one task each. What finds
//! the queue full is lost, counted and said, never silently.

use std::sync::{Arc, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry as Collection;
use serde_json::{Value, json};
use skep_auth::audit::{Level, Policy, Stage, Verdict};
use skep_auth::authorization::Attributes;
use tokio::sync::mpsc;

pub use log::{LogOptions, write_log};
pub use webhook::{WebhookOptions, post};

pub(crate) use capture::{answered, asked};
pub(crate) use event::{Id, Record};

mod capture;
mod event;
mod log;
mod webhook;

/// No more events wait for a back end.
const WAITING: usize = 10_000;

/// Where events go to be written.
#[derive(Clone, Debug)]
struct Sink {
    name: &'static str,
    queue: mpsc::Sender<Arc<Value>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    plugin: &'static str,
}

/// Events on their way to a back end.
pub type Events = mpsc::Receiver<Arc<Value>>;

/// The policy and the back ends.
#[derive(Debug, Default)]
pub struct Auditor {
    policy: Policy,
    sinks: Vec<Sink>,
    written: Counter,
    lost: Family<Labels, Counter>,
}

impl Auditor {
    /// Writes down what the policy wants, to nowhere yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Adds a back end; it is fed as long as the receiver is there.
    pub fn sink(&mut self, name: &'static str) -> Events {
        let (queue, events) = mpsc::channel(WAITING);
        self.sinks.push(Sink { name, queue });
        events
    }

    fn judge(&self, attributes: &Attributes<'_>) -> Verdict {
        self.policy.judge(attributes)
    }

    /// Tells how many events there were, and how many were lost by back end.
    pub(crate) fn register(&self, collection: &mut Collection) {
        collection.register("apiserver_audit_event", "Audit events", self.written.clone());
        collection.register("apiserver_audit_error", "Audit events lost", self.lost.clone());
    }

    fn emit(&self, event: Value) {
        self.written.inc();
        let event = Arc::new(event);
        for sink in &self.sinks {
            if sink.queue.try_send(Arc::clone(&event)).is_err() {
                let lost = self.lost.get_or_create(&Labels { plugin: sink.name }).inc() + 1;
                // Once for each power of two: a flood must not become another.
                if lost.is_power_of_two() {
                    tracing::error!(lost, backend = sink.name, "audit events are lost");
                }
            }
        }
    }
}

/// The part of a record that grows while the request runs.
#[derive(Debug, Default)]
pub(crate) struct Grown {
    event: Value,
    verdict: Verdict,
}

impl Record {
    fn lock(&self) -> std::sync::MutexGuard<'_, Grown> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much is written down of this request.
    pub(crate) fn level(&self) -> Level {
        self.lock().verdict.level
    }

    /// Writes the event of a stage, unless the policy does not want it.
    pub(crate) fn stage(&self, stage: Stage) {
        let event = {
            let grown = self.lock();
            if grown.verdict.level == Level::None || grown.verdict.omit_stages.contains(&stage) {
                return;
            }
            let mut event = grown.event.clone();
            event["stage"] = stage.as_str().into();
            event["stageTimestamp"] = event::now().into();
            event
        };
        self.auditor.emit(event);
    }

    /// Adds an annotation; the first value of a key stays.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        let mut grown = self.lock();
        if !grown.event["annotations"].is_object() {
            grown.event["annotations"] = json!({});
        }
        if let Some(all) = grown.event["annotations"].as_object_mut() {
            all.entry(key.to_owned()).or_insert_with(|| value.into());
        }
    }

    /// Sets a part of the event.
    fn put(&self, field: &str, value: Value) {
        self.lock().event[field] = value;
    }
}
