//! A configuration laid over an object without anybody owning its fields: what mutating policies do.

use serde_json::Value;

use super::typed::{faults, merge};
use super::types::{Form, Node};
use super::{PathElement, Types, print_path};
use crate::{Error, Result};

/// Merges a configuration over an object. Lists and maps that are owned as one may not occur in it: the
/// merge would replace all of them, which is hardly what was meant.
pub fn overlay(types: Types<'_>, object: &Value, config: &Value) -> Result<Value> {
    let root = types.root();
    let faults = faults(root, config);
    if !faults.is_empty() {
        let faults = faults.join("\n  ");
        return Err(Error::bad_request(format!("failed to convert patch object to typed object: {faults}")));
    }
    let mut whole = Vec::new();
    atomics(root, config, &mut Vec::new(), &mut whole);
    if !whole.is_empty() {
        return Err(Error::bad_request(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            whole.join(", ")
        )));
    }
    Ok(merge(root, object, config))
}

fn atomics(node: Node<'_>, value: &Value, path: &mut Vec<PathElement>, found: &mut Vec<String>) {
    let leaf = node.form(value) == Form::Leaf;
    match value {
        Value::Object(_) | Value::Array(_) if leaf => found.push(print_path(path)),
        Value::Object(map) => {
            for (name, child) in map {
                let Some((below, _)) = node.child(name) else { continue };
                path.push(PathElement::field(name.as_str()));
                atomics(below, child, path, found);
                path.pop();
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                path.push(PathElement::Index(at));
                atomics(node.element(), item, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use skep_api::resource::GroupVersionKind;

    use super::*;

    #[test]
    fn keyed_lists_merge_and_atomic_ones_are_refused() {
        let types = Types::of(&GroupVersionKind::new("", "v1", "Pod"));
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "1"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"b": "2"}},
            "spec": {"initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "c", "tty": true}]}});
        let merged = overlay(types, &pod, &config).unwrap();
        assert_eq!(merged["metadata"]["labels"], json!({"a": "1", "b": "2"}));
        assert_eq!(merged["spec"]["containers"], json!([{"name": "c", "image": "i", "tty": true}]));
        assert_eq!(merged["spec"]["initContainers"][0]["name"], "i");
        let whole = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "args": ["a"]}]}});
        let error = overlay(types, &pod, &whole).unwrap_err().to_string();
        assert!(error.contains("may not mutate atomic arrays, maps or structs: .spec.containers"), "{error}");
        let unknown = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nope": 1}});
        assert!(overlay(types, &pod, &unknown).is_err());
    }
}
