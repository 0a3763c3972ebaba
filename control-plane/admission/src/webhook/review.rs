//! AdmissionReview: the request we send, and what we make of the answer. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Map, Value, json};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};

use crate::Attributes;
use crate::matching::Match;

const GROUP: &str = "admission.k8s.io";

/// The versions of AdmissionReview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V1Beta1,
}

impl Version {
    /// Reads one of `admissionReviewVersions`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Beta1 => "v1beta1",
        }
    }
}

/// The objects of a request as a webhook wants to see them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Objects<'a> {
    pub(super) object: Option<&'a Value>,
    pub(super) old: Option<&'a Value>,
}

fn kind(gvk: &GroupVersionKind) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

fn resource(gvr: &GroupVersionResource) -> Value {
    json!({"group": gvr.group, "version": gvr.version, "resource": gvr.resource})
}

/// The review to send.
pub(super) fn request(
    version: Version,
    uid: &str,
    attributes: &Attributes,
    seen: &Match,
    objects: Objects<'_>,
) -> Value {
    let user = &attributes.user;
    let mut info = Map::new();
    for (field, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            info.insert(field.to_owned(), json!(text));
        }
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    let mut request = json!({
        "uid": uid,
        "kind": kind(&seen.gvk),
        "resource": resource(&seen.gvr),
        "requestKind": kind(&attributes.gvk),
        "requestResource": resource(&attributes.gvr),
        "operation": attributes.operation.as_str(),
        "userInfo": info,
        "object": objects.object,
        "oldObject": objects.old,
        "dryRun": attributes.dry_run,
        "options": attributes.options,
    });
    let texts = [
        ("subResource", &attributes.subresource),
        ("requestSubResource", &attributes.subresource),
        ("name", &attributes.name),
        ("namespace", &attributes.namespace),
    ];
    for (field, text) in texts {
        if !text.is_empty() {
            request[field] = json!(text);
        }
    }
    json!({
        "kind": "AdmissionReview",
        "apiVersion": format!("{GROUP}/{}", version.as_str()),
        "request": request,
    })
}

/// What a webhook said.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    /// Why not.
    pub(super) status: Option<Status>,
    /// A JSON patch.
    pub(super) patch: Option<Vec<u8>>,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
}

/// Reads an answer; the error says what is wrong with it.
pub(super) fn response(
    version: Version,
    uid: &str,
    mutating: bool,
    review: &Value,
) -> Result<Verdict, String> {
    let response = review.at(&["response"]).filter(|response| response.is_object());
    let response = response.ok_or("webhook response was absent")?;
    let patch = match response.at(&["patch"]) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => {
            STANDARD.decode(text).map_err(|error| format!("response.patch is not base64: {error}"))?
        }
        Some(_) => return Err("response.patch is not a string".to_owned()),
    };
    let patch_type = response.at(&["patchType"]).and_then(Value::as_str);
    if version == Version::V1 {
        let got = review.gvk();
        let want = GroupVersionKind::new(GROUP, "v1", "AdmissionReview");
        if got != want {
            return Err(format!("expected webhook response of {want}, got {got}"));
        }
        let answered = response.text(&["uid"]);
        if answered != uid {
            return Err(format!("expected response.uid={uid:?}, got {answered:?}"));
        }
        match (mutating, patch.is_empty(), patch_type) {
            (true, false, None) => {
                return Err("webhook returned response.patch but not response.patchType".to_owned());
            }
            (true, true, Some(_)) => {
                return Err("webhook returned response.patchType but not response.patch".to_owned());
            }
            (true, _, Some("")) => {
                return Err("webhook returned invalid response.patchType of \"\"".to_owned());
            }
            (true, _, Some(other)) if other != "JSONPatch" => {
                return Err(format!("unsupported patch type {other:?}"));
            }
            (false, false, _) => return Err("validating webhook may not return response.patch".to_owned()),
            (false, true, Some(_)) => {
                return Err("validating webhook may not return response.patchType".to_owned());
            }
            _ => {}
        }
    }
    let status = match response.at(&["status"]) {
        None | Some(Value::Null) => None,
        Some(status) => {
            let status = serde_json::from_value(status.clone());
            Some(status.map_err(|error| format!("response.status can't be read: {error}"))?)
        }
    };
    let annotations = response.map(&["auditAnnotations"]).into_iter().flatten();
    Ok(Verdict {
        allowed: response.flag(&["allowed"]),
        status,
        patch: (mutating && !patch.is_empty()).then_some(patch),
        warnings: response
            .items(&["warnings"])
            .iter()
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect(),
        annotations: annotations
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
    })
}

