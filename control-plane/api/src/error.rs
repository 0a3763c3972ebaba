//! The error every layer of the API server speaks: what becomes a `metav1::Status` on the wire.
//!
//! Messages are wire facts: kubectl, controllers and tests match on them.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};

use crate::field::ErrorList;
use crate::resource::{GroupVersionKind, GroupVersionResource};
use crate::user::UserInfo;

/// The text that says an update lost a race.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

macro_rules! reasons {
    ($($name:ident),* $(,)?) => {
        /// Machine-readable cause of a failure.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Reason {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                $name,
            )*
            /// One this build does not know (from another server), or none: the empty string.
            Other(String),
        }

        impl Reason {
            /// As on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for Reason {
            fn from(text: &str) -> Self {
                match text {
                    $(stringify!($name) => Self::$name,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }
    };
}

reasons!(
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
);

/// A request that failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// Machine-readable cause.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// What it was about (boxed: errors travel in every `Result`).
    pub details: Option<Box<StatusDetails>>,
    /// Where an expired list can go on, at the newest revision; empty otherwise.
    pub continue_token: String,
}

fn about(gvr: &GroupVersionResource, name: &str) -> StatusDetails {
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    StatusDetails {
        group: text(&gvr.group),
        kind: text(&gvr.resource),
        name: text(name),
        ..StatusDetails::default()
    }
}

fn retry_after(seconds: u32) -> StatusDetails {
    StatusDetails { retry_after_seconds: i32::try_from(seconds).ok(), ..StatusDetails::default() }
}

