//! Events (core/v1) about objects. Writing is done by one task behind a bounded channel: an event is
//! a courtesy and never holds up or fails the work it tells of. The same event again becomes a count.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::error::Result;
use crate::kind::Kind;
use crate::params::{Patch, PatchParams};

/// Waiting events; more are dropped.
const QUEUE: usize = 1_000;
/// How long the same event is counted up rather than written anew.
const AGGREGATE_FOR: Duration = Duration::from_secs(600);
/// Different events remembered.
const REMEMBERED: usize = 4_096;
/// Events about one object in a row, then one per `REFILL`.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// The server's limit on a message.
const MAX_MESSAGE: usize = 1_024;

/// Normal or warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Things go as they should.
    Normal,
    /// Something is wrong.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

struct Told {
    object: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
}

/// Tells events. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Recorder {
    sender: mpsc::Sender<Told>,
}

impl Recorder {
    /// Starts the writing task. `component` is who reports (`default-scheduler`), `host` its node or "".
    pub fn spawn(
        client: Client,
        component: &str,
        host: &str,
        tracker: &TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Told>(QUEUE);
        let mut writer = Writer {
            client,
            component: component.to_owned(),
            host: host.to_owned(),
            known: HashMap::new(),
            budgets: HashMap::new(),
        };
        tracker.spawn(async move {
            // Cancel-safe: `recv` loses nothing; what is still queued at the end is dropped.
            while let Some(Some(told)) = cancel.run_until_cancelled(receiver.recv()).await {
                if let Err(error) = writer.write(&told).await {
                    tracing::debug!(reason = told.reason, %error, "cannot write an event");
                }
            }
        });
        Self { sender }
    }

    /// Tells an event about an object.
    pub fn event(&self, object: &ObjectReference, kind: EventType, reason: &str, message: &str) {
        let mut message = message.to_owned();
        if message.len() > MAX_MESSAGE {
            let mut end = MAX_MESSAGE;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
        let told = Told { object: object.clone(), kind, reason: reason.to_owned(), message };
        if self.sender.try_send(told).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait");
        }
    }

    /// Tells an event about a typed object.
    pub fn about<K: Kind>(&self, object: &K, kind: EventType, reason: &str, message: &str) {
        self.event(&reference(object), kind, reason, message);
    }
}

/// A reference to an object.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.into()),
        kind: Some(K::KIND.into()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    name: String,
    namespace: String,
    field: String,
    kind: EventType,
    reason: String,
    message: String,
}

struct Known {
    name: String,
    count: i32,
    at: Instant,
}

struct Writer {
    client: Client,
    component: String,
    host: String,
    known: HashMap<Key, Known>,
    budgets: HashMap<String, (f64, Instant)>,
}

impl Writer {
    async fn write(&mut self, told: &Told) -> Result<()> {
        let now = Instant::now();
        let object = &told.object;
        let namespace = object.namespace.clone().filter(|n| !n.is_empty()).unwrap_or("default".into());
        let key = Key {
            uid: object.uid.clone().unwrap_or_default(),
            name: object.name.clone().unwrap_or_default(),
            namespace: namespace.clone(),
            field: object.field_path.clone().unwrap_or_default(),
            kind: told.kind,
            reason: told.reason.clone(),
            message: told.message.clone(),
        };
        if !self.allow(&key, now) {
            return Ok(());
        }
        let api = self.client.namespaced::<Event>(&namespace);
        let time = Timestamp::now();
        if let Some(known) = self.known.get_mut(&key)
            && known.at.elapsed() < AGGREGATE_FOR
        {
            let count = known.count + 1;
            let patch = Patch::Merge(json!({"count": count, "lastTimestamp": Time(time)}));
            match api.patch(&known.name, &patch, &PatchParams::default()).await {
                Ok(_) => {
                    known.count = count;
                    known.at = now;
                    return Ok(());
                }
                // It expired on the server: write it anew.
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
        let name = format!("{}.{:x}", key.name, time.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: object.clone(),
            type_: Some(told.kind.as_str().into()),
            reason: Some(told.reason.clone()),
            message: Some(told.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(time)),
            last_timestamp: Some(Time(time)),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: (!self.host.is_empty()).then(|| self.host.clone()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        };
        match api.create(&event).await {
            Ok(_) => {}
            // The object's namespace is going or gone: nobody will read it.
            Err(e) if e.is_namespace_terminating() || e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        }
        if self.known.len() >= REMEMBERED {
            self.known.retain(|_, known| known.at.elapsed() < AGGREGATE_FOR);
            if self.known.len() >= REMEMBERED {
                self.known.clear();
            }
        }
        self.known.insert(key, Known { name, count: 1, at: now });
        Ok(())
    }

    /// A budget per object keeps one noisy object from flooding the server.
    fn allow(&mut self, key: &Key, now: Instant) -> bool {
        if self.budgets.len() >= REMEMBERED {
            self.budgets.retain(|_, (_, at)| at.elapsed() < REFILL);
            if self.budgets.len() >= REMEMBERED {
                self.budgets.clear();
            }
        }
        let id = if key.uid.is_empty() { format!("{}/{}", key.namespace, key.name) } else { key.uid.clone() };
        let (tokens, at) = self.budgets.entry(id).or_insert((BURST, now));
        *tokens = (*tokens + at.elapsed().as_secs_f64() / REFILL.as_secs_f64()).min(BURST);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }
}