/// A denial as the client sees it: the webhook's own status, never less than an error, and who said it.
pub(super) fn denial(webhook: &str, status: Option<Status>) -> ApiError {
    let mut status = status.unwrap_or_default();
    if status.code.unwrap_or_default() < 400 {
        status.code = Some(400);
    }
    let by = format!("admission webhook {webhook:?} denied the request");
    let given = [&status.message, &status.reason].into_iter().flatten().find(|text| !text.is_empty());
    status.message = Some(match given {
        Some(text) => format!("{by}: {text}"),
        None => format!("{by} without explanation"),
    });
    ApiError::from_status(status)
}

#[cfg(test)]
mod tests {
    use skep_api::user::UserInfo;

    use super::*;
    use crate::Operation;

    #[test]
    fn a_request_names_what_was_asked_and_what_is_shown() {
        let attributes = Attributes {
            operation: Operation::Update,
            gvk: GroupVersionKind::new("apps", "v1", "Deployment"),
            gvr: GroupVersionResource::new("apps", "v1", "deployments"),
            namespace: "n".to_owned(),
            name: "d".to_owned(),
            user: UserInfo::new("jane", ["people"]),
            dry_run: true,
            options: json!({"kind": "UpdateOptions"}),
            ..Attributes::default()
        };
        let seen = Match {
            gvr: GroupVersionResource::new("apps", "v1beta1", "deployments"),
            gvk: GroupVersionKind::new("apps", "v1beta1", "Deployment"),
        };
        let object = json!({"kind": "Deployment"});
        let review =
            request(Version::V1, "u", &attributes, &seen, Objects { object: Some(&object), old: None });
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        let request = &review["request"];
        assert_eq!(request["kind"]["version"], "v1beta1");
        assert_eq!(request["requestKind"]["version"], "v1");
        assert_eq!(request["operation"], "UPDATE");
        assert_eq!(request["userInfo"]["username"], "jane");
        assert_eq!((&request["dryRun"], &request["oldObject"]), (&json!(true), &Value::Null));
        assert_eq!(request.get("subResource"), None);
    }

    #[test]
    fn answers_are_checked() {
        let review = |response: Value| {
            let mut review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"});
            review["response"] = response;
            review
        };
        let with = |field: &str, value: Value| {
            let mut response = json!({"uid": "u", "allowed": true});
            response[field] = value;
            review(response)
        };
        let patch = STANDARD.encode(b"[]");
        let cases = [
            (true, json!({}), "webhook response was absent"),
            (
                true,
                json!({"response": {}}),
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview",
            ),
            (true, with("uid", json!("x")), r#"expected response.uid="u", got "x""#),
            (true, with("patch", json!(patch)), "webhook returned response.patch but not response.patchType"),
            (
                true,
                with("patchType", json!("JSONPatch")),
                "webhook returned response.patchType but not response.patch",
            ),
            (false, with("patch", json!(patch)), "validating webhook may not return response.patch"),
            (
                false,
                with("patchType", json!("JSONPatch")),
                "validating webhook may not return response.patchType",
            ),
            (true, with("patch", json!("?")), "response.patch is not base64"),
        ];
        for (mutating, answer, text) in cases {
            let error = response(Version::V1, "u", mutating, &answer).expect_err(text);
            assert!(error.contains(text), "{error}");
        }
        let good = with("warnings", json!(["careful"]));
        let verdict = response(Version::V1, "u", false, &good).expect("a verdict");
        assert!(verdict.allowed);
        assert_eq!(verdict.warnings, ["careful"]);
        // The older version knows neither kind nor uid.
        let old = json!({"response": {"allowed": true, "patch": patch}});
        assert!(response(Version::V1Beta1, "u", true, &old).expect("a verdict").patch.is_some());
    }

    #[test]
    fn denials_say_who_and_why() {
        let status = |value: Value| serde_json::from_value(value).ok();
        let cases = [
            (None, 400, r#"admission webhook "w" denied the request without explanation"#),
            (status(json!({"message": "no"})), 400, r#"admission webhook "w" denied the request: no"#),
            (
                status(json!({"reason": "why", "code": 200})),
                400,
                r#"admission webhook "w" denied the request: why"#,
            ),
            (
                status(json!({"message": "m", "code": 403})),
                403,
                r#"admission webhook "w" denied the request: m"#,
            ),
        ];
        for (status, code, message) in cases {
            let error = denial("w", status);
            assert_eq!((error.code, error.message.as_str()), (code, message));
        }
    }
}