impl ApiError {
    fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: String::new() }
    }

    /// Sets the details.
    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// 404 `pods "x" not found`.
    pub fn not_found(gvr: &GroupVersionResource, name: &str) -> Self {
        Self::new(404, Reason::NotFound, format!("{} {name:?} not found", gvr.qualified()))
            .with_details(about(gvr, name))
    }

    /// 404 for a path that is no resource.
    pub fn no_such_path() -> Self {
        Self::new(404, Reason::NotFound, "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// 409 `pods "x" already exists`.
    pub fn already_exists(gvr: &GroupVersionResource, name: &str) -> Self {
        Self::new(409, Reason::AlreadyExists, format!("{} {name:?} already exists", gvr.qualified()))
            .with_details(about(gvr, name))
    }

    /// 409 after too many collisions of generated names.
    pub fn generate_name_conflict(gvr: &GroupVersionResource, name: &str) -> Self {
        let text = "already exists, the server was not able to generate a unique name for the object";
        let details = StatusDetails { retry_after_seconds: Some(1), ..about(gvr, name) };
        Self::new(409, Reason::AlreadyExists, format!("{} {name:?} {text}", gvr.qualified()))
            .with_details(details)
    }

    /// 409 `Operation cannot be fulfilled on pods "x": why`; [`MODIFIED`] is the usual reason.
    pub fn conflict(gvr: &GroupVersionResource, name: &str, why: &str) -> Self {
        let text = format!("Operation cannot be fulfilled on {} {name:?}: {why}", gvr.qualified());
        Self::new(409, Reason::Conflict, text).with_details(about(gvr, name))
    }

    /// 409 of server-side apply: one cause per conflicting field.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<StatusCause>) -> Self {
        Self::new(409, Reason::Conflict, message)
            .with_details(StatusDetails { causes: Some(causes), ..StatusDetails::default() })
    }

    /// 422 `Pod "x" is invalid: spec.…`.
    pub fn invalid(gvk: &GroupVersionKind, name: &str, errors: &ErrorList) -> Self {
        let qualified =
            if gvk.group.is_empty() { gvk.kind.clone() } else { format!("{}.{}", gvk.kind, gvk.group) };
        let causes = errors
            .iter()
            .map(|error| StatusCause {
                field: Some(error.field.to_string()),
                message: Some(error.body()),
                reason: Some(error.kind.cause().to_owned()),
            })
            .collect();
        let mut message = format!("{qualified} {name:?} is invalid");
        if !errors.is_empty() {
            message = format!("{message}: {errors}");
        }
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Self::new(422, Reason::Invalid, message).with_details(StatusDetails {
            group: text(&gvk.group),
            kind: text(&gvk.kind),
            name: text(name),
            causes: Some(causes),
            ..StatusDetails::default()
        })
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 403 `pods "x" is forbidden: why`: an admission plug-in or quota says no.
    pub fn forbidden(gvr: &GroupVersionResource, name: &str, why: impl fmt::Display) -> Self {
        let message = match (gvr.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{} is forbidden: {why}", gvr.qualified()),
            (false, false) => format!("{} {name:?} is forbidden: {why}", gvr.qualified()),
        };
        Self::new(403, Reason::Forbidden, message).with_details(about(gvr, name))
    }

    /// 403 of authorization: `pods "x" is forbidden: User "u" cannot get resource "pods" in API group ""
    /// in the namespace "n": reason`. `resource` may hold a subresource (`pods/log`).
    pub fn forbidden_user(
        user: &UserInfo,
        verb: &str,
        gvr: &GroupVersionResource,
        subresource: &str,
        namespace: Option<&str>,
        name: &str,
        reason: &str,
    ) -> Self {
        let resource = if subresource.is_empty() {
            gvr.resource.clone()
        } else {
            format!("{}/{subresource}", gvr.resource)
        };
        let scope = match namespace {
            Some(namespace) if !namespace.is_empty() => format!("in the namespace {namespace:?}"),
            _ => "at the cluster scope".to_owned(),
        };
        let mut why = format!(
            "User {:?} cannot {verb} resource {resource:?} in API group {:?} {scope}",
            user.name, gvr.group
        );
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        Self::forbidden(gvr, name, why)
    }

    /// 403 for a path that is no resource.
    pub fn forbidden_path(user: &UserInfo, verb: &str, path: &str, reason: &str) -> Self {
        let mut why = format!("User {:?} cannot {verb} path {path:?}", user.name);
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        Self::new(403, Reason::Forbidden, format!("forbidden: {why}")).with_details(StatusDetails::default())
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 405.
    pub fn method_not_supported(gvr: &GroupVersionResource, action: &str) -> Self {
        let text = format!("{action} is not supported on resources of kind {:?}", gvr.qualified());
        Self::new(405, Reason::MethodNotAllowed, text).with_details(about(gvr, ""))
    }

    /// 406: none of the representations the client accepts.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let text = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, Reason::NotAcceptable, text)
    }

    /// 415: the body is in no format the server reads.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let text = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, text)
    }

    /// 410 with reason `Expired`: the revision was compacted.
    pub fn gone_expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 429: try again after so many seconds (0: not said).
    pub fn too_many_requests(seconds: u32, message: impl Into<String>) -> Self {
        Self::new(429, Reason::TooManyRequests, message).with_details(retry_after(seconds))
    }

    /// 500. The message goes to the client: keep secrets and paths out of it.
    pub fn internal(cause: impl fmt::Display) -> Self {
        let cause = cause.to_string();
        let causes = vec![StatusCause { message: Some(cause.clone()), ..StatusCause::default() }];
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {cause}"))
            .with_details(StatusDetails { causes: Some(causes), ..StatusDetails::default() })
    }

    /// 504: not done in time; it may still happen.
    pub fn timeout(message: impl fmt::Display) -> Self {
        Self::new(504, Reason::Timeout, format!("Timeout: {message}")).with_details(retry_after(1))
    }

    /// 500 with reason `ServerTimeout`: a transient error, try again.
    pub fn server_timeout(gvr: &GroupVersionResource, operation: &str, seconds: u32) -> Self {
        let text = format!(
            "The {operation} operation against {} could not be completed at this time, please try again.",
            gvr.qualified()
        );
        let details =
            StatusDetails { retry_after_seconds: i32::try_from(seconds).ok(), ..about(gvr, operation) };
        Self::new(500, Reason::ServerTimeout, text).with_details(details)
    }

    /// 503.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// 413.
    pub fn request_too_large(message: impl fmt::Display) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {message}"))
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// Whether a write lost a race.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// Whether the name is taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// As it goes over the wire.
    pub fn to_status(&self) -> Status {
        let reason = self.reason.as_str();
        let token = &self.continue_token;
        let metadata =
            ListMeta { continue_: (!token.is_empty()).then(|| token.clone()), ..ListMeta::default() };
        Status {
            code: Some(i32::from(self.code)),
            metadata,
            details: self.details.as_deref().cloned(),
            message: Some(self.message.clone()),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            status: Some("Failure".to_owned()),
        }
    }

    /// From another server's answer.
    pub fn from_status(status: Status) -> Self {
        Self {
            code: status.code.and_then(|c| u16::try_from(c).ok()).unwrap_or(500),
            reason: Reason::from(status.reason.as_deref().unwrap_or_default()),
            message: status.message.unwrap_or_default(),
            details: status.details.map(Box::new),
            continue_token: status.metadata.continue_.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Error, Path};

    #[test]
    fn wording() {
        let pods = GroupVersionResource::new("", "v1", "pods");
        let deployments = GroupVersionResource::new("apps", "v1", "deployments");
        assert_eq!(ApiError::not_found(&pods, "x").message, r#"pods "x" not found"#);
        assert_eq!(
            ApiError::already_exists(&deployments, "x").message,
            r#"deployments.apps "x" already exists"#
        );
        assert_eq!(
            ApiError::conflict(&pods, "x", MODIFIED).message,
            r#"Operation cannot be fulfilled on pods "x": the object has been modified; please apply your changes to the latest version and try again"#
        );
        let user = UserInfo { name: "jane".into(), ..UserInfo::default() };
        assert_eq!(
            ApiError::forbidden_user(&user, "get", &pods, "log", Some("n"), "x", "").message,
            r#"pods "x" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "n""#
        );
        let gvk = GroupVersionKind::new("apps", "v1", "Deployment");
        let errors = ErrorList(vec![Error::required(&Path::new("spec"), "why")]);
        let error = ApiError::invalid(&gvk, "x", &errors);
        assert_eq!(error.message, r#"Deployment.apps "x" is invalid: spec: Required value: why"#);
        assert_eq!(error.code, 422);
    }

    #[test]
    fn status_round_trip() {
        let pods = GroupVersionResource::new("", "v1", "pods");
        for error in [
            ApiError::not_found(&pods, "x"),
            ApiError::internal("boom"),
            ApiError::too_many_requests(10, "later"),
            ApiError::unauthorized(),
        ] {
            assert_eq!(ApiError::from_status(error.to_status()), error);
        }
    }
}
