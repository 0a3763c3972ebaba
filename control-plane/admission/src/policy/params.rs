//! The parameters of a binding.

use std::sync::Arc;

use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionKind;
use skep_api::selector::LabelSelector;

use crate::Reader;

/// The objects a binding gives its policy, one evaluation each; `None` is an evaluation without.
///
/// The error says what is wrong with the configuration.
pub(super) async fn collect(
    reader: &dyn Reader,
    kind: Option<&GroupVersionKind>,
    reference: Option<&Value>,
    namespace: &str,
) -> Result<Vec<Option<Arc<Value>>>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![None]) };
    let Some(gvr) = reader.resource_of(kind) else {
        return Err(format!("failed to find resource referenced by paramKind: '{kind}'"));
    };
    let given = reference.text(&["namespace"]);
    let scope = if reader.is_namespaced(&gvr) {
        let namespace = if given.is_empty() { namespace } else { given };
        if namespace.is_empty() {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .to_owned(),
            );
        }
        Some(namespace)
    } else if given.is_empty() {
        None
    } else {
        return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
    };
    let text = |error: ApiError| error.message;
    let name = reference.text(&["name"]);
    let found: Vec<Arc<Value>> = match (name, reference.at(&["selector"])) {
        ("", None) => return Err("one of name or selector must be provided".to_owned()),
        ("", selector) => {
            let selector = LabelSelector::from_object(selector).map_err(|error| error.to_string())?;
            let all = reader.list(&gvr, scope).await.map_err(text)?;
            all.into_iter().filter(|object| selector.matches(object.labels())).collect()
        }
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned()),
        (name, None) => reader.get(&gvr, scope, name).await.map_err(text)?.into_iter().collect(),
    };
    if found.is_empty() && reference.text(&["parameterNotFoundAction"]) == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found.into_iter().map(Some).collect())
}
