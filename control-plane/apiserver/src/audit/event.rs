//! One request's record: the event, as it grows.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::request::Parts;
use serde_json::{Value, json};
use skep_api::user::UserInfo;
use skep_auth::audit::{Level, Stage};

use super::{Auditor, Grown};
use crate::pipeline::{Peer, attributes};
use crate::request_info::RequestInfo;

/// No longer text of a client's is kept.
const TEXT: usize = 1024;
/// A client may name its request; no longer than this.
const ID: usize = 64;
/// No more addresses are kept of those that say to have passed the request on.
const SOURCES: usize = 32;
/// The header of the name.
const HEADER: &str = "audit-id";

/// A request's record. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(super) auditor: Arc<Auditor>,
    pub(super) grown: Arc<Mutex<Grown>>,
}

/// RFC 3339 with microseconds.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The name of a request: the client's, or a new one.
#[derive(Clone, Debug)]
pub(crate) struct Id(String);

impl Id {
    pub(crate) fn of(parts: &Parts) -> Self {
        let given = parts.headers.get(HEADER).and_then(|id| id.to_str().ok());
        let fine =
            |id: &&str| !id.is_empty() && id.len() <= ID && id.bytes().all(|byte| byte.is_ascii_graphic());
        Self(given.filter(fine).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned))
    }

    /// Tells it in the answer.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(&self.0) {
            headers.insert(HEADER, id);
        }
    }
}

fn user(user: &UserInfo) -> Value {
    let mut out = json!({"username": user.name});
    if !user.uid.is_empty() {
        out["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        out["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(user.extra);
    }
    out
}

/// Whoever says to have passed the request on, and who truly sent it.
fn sources(parts: &Parts) -> Vec<String> {
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut out: Vec<String> = Vec::new();
    let mut add = |text: &str| {
        if let Ok(ip) = text.trim().parse::<IpAddr>() {
            let ip = ip.to_canonical().to_string();
            if !out.contains(&ip) && out.len() < SOURCES {
                out.push(ip);
            }
        }
    };
    header("x-forwarded-for").split(',').for_each(&mut add);
    add(header("x-real-ip"));
    if let Some(Peer(address)) = parts.extensions.get::<Peer>() {
        add(&address.ip().to_string());
    }
    out
}

fn short(text: &str) -> String {
    if text.len() <= TEXT {
        return text.to_owned();
    }
    format!("{}...TRUNCATED", text.chars().take(TEXT).collect::<String>())
}

impl Record {
    /// Begins the record of a request, once its user is known, and writes its first stage. `None`: the
    /// policy wants nothing of it.
    pub(crate) fn begin(
        auditor: &Arc<Auditor>,
        parts: &Parts,
        info: &RequestInfo,
        who: &UserInfo,
    ) -> Option<Self> {
        let verdict = auditor.judge(&attributes(who, info));
        if verdict.level == Level::None {
            return None;
        }
        let uri = parts.uri.path_and_query().map_or("/", |uri| uri.as_str());
        let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": verdict.level.as_str(),
            "auditID": parts.extensions.get::<Id>().map_or("", |id| id.0.as_str()),
            "requestURI": short(uri),
            "verb": info.verb,
            "user": user(who),
            "sourceIPs": sources(parts),
            "requestReceivedTimestamp": now(),
        });
        if !agent.is_empty() {
            event["userAgent"] = short(agent).into();
        }
        if let Some(resource) = &info.resource {
            let gvr = &resource.gvr;
            let mut reference = json!({"resource": gvr.resource, "apiVersion": gvr.version});
            for (key, text) in [
                ("namespace", &resource.namespace),
                ("name", &resource.name),
                ("apiGroup", &gvr.group),
                ("subresource", &resource.subresource),
            ] {
                if !text.is_empty() {
                    reference[key] = text.as_str().into();
                }
            }
            event["objectRef"] = reference;
        }
        let grown = Arc::new(Mutex::new(Grown { event, verdict }));
        let record = Self { auditor: Arc::clone(auditor), grown };
        record.stage(Stage::RequestReceived);
        Some(record)
    }

    /// As whom the request acts.
    pub(crate) fn impersonates(&self, other: &UserInfo) {
        self.put("impersonatedUser", user(other));
    }
}
