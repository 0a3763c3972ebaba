//! ComponentStatus, which nobody stores: what the server itself finds when it asks its parts. Only the store is a part
//! it can ask; the other components tell through their leases and metrics.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use skep_api::error::ApiError;

use crate::negotiate::Shape;
use crate::resources::Call;
use crate::respond::{self, Answer};
use crate::shapes;

/// The name `kubectl get componentstatuses` has for the store.
const STORE: &str = "etcd-0";

/// Answers `get` and `list`.
pub(crate) async fn handle(call: &Call<'_>) -> Result<Answer, ApiError> {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(ApiError::method_not_supported(&call.row.gvr(), call.method.as_str()));
    }
    let form = call.form(true)?;
    let store = store(call).await;
    let name = call.request.name.as_str();
    Ok(if name.is_empty() {
        let list = match form.shape {
            Shape::Table => {
                let rows = shapes::rows(&call.row, std::iter::once(&store), form.version, call.include());
                shapes::table(&call.row, true, json!({}), rows, form.version)
            }
            _ => json!({
                "kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": [store],
            }),
        };
        let form = crate::negotiate::Form { shape: Shape::Object, ..form };
        respond::value(StatusCode::OK, &form, None, &list, call.include())?
    } else if name == STORE {
        respond::value(StatusCode::OK, &form, Some(&call.row), &store, call.include())?
    } else {
        return Err(ApiError::not_found(&call.row.gvr(), name));
    })
}

async fn store(call: &Call<'_>) -> Value {
    let condition = match call.server.registry.ping().await {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(error) => json!({"type": "Healthy", "status": "False", "message": error.message}),
    };
    json!({
        "kind": "ComponentStatus", "apiVersion": "v1",
        "metadata": {"name": STORE, "creationTimestamp": null},
        "conditions": [condition],
    })
}
