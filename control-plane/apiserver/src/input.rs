//! What requests bring: bodies and the options in their queries.

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::USER_AGENT;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::resource::GroupVersionKind;
use skep_api::user::UserInfo;
use skep_machinery::codec::{self, FieldValidation, Format};
use skep_registry::strategy::Kind;
use skep_registry::{DeleteOptions, Patch, Preconditions, Propagation, WriteOptions};

use crate::query::Query;

mod reads;

pub use reads::{get_version, list_options, watch_options};

/// The longest body.
pub const LONGEST: usize = codec::MOST_BYTES;

/// The longest name of a field manager.
const MANAGER: usize = 128;

/// The kind of the options of a deletion.
const DELETE: &str = "DeleteOptions";

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

/// The options of a write; `kind` is what upstream calls them.
pub fn write_options(
    kind: &str,
    query: &Query,
    headers: &HeaderMap,
    user: &UserInfo,
) -> Result<WriteOptions, ApiError> {
    let dry_run = dry_run(kind, query.all("dryRun"))?;
    let field = Path::new("fieldManager");
    let manager = match query.get("fieldManager") {
        Some(manager) if manager.len() > MANAGER => {
            return Err(invalid(kind, vec![Error::too_long(&field, MANAGER)]));
        }
        Some(manager) => match manager.chars().position(char::is_control) {
            Some(at) => {
                let detail = format!(
                    "should only contain printable characters, but contains a control character at {at}"
                );
                return Err(invalid(kind, vec![Error::invalid(&field, manager, detail)]));
            }
            None => manager.to_owned(),
        },
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

/// What only one kind of patch may say, and what it must.
pub fn check_patch(query: &Query, patch: &Patch) -> Result<(), ApiError> {
    let error = match patch {
        // Whoever applies says who he is: what his client is called would tie him to its name.
        Patch::Apply(_) if query.get("fieldManager").is_none() => {
            Error::required(&Path::new("fieldManager"), "is required for apply patch")
        }
        Patch::Json(_) | Patch::Merge(_) | Patch::Strategic(_) if query.get("force").is_some() => {
            Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch")
        }
        _ => return Ok(()),
    };
    Err(invalid("PatchOptions", vec![error]))
}

fn dry_run<'a>(kind: &str, values: impl Iterator<Item = &'a str>) -> Result<bool, ApiError> {
    let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
    if values.iter().any(|value| *value != "All") {
        return Err(invalid(kind, vec![Error::not_supported(&Path::new("dryRun"), values, &["All"])]));
    }
    Ok(!values.is_empty())
}

/// 422 for options of this kind.
fn invalid(kind: &str, errors: Vec<Error>) -> ApiError {
    ApiError::invalid(&GroupVersionKind::new("meta.k8s.io", "v1", kind), "", &ErrorList::from(errors))
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
    options.dry_run |= dry_run(DELETE, in_body)?;
    let grace_in_query = match query.get("gracePeriodSeconds") {
        Some(text) => {
            Some(text.parse().map_err(|_| ApiError::bad_request("gracePeriodSeconds is no number"))?)
        }
        None => None,
    };
    let grace_period = body.get("gracePeriodSeconds").and_then(Value::as_i64).or(grace_in_query);
    let policy = body.get("propagationPolicy").and_then(Value::as_str).or(query.get("propagationPolicy"));
    let orphan = body.get("orphanDependents").and_then(Value::as_bool).or(query.option("orphanDependents"));
    let propagation = Path::new("propagationPolicy");
    if policy.is_some() && orphan.is_some() {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        return Err(invalid(DELETE, vec![Error::invalid(&propagation, policy.unwrap_or_default(), detail)]));
    }
    let propagation = match (policy, orphan) {
        (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), _) => Some(Propagation::Foreground),
        (Some(other), _) => {
            const KNOWN: [&str; 4] = ["Foreground", "Background", "Orphan", "nil"];
            return Err(invalid(DELETE, vec![Error::not_supported(&propagation, other, &KNOWN)]));
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
