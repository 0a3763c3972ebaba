//! What requests bring: bodies and the options in their queries.

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::USER_AGENT;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use skep_api::error::{ApiError, Reason};
use skep_api::resource::GroupVersionKind;
use skep_api::selector::{FieldSelector, LabelSelector};
use skep_api::user::UserInfo;
use skep_machinery::codec::{self, FieldValidation, Format};
use skep_registry::cache::{Filter, ListOptions, VersionMatch, WatchOptions};
use skep_registry::strategy::Kind;
use skep_registry::{DeleteOptions, Patch, Preconditions, Propagation, WriteOptions};

use crate::query::Query;

/// The longest body.
pub const LONGEST: usize = codec::MOST_BYTES;

/// The longest name of a field manager.
const MANAGER: usize = 128;

/// Reads a body.
pub async fn body(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, LONGEST).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(ApiError::request_too_large(format!("limit is {LONGEST}")))
        }
        Err(_) => Err(ApiError::bad_request("the body of the request could not be read")),
    }
}

/// Reads an object of a kind.
pub fn object(
    content_type: &str,
    bytes: &[u8],
    kind: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<codec::Decoded, ApiError> {
    codec::decode(content_type, bytes, Some(kind), validation).map_err(ApiError::from)
}

/// Reads a patch, with warnings of the keys it holds twice.
pub fn patch(
    content_type: &str,
    bytes: &Bytes,
    of: &Kind,
    validation: FieldValidation,
) -> Result<(Patch, Vec<String>), ApiError> {
    let read = |format| codec::parse_patch(format, bytes, validation).map_err(ApiError::from);
    let with = |make: fn(Value) -> Patch, (value, warnings)| (make(value), warnings);
    match content_type {
        "application/json-patch+json" => Ok((Patch::Json(bytes.clone()), Vec::new())),
        "application/merge-patch+json" => Ok(with(Patch::Merge, read(Format::Json)?)),
        "application/strategic-merge-patch+json" if of.built_in().is_some() => {
            Ok(with(Patch::Strategic, read(Format::Json)?))
        }
        "application/apply-patch+yaml" => Ok(with(Patch::Apply, read(Format::Yaml)?)),
        _ if of.custom().is_some() => Err(ApiError::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/apply-patch+yaml",
        ])),
        _ => Err(ApiError::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ])),
    }
}

/// `fieldValidation`.
pub fn field_validation(query: &Query) -> Result<FieldValidation, ApiError> {
    FieldValidation::parse(query.get("fieldValidation").unwrap_or_default()).map_err(ApiError::from)
}

/// The options of a write.
pub fn write_options(query: &Query, headers: &HeaderMap, user: &UserInfo) -> Result<WriteOptions, ApiError> {
    let dry_run = dry_run(query.all("dryRun"))?;
    let manager = match query.get("fieldManager") {
        Some(manager) if manager.len() > MANAGER => {
            return Err(invalid("fieldManager: Too long: may not be more than 128 bytes"));
        }
        Some(manager) if !manager.chars().all(|c| !c.is_control()) => {
            return Err(invalid("fieldManager: Invalid value: should only contain printable characters"));
        }
        Some(manager) => manager.to_owned(),
        None => {
            // Upstream's rule: what the client calls itself, up to the first slash.
            let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("unknown");
            agent.split('/').next().unwrap_or_default().chars().take(MANAGER).collect()
        }
    };
    Ok(WriteOptions {
        user: user.clone(),
        dry_run,
        field_manager: manager,
        force: query.flag("force"),
        field_validation: field_validation(query)?,
        ..WriteOptions::default()
    })
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, ApiError> {
    let mut dry = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value != "All" {
            return Err(invalid(&format!("dryRun: Unsupported value: {value:?}: supported values: \"All\"")));
        }
        dry = true;
    }
    Ok(dry)
}

/// 422 for options.
fn invalid(message: &str) -> ApiError {
    let message = format!("options is invalid: {message}");
    ApiError { code: 422, reason: Reason::Invalid, ..ApiError::bad_request(message) }
}

fn filter(query: &Query, namespace: &str, name: &str) -> Result<Filter, ApiError> {
    let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
        .map_err(|error| ApiError::bad_request(format!("unable to parse requirement: {error}")))?;
    let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let fields = if name.is_empty() { fields } else { FieldSelector::equals("metadata.name", name) };
    let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    Ok(Filter { namespace, labels, fields })
}

