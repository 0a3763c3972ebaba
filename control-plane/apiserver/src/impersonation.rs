//! `Impersonate-*` headers: acting as somebody else, as far as one may.

use std::collections::BTreeMap;

use http::HeaderMap;
use skep_api::error::ApiError;
use skep_api::resource::GroupVersionResource;
use skep_api::user::UserInfo;
use skep_auth::authentication::unescape;
use skep_auth::authorization::Attributes;

use crate::server::Inner;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user a request is made as.
pub(crate) async fn apply(inner: &Inner, user: UserInfo, headers: &HeaderMap) -> Result<UserInfo, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let groups: Vec<String> =
        headers.get_all(GROUP).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    let extras: Vec<(String, &str)> = headers
        .iter()
        .filter_map(|(name, value)| {
            Some((unescape(name.as_str().strip_prefix(EXTRA)?), value.to_str().ok()?))
        })
        .collect();
    let (name, uid) = (text(USER), text(UID));
    if name.is_empty() {
        if groups.is_empty() && extras.is_empty() && uid.is_empty() {
            return Ok(user);
        }
        return Err(ApiError::bad_request(
            "requested impersonation without a user name: set Impersonate-User",
        ));
    }
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    if let Some((namespace, account)) = account {
        may(inner, &user, "", "serviceaccounts", "", namespace, account).await?;
    } else {
        may(inner, &user, "", "users", "", "", name).await?;
    }
    for group in &groups {
        may(inner, &user, "", "groups", "", "", group).await?;
    }
    if !uid.is_empty() {
        may(inner, &user, "authentication.k8s.io", "uids", "", "", uid).await?;
    }
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in extras {
        may(inner, &user, "authentication.k8s.io", "userextras", &key, "", value).await?;
        extra.entry(key).or_default().push(value.to_owned());
    }
    let mut all = groups;
    if let (Some((namespace, _)), true) = (account, all.is_empty()) {
        all.push("system:serviceaccounts".to_owned());
        all.push(format!("system:serviceaccounts:{namespace}"));
    }
    if name == "system:anonymous" {
        all.push("system:unauthenticated".to_owned());
        return Ok(UserInfo { name: name.to_owned(), uid: uid.to_owned(), groups: all, extra });
    }
    Ok(UserInfo { uid: uid.to_owned(), extra, ..UserInfo::new(name, all) })
}

async fn may(
    inner: &Inner,
    user: &UserInfo,
    group: &str,
    resource: &str,
    subresource: &str,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    let attributes = Attributes {
        subresource,
        namespace,
        name,
        version: "v1",
        ..Attributes::for_resource(user, "impersonate", group, resource)
    };
    let decision = inner.authorization.authorize(&attributes).await;
    if decision.allowed() {
        return Ok(());
    }
    let gvr = GroupVersionResource::new(group, "v1", resource);
    Err(ApiError::forbidden_user(
        user,
        "impersonate",
        &gvr,
        subresource,
        Some(namespace),
        name,
        decision.reason(),
    ))
}
