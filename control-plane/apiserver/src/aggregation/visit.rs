//! Visits to extension servers: when they are due, and what is done at one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use skep_api::object::ObjectExt;
use skep_api::user::UserInfo;
use skep_registry::Registry;
use skep_registry::cache::WatchItem;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::availability::{self, Condition};
use super::table::{Entry, GroupVersion, Reference, Table};
use super::{Link, api_services, backend, discovery, forward, object_of, options};

/// A server that is well is visited this often.
const EVERY: Duration = Duration::from_secs(30);

/// A server that failed is visited again after this, then twice as long, up to [`EVERY`].
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// A question takes no longer.
const ANSWER: Duration = Duration::from_secs(5);

/// How many endpoints may fail before the server counts as failing.
const ATTEMPTS: usize = 3;

/// The longest document.
const LONGEST: usize = 32 << 20;

/// What a server told of itself about one group-version.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// The version's entry in aggregated discovery, without its freshness.
    pub(super) discovery: Value,
    /// The last visit succeeded.
    pub(super) current: bool,
    /// The address of the OpenAPI v3 document, hash included.
    pub(super) openapi_v3: Option<String>,
    /// The OpenAPI v2 document of the whole server.
    pub(super) openapi_v2: Option<Arc<Value>>,
}

struct Visit {
    due: Instant,
    failures: u32,
    running: bool,
}

/// The visits that are due, and those under way.
#[derive(Default)]
pub(super) struct Visits {
    visits: HashMap<GroupVersion, Visit>,
    /// What each was made for: a change of it is a reason for a visit.
    specs: HashMap<GroupVersion, Value>,
    running: JoinSet<(GroupVersion, bool, Arc<Document>)>,
}

impl Visits {
    /// Keeps the visits to these servers, and visits those that are new or changed.
    pub(super) fn keep<'a>(&mut self, remotes: impl Iterator<Item = &'a Entry>) {
        let now = Instant::now();
        let mut specs = HashMap::new();
        for entry in remotes {
            let spec = entry.object.get("spec").cloned().unwrap_or_default();
            if self.specs.get(&entry.at) != Some(&spec) {
                let running = self.visits.get(&entry.at).is_some_and(|visit| visit.running);
                self.visits.insert(entry.at.clone(), Visit { due: now, failures: 0, running });
            }
            specs.insert(entry.at.clone(), spec);
        }
        self.visits.retain(|at, _| specs.contains_key(at));
        self.specs = specs;
    }

    /// A service or a slice changed: the servers behind it are visited.
    pub(super) fn touch(&mut self, table: &Table, item: &WatchItem, name: impl Fn(&Value) -> String) {
        let Some(object) = object_of(item) else { return };
        let (namespace, name) = (object.namespace(), name(object));
        let behind = |entry: &&Entry| {
            let service = entry.service.as_ref();
            service.is_some_and(|service| service.namespace == namespace && service.name == name)
        };
        for entry in table.remotes().filter(behind) {
            if let Some(visit) = self.visits.get_mut(&entry.at) {
                visit.due = Instant::now();
                visit.failures = 0;
            }
        }
    }

    /// Starts the visits that are due.
    pub(super) fn start(&mut self, visitor: impl Fn(&GroupVersion) -> Option<Visitor>) {
        let now = Instant::now();
        for (at, visit) in &mut self.visits {
            if visit.running || visit.due > now {
                continue;
            }
            // Until it is known how it ends; a change meanwhile makes it due earlier.
            visit.due = now + EVERY;
            if let Some(visitor) = visitor(at) {
                visit.running = true;
                self.running.spawn(visitor.run());
            }
        }
    }

    /// The next visit that has ended, with what was learned; `None` when another one has become due.
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Option<(GroupVersion, Arc<Document>)> {
        let due = self.visits.values().filter(|visit| !visit.running).map(|visit| visit.due).min();
        let due = due.unwrap_or_else(|| Instant::now() + EVERY);
        let (at, failed, document) = tokio::select! {
            Some(ended) = self.running.join_next() => ended.ok()?,
            () = tokio::time::sleep_until(due) => return None,
        };
        if let Some(visit) = self.visits.get_mut(&at) {
            visit.running = false;
            visit.failures = if failed { visit.failures + 1 } else { 0 };
            if failed {
                let wait = FIRST_RETRY * 2_u32.saturating_pow(visit.failures.min(12) - 1);
                visit.due = visit.due.min(Instant::now() + wait.min(EVERY));
            }
        }
        Some((at, document))
    }
}

/// What one visit needs.
pub(super) struct Visitor {
    pub(super) registry: Arc<Registry>,
    pub(super) link: Arc<Link>,
    pub(super) at: GroupVersion,
    pub(super) reference: Reference,
    pub(super) before: Option<Arc<Document>>,
}

