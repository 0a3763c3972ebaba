//! `fieldSelector` and `labelSelector` of the resource attributes of an access review (KEP-4601). Pure.

use serde_json::Value;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;
use skep_api::selector::{FieldRequirement, FieldSelector, LabelSelector, Operator, Requirement};

/// What a review says of the objects it asks about.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    pub(super) fields: Vec<FieldRequirement>,
    pub(super) labels: Vec<Requirement>,
}

impl Selectors {
    /// Reads both. What authorizers have no words for is left out: that only widens the question.
    pub(super) fn read(attributes: &Value, path: &Path) -> Result<Self, ErrorList> {
        let mut errors = ErrorList::new();
        let mut part = |name: &str| {
            let selector = attributes.at(&[name]).filter(|selector| selector.is_object())?;
            check(selector, &path.child(name), &mut errors);
            Some((selector.text(&["rawSelector"]), selector.items(&["requirements"])))
        };
        let (fields, labels) = (part("fieldSelector"), part("labelSelector"));
        if !errors.is_empty() {
            return Err(errors);
        }
        let fields = fields.map(|(raw, list)| match raw {
            "" => list.iter().filter_map(field).collect(),
            raw => FieldSelector::parse(raw).unwrap_or_default().requirements().to_vec(),
        });
        let labels = labels.map(|(raw, list)| match raw {
            "" => list.iter().filter_map(label).collect(),
            raw => LabelSelector::parse(raw).unwrap_or_default().requirements().to_vec(),
        });
        Ok(Self { fields: fields.unwrap_or_default(), labels: labels.unwrap_or_default() })
    }
}

fn check(selector: &Value, path: &Path, errors: &mut ErrorList) {
    let (raw, list) = (selector.text(&["rawSelector"]), selector.items(&["requirements"]));
    let requirements = path.child("requirements");
    if !raw.is_empty() && !list.is_empty() {
        let why = "may not specified at the same time as requirements";
        errors.push(Error::invalid(&path.child("rawSelector"), raw, why));
    }
    if raw.is_empty() && list.is_empty() {
        let why = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(Error::required(&requirements, why));
    }
    for (index, one) in list.iter().enumerate() {
        let path = requirements.index(index);
        if one.text(&["key"]).is_empty() {
            errors.push(Error::required(&path.child("key"), "must be specified"));
        }
        let none = one.items(&["values"]).is_empty();
        let values = path.child("values");
        match one.text(&["operator"]) {
            "In" | "NotIn" if none => {
                errors.push(Error::required(&values, "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !none => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(Error::forbidden(&values, why));
            }
            _ => {}
        }
    }
}

fn values(one: &Value) -> Vec<String> {
    one.items(&["values"]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn field(one: &Value) -> Option<FieldRequirement> {
    let negated = match one.text(&["operator"]) {
        "In" => false,
        "NotIn" => true,
        _ => return None,
    };
    let [value] = <[String; 1]>::try_from(values(one)).ok()?;
    Some(FieldRequirement { field: one.text(&["key"]).to_owned(), value, negated })
}

fn label(one: &Value) -> Option<Requirement> {
    let operator = match one.text(&["operator"]) {
        "In" => Operator::In(values(one)),
        "NotIn" => Operator::NotIn(values(one)),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => return None,
    };
    Some(Requirement { key: one.text(&["key"]).to_owned(), operator })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_are_read_and_checked() {
        let path = Path::new("spec").child("resourceAttributes");
        let read = |attributes: Value| Selectors::read(&attributes, &path);
        let found = read(json!({
            "fieldSelector": {"requirements": [
                {"key": "spec.nodeName", "operator": "In", "values": ["n"]},
                {"key": "a", "operator": "In", "values": ["b", "c"]},
                {"key": "d", "operator": "Later", "values": ["e"]},
            ]},
            "labelSelector": {"rawSelector": "a in (b,c),!d"},
        }));
        let found = found.expect("selectors");
        let node = FieldRequirement { field: "spec.nodeName".into(), value: "n".into(), negated: false };
        assert_eq!(found.fields, [node]);
        assert_eq!(found.labels.len(), 2);
        let errors = read(json!({
            "fieldSelector": {"rawSelector": "a=b", "requirements": [
                {"operator": "In"}, {"key": "k", "operator": "Exists", "values": ["v"]},
            ]},
            "labelSelector": {},
        }));
        let lines = errors.expect_err("errors").lines();
        assert_eq!(
            lines,
            [
                "spec.resourceAttributes.fieldSelector.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements",
                "spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must be specified",
                "spec.resourceAttributes.fieldSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.resourceAttributes.fieldSelector.requirements[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                "spec.resourceAttributes.labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required",
            ]
        );
    }
}
