//! The `spec` of a SubjectAccessReview: as it is sent, and as match conditions see it. Pure.

use serde_json::{Map, Value, json};
use skep_api::selector::{FieldRequirement, Operator, Requirement};

use crate::authorization::Attributes;

/// As it is sent in a version of `authorization.k8s.io`: what is empty is left out.
pub(super) fn spec(attributes: &Attributes<'_>, version: &str) -> Value {
    let user = attributes.user;
    let mut spec = json!({});
    let mut put = |key: &str, value: Value, empty: bool| {
        if !empty {
            spec[key] = value;
        }
    };
    let groups = if version == "v1beta1" { "group" } else { "groups" };
    put("user", json!(user.name), user.name.is_empty());
    put("uid", json!(user.uid), user.uid.is_empty());
    put(groups, json!(user.groups), user.groups.is_empty());
    put("extra", json!(user.extra), user.extra.is_empty());
    if !attributes.is_resource {
        spec["nonResourceAttributes"] = json!({"path": attributes.path, "verb": attributes.verb});
        return spec;
    }
    let mut resource = names(attributes);
    resource.retain(|_, value| value != "");
    // Older reviews know no selectors.
    if version != "v1beta1" {
        resource.extend(selectors(attributes));
    }
    spec["resourceAttributes"] = resource.into();
    spec
}

/// As match conditions see it: every text is there, if only empty.
pub(super) fn complete(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut spec = json!({"user": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
    if attributes.is_resource {
        let mut resource = names(attributes);
        resource.extend(selectors(attributes));
        spec["resourceAttributes"] = resource.into();
    } else {
        spec["nonResourceAttributes"] = json!({"path": attributes.path, "verb": attributes.verb});
    }
    spec
}

fn names(attributes: &Attributes<'_>) -> Map<String, Value> {
    [
        ("namespace", attributes.namespace),
        ("verb", attributes.verb),
        ("group", attributes.group),
        ("version", attributes.version),
        ("resource", attributes.resource),
        ("subresource", attributes.subresource),
        ("name", attributes.name),
    ]
    .into_iter()
    .map(|(key, text)| (key.to_owned(), text.into()))
    .collect()
}

fn selectors(attributes: &Attributes<'_>) -> impl Iterator<Item = (String, Value)> {
    let field = |one: &FieldRequirement| {
        let operator = if one.negated { "NotIn" } else { "In" };
        json!({"key": one.field, "operator": operator, "values": [one.value]})
    };
    let label = |one: &Requirement| {
        let (operator, values) = match &one.operator {
            Operator::In(values) => ("In", values.as_slice()),
            Operator::NotIn(values) => ("NotIn", values.as_slice()),
            Operator::Exists => ("Exists", &[][..]),
            Operator::DoesNotExist => ("DoesNotExist", &[][..]),
            // The API has no word for them; leaving one out only widens what is asked about.
            Operator::GreaterThan(_) | Operator::LessThan(_) => return None,
        };
        let mut one = json!({"key": one.key, "operator": operator});
        if !values.is_empty() {
            one["values"] = json!(values);
        }
        Some(one)
    };
    let fields: Vec<Value> = attributes.fields.iter().map(field).collect();
    let labels: Vec<Value> = attributes.labels.iter().filter_map(label).collect();
    [("fieldSelector", fields), ("labelSelector", labels)]
        .into_iter()
        .filter(|(_, requirements)| !requirements.is_empty())
        .map(|(key, requirements)| (key.to_owned(), json!({"requirements": requirements})))
}

#[cfg(test)]
mod tests {
    use skep_api::selector::{FieldSelector, LabelSelector};
    use skep_api::user::UserInfo;

    use super::*;

    #[test]
    fn selectors_go_along() {
        let user = UserInfo { name: "jane".into(), groups: vec!["dev".into()], ..UserInfo::default() };
        let fields = FieldSelector::parse("spec.nodeName=n,status.phase!=Failed").unwrap();
        let labels = LabelSelector::parse("a in (b,c),!d,e,f>1").unwrap();
        let attributes = Attributes {
            namespace: "ns",
            fields: fields.requirements(),
            labels: labels.requirements(),
            ..Attributes::for_resource(&user, "list", "", "pods")
        };
        let resource = json!({
            "namespace": "ns", "verb": "list", "resource": "pods",
            "fieldSelector": {"requirements": [
                {"key": "spec.nodeName", "operator": "In", "values": ["n"]},
                {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]},
            ]},
            "labelSelector": {"requirements": [
                {"key": "a", "operator": "In", "values": ["b", "c"]},
                {"key": "d", "operator": "DoesNotExist"},
                {"key": "e", "operator": "Exists"},
            ]},
        });
        assert_eq!(
            spec(&attributes, "v1"),
            json!({"user": "jane", "groups": ["dev"], "resourceAttributes": resource})
        );
        let old = spec(&attributes, "v1beta1");
        assert_eq!(old["group"], json!(["dev"]));
        assert_eq!(old["resourceAttributes"], json!({"namespace": "ns", "verb": "list", "resource": "pods"}));
        let whole = complete(&attributes);
        assert_eq!(whole["uid"], "");
        assert_eq!(whole["resourceAttributes"]["subresource"], "");
        assert_eq!(whole["resourceAttributes"]["fieldSelector"], resource["fieldSelector"]);
    }
}
