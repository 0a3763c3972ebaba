//! `serviceaccounts/token`: short-lived tokens for a service account.

use async_trait::async_trait;
use serde_json::Value;
use skep_api::error::ApiError;

use crate::resources::Call;

/// Makes the token of a TokenRequest.
#[async_trait]
pub trait TokenIssuer: Send + Sync + 'static {
    /// Fills in the status of a request for this service account.
    async fn issue(&self, account: &Value, request: &Value) -> Result<Value, ApiError>;
}

/// Answers a TokenRequest.
pub(crate) async fn issue(call: &Call<'_>, request: &Value) -> Result<Value, ApiError> {
    let issuer = call
        .server
        .tokens
        .as_ref()
        .ok_or_else(|| ApiError::service_unavailable("this server issues no service account tokens"))?;
    let target = call.target().sub("");
    let account = call.server.registry.get(&target, None).await?;
    issuer.issue(&account.value, request).await
}
