//! TokenRequest and TokenReview: the API objects around tokens.

use std::time::Duration;

use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::field::{Error as FieldError, ErrorList, Path};
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionKind;

use super::{Bound, Issued, Reference, Signer, TokenSpec};
use crate::authentication::bearer::Bearer;

const HOUR: i64 = 3600;
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
/// What the service-account admission plug-in asks for; such tokens last longer than they say, so that
/// clients that never read them again keep working.
const PROJECTED: i64 = 3607;
const EXTENDED: i64 = 365 * 24 * HOUR;

/// The objects of a TokenRequest, as stored.
#[derive(Clone, Copy, Debug)]
pub struct TokenSubject<'a> {
    /// The service account.
    pub account: &'a Value,
    /// What `spec.boundObjectRef` names, when it is there.
    pub bound: Option<&'a Value>,
    /// The node of the bound pod, when there is one.
    pub node: Option<&'a Value>,
}

/// Answers a TokenRequest: the request with its status filled, and warnings.
pub fn token_request(
    signer: &Signer,
    request: &Value,
    subject: &TokenSubject<'_>,
) -> Result<(Value, Vec<String>), ApiError> {
    let gvk = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
    let spec = Path::new("spec");
    let mut errors = ErrorList::new();
    let seconds = request.int(&["spec", "expirationSeconds"]).unwrap_or(HOUR);
    let at = spec.child("expirationSeconds");
    if seconds < SHORTEST {
        errors.push(FieldError::invalid(&at, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > LONGEST {
        errors.push(FieldError::invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    let reference = request.at(&["spec", "boundObjectRef"]).filter(|value| !value.is_null());
    let bound = match reference {
        None => None,
        Some(reference) => Some(bind(reference, subject.bound, &spec, &mut errors)?),
    };
    if !errors.is_empty() {
        return Err(ApiError::invalid(&gvk, "", &errors));
    }
    let audiences: Vec<String> = request
        .items(&["spec", "audiences"])
        .iter()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let mut warnings = Vec::new();
    let longest = signer.max_expiration.and_then(|max| i64::try_from(max.as_secs()).ok());
    let seconds = match longest {
        Some(longest) if seconds > longest => {
            warnings
                .push(format!("requested expiration of {seconds} seconds shortened to {longest} seconds"));
            longest
        }
        _ => seconds,
    };
    let ours = audiences.is_empty() || audiences == signer.audiences;
    let extended = seconds == PROJECTED && ours && matches!(bound, Some(Some(Bound::Pod(_))));
    let life = if extended { EXTENDED } else { seconds };
    let reference = |object: &Value| Reference { name: object.name().into(), uid: object.uid().into() };
    let spec = TokenSpec {
        namespace: subject.account.namespace().to_owned(),
        account: reference(subject.account),
        audiences,
        life: Duration::from_secs(life.unsigned_abs()),
        bound: bound.flatten(),
        node: subject.node.map(reference),
    };
    let Issued { token, expires } = signer.issue(&spec).map_err(ApiError::internal)?;
    // The status names the time the client should refresh by.
    let shown = expires - life.unsigned_abs() + seconds.unsigned_abs();
    let mut answer = request.clone();
    answer.set_gvk(&gvk);
    if spec.audiences.is_empty() {
        answer.set(&["spec", "audiences"], signer.audiences.clone());
    }
    answer.set(&["spec", "expirationSeconds"], seconds);
    answer.set_name(subject.account.name());
    answer.set_namespace(subject.account.namespace());
    answer.set(&["status"], json!({ "token": token, "expirationTimestamp": timestamp(shown) }));
    Ok((answer, warnings))
}

fn bind(
    reference: &Value,
    stored: Option<&Value>,
    spec: &Path,
    errors: &mut ErrorList,
) -> Result<Option<Bound>, ApiError> {
    let (kind, name, uid) = (reference.text(&["kind"]), reference.text(&["name"]), reference.text(&["uid"]));
    let at = spec.child("boundObjectRef");
    if !matches!(kind, "Pod" | "Secret" | "Node") {
        errors.push(FieldError::not_supported(&at.child("kind"), kind, &["Pod", "Secret", "Node"]));
        return Ok(None);
    }
    let resource = format!("{}s", kind.to_lowercase());
    let gvr = skep_api::resource::GroupVersionResource::new("", "v1", resource);
    let Some(stored) = stored else { return Err(ApiError::not_found(&gvr, name)) };
    if !uid.is_empty() && stored.uid() != uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(&gvr, name, &why));
    }
    let found = Reference { name: name.to_owned(), uid: stored.uid().to_owned() };
    Ok(Some(match kind {
        "Pod" => Bound::Pod(found),
        "Secret" => Bound::Secret(found),
        _ => Bound::Node(found),
    }))
}

/// Answers a TokenReview: the request with its status filled. What is wrong with a token is told, for
/// the caller is trusted to review tokens; the token itself is left out of the answer's errors.
pub async fn token_review(bearer: &Bearer, review: &Value) -> Value {
    let audiences: Vec<String> = review
        .items(&["spec", "audiences"])
        .iter()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let status = match bearer.verify(review.text(&["spec", "token"]), &audiences).await {
        Ok(Some(found)) => json!({
            "authenticated": true,
            "user": {
                "username": found.user.name,
                "uid": found.user.uid,
                "groups": found.user.groups,
                "extra": found.user.extra,
            },
            "audiences": found.audiences,
        }),
        Ok(None) => json!({ "authenticated": false, "user": {} }),
        Err(error) => json!({ "authenticated": false, "user": {}, "error": error.to_string() }),
    };
    let mut answer = review.clone();
    answer.set(&["status"], status);
    answer
}

/// RFC 3339 in UTC.
fn timestamp(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}