fn resource_version(query: &Query) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.get("resourceVersion") else { return Ok(None) };
    let version = text.parse();
    version.map(Some).map_err(|_| ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}")))
}

/// The options of a get.
pub fn get_version(query: &Query) -> Result<Option<u64>, ApiError> {
    resource_version(query)
}

/// The options of a list.
pub fn list_options(query: &Query, namespace: &str) -> Result<ListOptions, ApiError> {
    if query.get("sendInitialEvents").is_some() {
        return Err(invalid("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"));
    }
    let version_match = match query.get("resourceVersionMatch") {
        None => VersionMatch::Unset,
        Some("Exact") => VersionMatch::Exact,
        Some("NotOlderThan") => VersionMatch::NotOlderThan,
        Some(other) => {
            return Err(invalid(&format!(
                "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \
                 \"NotOlderThan\""
            )));
        }
    };
    let limit = query.number("limit")?.unwrap_or_default();
    Ok(ListOptions {
        filter: filter(query, namespace, "")?,
        resource_version: resource_version(query)?,
        version_match,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        continue_token: query.get("continue").map(str::to_owned),
    })
}

/// The options of a watch.
pub fn watch_options(query: &Query, namespace: &str, name: &str) -> Result<WatchOptions, ApiError> {
    let initial_events = query.option("sendInitialEvents");
    let version_match = query.get("resourceVersionMatch");
    match (initial_events, version_match) {
        (Some(_), None) => {
            return Err(invalid(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to \
                 NotOlderThan",
            ));
        }
        (None, Some(_)) => {
            return Err(invalid(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless \
                 sendInitialEvents is provided",
            ));
        }
        (Some(_), Some(given)) if given != "NotOlderThan" => {
            return Err(invalid(&format!(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to \
                 NotOlderThan, not {given}"
            )));
        }
        _ => {}
    }
    Ok(WatchOptions {
        filter: filter(query, namespace, name)?,
        resource_version: resource_version(query)?,
        bookmarks: query.flag("allowWatchBookmarks"),
        initial_events,
    })
}

/// The options of a deletion: from the body if there is one, else from the query.
pub fn delete_options(
    query: &Query,
    content_type: &str,
    bytes: &[u8],
    options: &mut WriteOptions,
) -> Result<DeleteOptions, ApiError> {
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        let kind = GroupVersionKind::new("", "v1", "DeleteOptions");
        object(content_type, bytes, &kind, FieldValidation::Ignore)?.object
    };
    delete_options_of(query, &body, options)
}

/// The same, of a body that is read already.
pub fn delete_options_of(
    query: &Query,
    body: &Value,
    options: &mut WriteOptions,
) -> Result<DeleteOptions, ApiError> {
    let in_body =
        body.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    options.dry_run |= dry_run(in_body)?;
    let grace_in_query = match query.get("gracePeriodSeconds") {
        Some(text) => {
            Some(text.parse().map_err(|_| ApiError::bad_request("gracePeriodSeconds is no number"))?)
        }
        None => None,
    };
    let grace_period = body.get("gracePeriodSeconds").and_then(Value::as_i64).or(grace_in_query);
    let policy = body.get("propagationPolicy").and_then(Value::as_str).or(query.get("propagationPolicy"));
    let orphan = body.get("orphanDependents").and_then(Value::as_bool).or(query.option("orphanDependents"));
    if policy.is_some() && orphan.is_some() {
        return Err(invalid(
            "propagationPolicy: Invalid value: orphanDependents and deletionPropagation cannot be both set",
        ));
    }
    let propagation = match (policy, orphan) {
        (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), _) => Some(Propagation::Foreground),
        (Some(other), _) => {
            return Err(invalid(&format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \
                 \"Background\", \"Orphan\", \"nil\""
            )));
        }
        (None, None) => None,
    };
    let text = |field: &str| body.pointer(field).and_then(Value::as_str);
    let resource_version =
        match text("/preconditions/resourceVersion") {
            Some(version) => Some(version.parse().map_err(|_| {
                ApiError::bad_request("preconditions.resourceVersion is no resource version")
            })?),
            None => None,
        };
    let preconditions =
        Preconditions { uid: text("/preconditions/uid").map(str::to_owned), resource_version };
    Ok(DeleteOptions { grace_period, preconditions, propagation })
}
