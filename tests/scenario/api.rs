//! The least API server that informers and event recorders are content with.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use skep_api::user::UserInfo;
use skep_client::Client;
use tokio::sync::{mpsc, watch};

#[derive(Debug, Default)]
struct Objects {
    /// By resource and name.
    now: BTreeMap<(String, String), Value>,
    /// Every change: revision, resource, kind, object.
    log: Vec<(u64, String, &'static str, Value)>,
}

/// The server.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    objects: Arc<Mutex<Objects>>,
    revision: watch::Sender<u64>,
}

impl Api {
    pub(crate) fn new() -> Self {
        Self { objects: Arc::default(), revision: watch::Sender::new(1) }
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let router = Router::new().fallback(answer).with_state(self.clone());
        Client::in_process(router, UserInfo::default())
    }

    pub(crate) fn put(&self, resource: &str, name: &str, mut object: Value) {
        let mut objects = self.objects();
        let revision = *self.revision.borrow() + 1;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let before = objects.now.insert((resource.to_owned(), name.to_owned()), object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        objects.log.push((revision, resource.to_owned(), kind, object));
        self.revision.send_replace(revision);
    }

    pub(crate) fn get(&self, resource: &str, name: &str) -> Option<Value> {
        self.objects().now.get(&(resource.to_owned(), name.to_owned())).cloned()
    }

    pub(crate) fn delete(&self, resource: &str, name: &str) {
        let mut objects = self.objects();
        let revision = *self.revision.borrow() + 1;
        if let Some(mut object) = objects.now.remove(&(resource.to_owned(), name.to_owned())) {
            object["metadata"]["resourceVersion"] = revision.to_string().into();
            objects.log.push((revision, resource.to_owned(), "DELETED", object));
        }
        self.revision.send_replace(revision);
    }

    pub(crate) fn names(&self, resource: &str) -> Vec<String> {
        let objects = self.objects();
        objects.now.keys().filter(|(kind, _)| kind == resource).map(|(_, name)| name.clone()).collect()
    }

    fn list(&self, resource: &str, query: &BTreeMap<String, String>) -> Value {
        let objects = self.objects();
        let items: Vec<&Value> = objects
            .now
            .iter()
            .filter(|((kind, _), object)| kind == resource && is_selected(object, query))
            .map(|(_, object)| object)
            .collect();
        json!({"kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": self.revision.borrow().to_string()}})
    }

    fn watch(&self, resource: String, query: BTreeMap<String, String>) -> Response {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(64);
        let api = self.clone();
        tokio::spawn(async move {
            let mut seen: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
            let mut revisions = api.revision.subscribe();
            loop {
                let frames: Vec<(u64, Value)> = api
                    .objects()
                    .log
                    .iter()
                    .filter(|(revision, kind, _, object)| {
                        *revision > seen && *kind == resource && is_selected(object, &query)
                    })
                    .map(|(revision, _, kind, object)| (*revision, json!({"type": kind, "object": object})))
                    .collect();
                for (revision, frame) in frames {
                    seen = revision;
                    if sender.send(format!("{frame}\n").into()).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        let stream = futures::stream::poll_fn(move |cx| {
            receiver.poll_recv(cx).map(|bytes| bytes.map(Ok::<_, Infallible>))
        });
        Response::new(Body::from_stream(stream))
    }
}

/// The selectors that the proxy uses.
fn is_selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let by_label = query.get("labelSelector").is_none_or(|selector| {
        selector.strip_prefix('!').is_none_or(|label| object["metadata"]["labels"].get(label).is_none())
    });
    let by_name = query.get("fieldSelector").is_none_or(|selector| {
        selector.strip_prefix("metadata.name=").is_none_or(|name| object["metadata"]["name"] == name)
    });
    by_label && by_name
}

/// What it has.
const RESOURCES: [&str; 7] =
    ["services", "endpointslices", "nodes", "events", "pods", "namespaces", "networkpolicies"];

async fn answer(
    State(api): State<Api>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Response {
    let resource = uri
        .path()
        .split('/')
        // From the end: what is in a namespace has that in its path.
        .rfind(|part| RESOURCES.contains(part))
        .unwrap_or_default()
        .to_owned();
    if resource == "events" {
        let event: Value = serde_json::from_slice(&body).unwrap_or_default();
        return (StatusCode::CREATED, Json(event)).into_response();
    }
    if method != Method::GET {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    if query.get("watch").is_some_and(|value| value == "true" || value == "1") {
        return api.watch(resource, query);
    }
    Json(api.list(&resource, &query)).into_response()
}
