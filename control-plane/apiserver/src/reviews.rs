//! Kinds that are questions: reviews of access and of tokens. Nothing of them is stored.

use axum::body::Body;
use http::StatusCode;
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;
use skep_api::user::UserInfo;
use skep_auth::authorization::{Attributes, Decision};
use skep_auth::tokens::token_review;

use crate::input;
use crate::negotiate::Shape;
use crate::resources::{Call, warn};
use crate::respond::{self, Answer};

use selectors::Selectors;

mod selectors;

/// Answers a review.
pub(crate) async fn handle(call: Call<'_>, body: Body) -> Result<Answer, ApiError> {
    if call.method != http::Method::POST || !call.request.name.is_empty() {
        return Err(ApiError::method_not_supported(&call.row.gvr(), call.method.as_str()));
    }
    let form = call.form(false)?;
    debug_assert_eq!(form.shape, Shape::Object, "reviews are offered in no other shape");
    let options = call.write_options()?;
    let bytes = input::body(body).await?;
    let decoded = input::object(&call.content_type(), &bytes, &call.row.gvk(), options.field_validation)?;
    let review = decoded.object;
    let answer = match call.row.gvk().kind.as_str() {
        "TokenReview" => {
            if review.text(&["spec", "token"]).is_empty() {
                let error = Error::required(&Path::new("spec").child("token"), "");
                return Err(ApiError::invalid(&call.row.gvk(), "", &ErrorList::from(vec![error])));
            }
            let tokens = call.server.tokens.as_ref();
            let tokens =
                tokens.ok_or_else(|| ApiError::service_unavailable("this server reviews no tokens"))?;
            token_review(&tokens.bearer, &review).await
        }
        "SelfSubjectReview" => with_status(review, json!({"userInfo": user_info(call.user)})),
        "SelfSubjectRulesReview" => rules(&call, review).await?,
        "SelfSubjectAccessReview" => access(&call, call.user, review).await?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let user = subject(&call, &review)?;
            access(&call, &user, review).await?
        }
        "Binding" => {
            let name = review.name().to_owned();
            let target = skep_registry::Target::new(
                skep_api::resource::GroupVersionResource::new("", "v1", "pods"),
                call.request.namespace.clone(),
                name,
            )
            .below("binding");
            call.server.registry.bind(&target, &review, &options).await?
        }
        _ => return Err(ApiError::no_such_path()),
    };
    let answer = respond::value(StatusCode::CREATED, &form, None, &answer, call.include())?;
    Ok(warn(answer, &decoded.warnings))
}

fn with_status(mut review: Value, status: Value) -> Value {
    review["status"] = status;
    review
}

fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// The user a SubjectAccessReview asks about.
fn subject(call: &Call<'_>, review: &Value) -> Result<UserInfo, ApiError> {
    let texts = |list: &[Value]| -> Vec<String> {
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let groups = texts(review.items(&["spec", "groups"]));
    let name = review.text(&["spec", "user"]).to_owned();
    let mut errors = ErrorList::new();
    let spec = Path::new("spec");
    if name.is_empty() && groups.is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.push(Error::invalid(&spec.child("user"), name.as_str(), detail));
    }
    if call.row.namespaced() {
        let inside = review.text(&["spec", "resourceAttributes", "namespace"]);
        if inside != call.request.namespace {
            let path = spec.child("resourceAttributes").child("namespace");
            errors.push(Error::invalid(&path, inside, "must match metadata.namespace"));
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(&call.row.gvk(), "", &errors));
    }
    let extra = review.map(&["spec", "extra"]).into_iter().flatten();
    let extra = extra
        .map(|(key, values)| (key.clone(), texts(values.as_array().map(Vec::as_slice).unwrap_or_default())))
        .collect();
    Ok(UserInfo { name, uid: review.text(&["spec", "uid"]).to_owned(), groups, extra })
}

/// May the user do what the review asks about?
async fn access(call: &Call<'_>, user: &UserInfo, review: Value) -> Result<Value, ApiError> {
    let resource = review.at(&["spec", "resourceAttributes"]).filter(|value| value.is_object());
    let path = review.at(&["spec", "nonResourceAttributes"]).filter(|value| value.is_object());
    let invalid = |errors: &ErrorList| ApiError::invalid(&call.row.gvk(), "", errors);
    let at = Path::new("spec").child("resourceAttributes");
    let selectors = resource.map(|resource| Selectors::read(resource, &at)).transpose();
    let selectors = selectors.map_err(|errors| invalid(&errors))?.unwrap_or_default();
    let attributes = match (resource, path) {
        (Some(resource), None) => Attributes {
            version: resource.text(&["version"]),
            subresource: resource.text(&["subresource"]),
            namespace: resource.text(&["namespace"]),
            name: resource.text(&["name"]),
            fields: &selectors.fields,
            labels: &selectors.labels,
            ..Attributes::for_resource(
                user,
                resource.text(&["verb"]),
                resource.text(&["group"]),
                resource.text(&["resource"]),
            )
        },
        (None, Some(path)) => Attributes::for_path(user, path.text(&["verb"]), path.text(&["path"])),
        _ => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let error = Error::invalid(&Path::new("spec"), Value::Null, detail);
            return Err(invalid(&ErrorList::from(vec![error])));
        }
    };
    let decision = call.server.authorization.authorize(&attributes).await;
    let mut status = json!({"allowed": decision.allowed()});
    if matches!(decision, Decision::Deny(_)) {
        status["denied"] = json!(true);
    }
    if !decision.reason().is_empty() {
        status["reason"] = json!(decision.reason());
    }
    Ok(with_status(review, status))
}

/// Everything the caller may do in a namespace.
async fn rules(call: &Call<'_>, review: Value) -> Result<Value, ApiError> {
    let namespace = review.text(&["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let all = skep_auth::authorization::MASTERS;
    let mut resources = Vec::new();
    let mut paths = Vec::new();
    if call.user.groups.iter().any(|group| group == all) {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    let snapshot = call.server.rbac.as_ref().map(|rbac| rbac.snapshot());
    let found = snapshot.map(|snapshot| snapshot.rules_for(call.user, namespace)).unwrap_or_default();
    for rule in &found {
        let rule = serde_json::to_value(rule)
            .map_err(|error| ApiError::internal(format!("a rule can't be encoded: {error}")))?;
        if rule.items(&["nonResourceURLs"]).is_empty() {
            resources.push(rule);
        } else {
            paths.push(rule);
        }
    }
    let status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    Ok(with_status(review, status))
}
