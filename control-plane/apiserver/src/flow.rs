//! Room for requests: by priority and fairness, or by two plain limits where that is turned off. Streams
//! that last (but not the beginning of a watch) need no room.

mod objects;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use skep_api::error::ApiError;
use skep_api::user::UserInfo;
use skep_flow_control::estimate::{Stored, Work, width};
use skep_flow_control::gate::{Class, Gate, Seat};
use skep_flow_control::matching::{About, Digest};
use skep_registry::Registry;
use tokio::sync::OwnedSemaphorePermit;

use crate::limits::Limits;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::respond::{self, Answer};
use crate::server::Inner;

pub(crate) use objects::{ensure, run};

/// Nobody waits longer for seats.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How room is given.
pub(crate) enum Room {
    /// By priority and fairness.
    Fair(Arc<Gate>),
    /// So many reads and so many writes at the same time.
    Flat(Limits),
}

/// The room a request has; given back when it is dropped.
#[allow(dead_code)] // held for its drop
pub(crate) enum Pass {
    /// Seats.
    Seat(Seat),
    /// A place.
    Place(OwnedSemaphorePermit),
    /// It needs none.
    Free,
}

/// Waits for room. `class` tells what the request was taken for, also when it is refused.
pub(crate) async fn enter(
    inner: &Inner,
    user: &UserInfo,
    info: &RequestInfo,
    query: &Query,
    limit: Duration,
    class: &mut Option<Class>,
) -> Result<Pass, ApiError> {
    let watch = info.verb == "watch";
    if info.is_long_running() && !watch {
        return Ok(Pass::Free);
    }
    let gate = match &inner.room {
        Room::Flat(_) if watch => return Ok(Pass::Free),
        Room::Flat(limits) => return limits.enter(info.verb).map(Pass::Place),
        Room::Fair(gate) => gate,
    };
    let digest = Digest { user, verb: info.verb, path: &info.path, about: about(info) };
    let work = work(&inner.registry, info, query);
    let entered = gate.enter(&digest, |most| width(work, most), (limit / 4).min(LONGEST_WAIT)).await;
    match entered {
        Ok(seat) => {
            *class = Some(seat.class().clone());
            Ok(Pass::Seat(if watch { seat.of_watch() } else { seat }))
        }
        Err(refusal) => {
            *class = Some(refusal.class);
            let text = "Too many requests, please try again later.";
            Err(ApiError::too_many_requests(refusal.retry_after, text))
        }
    }
}

fn about(info: &RequestInfo) -> Option<About<'_>> {
    info.resource.as_ref().map(|resource| About {
        group: &resource.gvr.group,
        resource: &resource.gvr.resource,
        subresource: &resource.subresource,
        namespace: &resource.namespace,
    })
}

/// What the request will have to do.
fn work(registry: &Registry, info: &RequestInfo, query: &Query) -> Work {
    let Some(request) = &info.resource else { return Work::Small };
    let stored = || {
        let amount = registry.resource(&request.gvr).ok()?.amount();
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Some(Stored {
            count: number(amount.count),
            bytes: number(amount.bytes),
            watchers: number(amount.watchers),
        })
    };
    match info.verb {
        "list" => {
            let by_name = info.selected.fields.exact("metadata.name").is_some();
            let limit = query.number("limit").ok().flatten().unwrap_or_default();
            Work::List { stored: stored(), limit, one: by_name || !request.name.is_empty() }
        }
        "watch" => {
            // Only a watch that begins with what is there is work.
            let from_now = !matches!(query.get("resourceVersion"), None | Some("0"));
            if from_now && query.option("sendInitialEvents") != Some(true) {
                return Work::Small;
            }
            Work::List { stored: stored(), limit: 0, one: !request.name.is_empty() }
        }
        "create" if request.subresource == "token" => Work::Small,
        "create" | "update" | "patch" | "delete" => stored().map_or(Work::Small, Work::Write),
        _ => Work::Small,
    }
}

/// Tells the client what its request was taken for, by uids: names could tell it too much.
pub(crate) fn mark(class: Option<&Class>, headers: &mut HeaderMap) {
    let Some(class) = class else { return };
    for (name, uid) in [
        ("x-kubernetes-pf-flowschema-uid", class.schema.uid.as_str()),
        ("x-kubernetes-pf-prioritylevel-uid", &*class.level_uid),
    ] {
        if let Ok(value) = HeaderValue::from_str(uid) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// The dumps; `None` when the path is another.
pub(crate) fn dump(room: &Room, path: &str, query: &Query) -> Option<Answer> {
    let name = path.strip_prefix("/debug/api_priority_and_fairness/")?;
    let Room::Fair(gate) = room else { return None };
    let details = |path: &str| {
        let request =
            RequestInfo::new(&http::Method::GET, path, &Query::default()).resource.unwrap_or_default();
        let version = match request.gvr.group.as_str() {
            "" => request.gvr.version,
            group => format!("{group}/{}", request.gvr.version),
        };
        [request.namespace, request.name, version, request.gvr.resource, request.subresource]
    };
    let text = match name {
        "dump_priority_levels" => gate.dump_levels(),
        "dump_queues" => gate.dump_queues(),
        "dump_requests" => {
            let asked = query.get("includeRequestDetails").is_some();
            gate.dump_requests(if asked { Some(&details) } else { None })
        }
        _ => return None,
    };
    Some(respond::text(http::StatusCode::OK, text))
}
