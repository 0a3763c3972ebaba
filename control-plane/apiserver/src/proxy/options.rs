//! The query of a connection as the object that admission sees: `PodExecOptions` and the like.

use serde_json::{Map, Value, json};

use crate::resources::Call;

/// The options object of a request to `exec`, `attach`, `portforward` or `proxy`.
pub(super) fn options(call: &Call<'_>) -> Value {
    let subresource = call.request.subresource.as_str();
    let kind = call.row.subresource(subresource).map(|known| known.kind.kind).unwrap_or_default();
    let mut object = Map::new();
    object.insert("kind".to_owned(), json!(kind));
    object.insert("apiVersion".to_owned(), json!("v1"));
    match subresource {
        "exec" | "attach" => {
            for name in ["stdin", "stdout", "stderr", "tty"] {
                if call.query.flag(name) {
                    object.insert(name.to_owned(), json!(true));
                }
            }
            if let Some(container) = call.query.get("container") {
                object.insert("container".to_owned(), json!(container));
            }
            if subresource == "exec" {
                let words: Vec<&str> = call.query.all("command").collect();
                object.insert("command".to_owned(), json!(words));
            }
        }
        "portforward" => {
            let ports = call.query.all("ports").flat_map(|ports| ports.split(','));
            let ports: Vec<u16> = ports.filter_map(|port| port.parse().ok()).collect();
            if !ports.is_empty() {
                object.insert("ports".to_owned(), json!(ports));
            }
        }
        _ => {
            if let Some(rest) = call.request.rest.as_deref().filter(|rest| !rest.is_empty()) {
                object.insert("path".to_owned(), json!(rest));
            }
        }
    }
    Value::Object(object)
}
