//! `serviceaccounts/token`: short-lived tokens for a service account; and where their key is told.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_auth::authentication::bearer::Bearer;
use skep_auth::tokens::{Signer, TokenSubject, token_request};
use skep_registry::Target;

use crate::resources::Call;
use crate::respond::{self, Answer};

/// Who makes tokens and who verifies them.
#[derive(Clone)]
pub struct Tokens {
    /// Signs service-account tokens.
    pub signer: Arc<Signer>,
    /// Verifies every kind of bearer token: answers TokenReviews.
    pub bearer: Arc<Bearer>,
}

/// Answers a TokenRequest.
pub(crate) async fn issue(call: &Call<'_>, request: &Value) -> Result<(Value, Vec<String>), ApiError> {
    let tokens = call
        .server
        .tokens
        .as_ref()
        .ok_or_else(|| ApiError::service_unavailable("this server issues no service account tokens"))?;
    let registry = &call.server.registry;
    let account = registry.get(&call.target().below(""), None).await?;
    let find = async |resource: &str, namespace: &str, name: &str| {
        let target = Target::new(GroupVersionResource::new("", "v1", resource), namespace, name);
        match registry.get(&target, None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    };
    let reference = request.pointer("/spec/boundObjectRef").unwrap_or(&Value::Null);
    let name = reference.text(&["name"]);
    let bound = match reference.text(&["kind"]) {
        "Pod" => find("pods", &account.namespace, name).await?,
        "Secret" => find("secrets", &account.namespace, name).await?,
        "Node" => find("nodes", "", name).await?,
        _ => None,
    };
    let node_name = bound.as_ref().map_or("", |bound| bound.value.text(&["spec", "nodeName"]));
    let node = if node_name.is_empty() { None } else { find("nodes", "", node_name).await? };
    let subject = TokenSubject {
        account: &account.value,
        bound: bound.as_ref().map(|bound| &*bound.value),
        node: node.as_ref().map(|node| &*node.value),
    };
    token_request(&tokens.signer, request, &subject)
}

/// The OpenID documents of the issuer; `None` for other paths.
pub(crate) fn documents(tokens: Option<&Tokens>, path: &str) -> Option<Answer> {
    let signer = &tokens?.signer;
    match path {
        "/.well-known/openid-configuration" => {
            Some(respond::json(StatusCode::OK, &signer.discovery_document()))
        }
        "/openid/v1/jwks" => {
            let body = signer.jwks().to_string();
            Some(respond::bytes(StatusCode::OK, "application/jwk-set+json", body))
        }
        _ => None,
    }
}