/// An answer of a server.
pub(super) struct Told {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

impl Visitor {
    /// Looks, asks, writes the condition. Whether the server failed, and what it told.
    async fn run(self) -> (GroupVersion, bool, Arc<Document>) {
        let (condition, document) = self.look().await;
        let target = api_services().named("", self.at.service_name());
        if let Ok(object) = self.registry.get(&target, None).await {
            tell(&self.registry, &object.value, &condition).await;
        }
        (self.at.clone(), condition.is_failure(), Arc::new(document))
    }

    async fn look(&self) -> (Condition, Document) {
        let service = backend::service(&self.registry, &self.reference).await;
        let slices = backend::slices(&self.registry, &self.reference).await;
        let seen = availability::look(
            &self.reference,
            service.as_ref().map(|service| &*service.value),
            slices.iter().map(|slice| &*slice.value),
        );
        if let Err(condition) = seen {
            return (condition, self.stale());
        }
        match self.ask().await {
            Ok(document) => (Condition::asked(Ok(())), document),
            Err(text) => (Condition::asked(Err(text)), self.stale()),
        }
    }

    /// What was known before, marked as old.
    fn stale(&self) -> Document {
        match &self.before {
            Some(before) => Document {
                discovery: before.discovery.clone(),
                current: false,
                openapi_v3: before.openapi_v3.clone(),
                openapi_v2: before.openapi_v2.clone(),
            },
            None => Document { discovery: discovery::empty(&self.at.version), ..Document::default() },
        }
    }

    /// Asks the server for what it must serve; any endpoint of it will do.
    async fn ask(&self) -> Result<Document, String> {
        let path = self.at.path();
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let url = || match &self.link.backend {
                Ok(backend) => format!("https://{}{path}", backend.host()),
                Err(_) => path.clone(),
            };
            match self.get(&path, "application/json").await {
                Ok(told) if told.status.is_success() || told.status.is_redirection() => {
                    return Ok(self.document(&told).await);
                }
                Ok(told) => {
                    let (url, code) = (url(), told.status.as_u16());
                    last = format!("failing or missing response from {url}: bad status from {url}: {code}");
                }
                Err(error) => last = format!("failing or missing response from {}: {error}", url()),
            }
        }
        Err(last)
    }

    /// Everything else it tells of itself; what it does not have is left out.
    async fn document(&self, list: &Told) -> Document {
        let aggregated = self.get("/apis", discovery::ACCEPT).await.ok();
        let found = aggregated.and_then(|told| discovery::find(&told, &self.at));
        let legacy = || discovery::of_list(&self.at.version, &list.body);
        let index = self.get("/openapi/v3", "application/json").await.ok();
        let v2 = self.get("/openapi/v2", "application/json").await.ok().filter(|told| told.status == 200);
        Document {
            discovery: found.unwrap_or_else(legacy),
            current: true,
            openapi_v3: index.and_then(|told| {
                let index: Value = serde_json::from_slice(&told.body).ok()?;
                let path = self.at.path();
                let entry = index.get("paths")?.get(path.trim_start_matches('/'))?;
                Some(entry.text(&["serverRelativeURL"]).to_owned())
            }),
            openapi_v2: v2.and_then(|told| serde_json::from_slice(&told.body).ok()).map(Arc::new),
        }
    }

    async fn get(&self, path: &str, accept: &str) -> Result<Told, String> {
        let backend = self.link.backend.as_ref().map_err(ToString::to_string)?;
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().map_err(|_| format!("{path:?} is no path"))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, accept.parse().map_err(|_| "the Accept header is malformed".to_owned())?);
        // Of the masters, so that the server lets us look whatever its roles are.
        let user = UserInfo {
            name: "system:kube-aggregator".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..UserInfo::default()
        };
        forward::identify(headers, &user);
        let work = async {
            let response = backend.send(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(|error| error.to_string())?;
            let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            Ok(Told {
                status: parts.status,
                content_type: content_type.unwrap_or_default().to_owned(),
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(ANSWER, work).await.map_err(|_| "timed out".to_owned())?
    }
}

/// Writes the condition where it is new.
pub(super) async fn tell(registry: &Registry, object: &Value, condition: &Condition) {
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
    let Some(object) = condition.put(object, &now.to_string()) else { return };
    let target = api_services().named("", object.name()).below("status");
    match registry.update(&target, object, &options()).await {
        Err(error) if error.is_conflict() || error.is_not_found() => {}
        Err(error) => tracing::warn!(%error, "the condition of an APIService could not be written"),
        Ok(_) => {}
    }
}
