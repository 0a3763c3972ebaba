//! Automatic registration: an APIService for each group-version that this server serves itself, built in
//! (made sure of once at start) or by a CustomResourceDefinition (kept for as long as that is there).
//! What somebody else wrote, or took the label off, is left alone.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};
use skep_api::object::ObjectExt;

use super::priorities::{self, Priority};
use super::table::{GroupVersion, OWN_GROUP};

/// Says that an APIService is ours, and how it is kept.
const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Made sure of once.
const ON_START: &str = "onstart";

/// Kept all the time.
const ALWAYS: &str = "true";

/// What should be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    at: GroupVersion,
    always: bool,
}

/// What is to be done about one APIService.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Create(Value),
    Update(Value),
    /// By name and uid.
    Delete(String, String),
}

/// Everything that should be registered, by the name of its APIService.
pub(super) fn wanted<'a>(
    built_in: impl IntoIterator<Item = (&'a str, &'a str)>,
    definitions: impl IntoIterator<Item = &'a Value>,
) -> BTreeMap<String, Wanted> {
    let mut wanted = BTreeMap::new();
    for definition in definitions {
        let group = definition.text(&["spec", "group"]);
        for version in definition.items(&["spec", "versions"]) {
            if version.flag(&["served"]) {
                let at = GroupVersion::new(group, version.text(&["name"]));
                wanted.insert(at.service_name(), Wanted { at, always: true });
            }
        }
    }
    for (group, version) in built_in {
        if group != OWN_GROUP {
            let at = GroupVersion::new(group, version);
            wanted.insert(at.service_name(), Wanted { at, always: false });
        }
    }
    wanted
}

impl Wanted {
    fn spec(&self) -> Value {
        let Priority { group, version } = if self.always {
            priorities::CUSTOM
        } else {
            priorities::built_in(&self.at.group, &self.at.version)
        };
        let mut spec = json!({
            "version": self.at.version,
            "groupPriorityMinimum": group,
            "versionPriority": version,
        });
        if !self.at.group.is_empty() {
            spec["group"] = json!(self.at.group);
        }
        spec
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {
                "name": self.at.service_name(),
                "labels": {LABEL: if self.always { ALWAYS } else { ON_START }},
            },
            "spec": self.spec(),
        })
    }
}

/// Remembers what was there when this server started and what it has made sure of since.
#[derive(Debug, Default)]
pub(super) struct Registrar {
    at_start: Option<HashSet<String>>,
    done: HashSet<String>,
}

impl Registrar {
    /// What to do, given what is wanted and what is there.
    pub(super) fn plan<'a>(
        &mut self,
        wanted: &BTreeMap<String, Wanted>,
        there: impl IntoIterator<Item = &'a Value>,
    ) -> Vec<Action> {
        let there: BTreeMap<&str, &Value> = there.into_iter().map(|object| (object.name(), object)).collect();
        let at_start =
            self.at_start.get_or_insert_with(|| there.keys().map(|name| (*name).to_owned()).collect());
        let mut actions = Vec::new();
        for (name, wanted) in wanted {
            let first = self.done.insert(name.clone());
            if !wanted.always && !first {
                continue;
            }
            let Some(current) = there.get(name.as_str()) else {
                actions.push(Action::Create(wanted.object()));
                continue;
            };
            let managed = match current.label(LABEL) {
                Some(ALWAYS) => true,
                Some(ON_START) => at_start.contains(name) && first,
                _ => false,
            };
            if managed && !same(current.get("spec"), &wanted.spec()) {
                let mut object = Value::clone(current);
                object["spec"] = wanted.spec();
                actions.push(Action::Update(object));
            }
        }
        for (name, current) in there {
            if wanted.contains_key(name) {
                continue;
            }
            let spurious = match current.label(LABEL) {
                Some(ALWAYS) => true,
                Some(ON_START) => at_start.contains(name) && self.done.insert(name.to_owned()),
                _ => false,
            };
            if spurious {
                actions.push(Action::Delete(name.to_owned(), current.uid().to_owned()));
            }
        }
        actions
    }
}

/// Equal but for fields that are absent here and empty there.
fn same(current: Option<&Value>, wanted: &Value) -> bool {
    let Some(current) = current.and_then(Value::as_object) else { return false };
    let set = |value: &Value| !(value.is_null() || value == "" || value == false);
    let ours = wanted.as_object().into_iter().flatten();
    ours.clone().all(|(name, value)| current.get(name) == Some(value))
        && current.iter().all(|(name, value)| !set(value) || wanted.get(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(name: &str, label: Option<&str>, spec: &Value) -> Value {
        let mut object = json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": spec});
        if let Some(label) = label {
            object["metadata"]["labels"] = json!({LABEL: label});
        }
        object
    }

    #[test]
    fn built_in_ones_are_made_sure_of_once_and_custom_ones_kept() {
        let definition = json!({"spec": {"group": "example.com", "versions": [
            {"name": "v1", "served": true}, {"name": "v2", "served": false},
        ]}});
        let wanted = wanted([("apps", "v1"), ("", "v1"), (OWN_GROUP, "v1")], [&definition]);
        assert_eq!(wanted.keys().collect::<Vec<_>>(), ["v1.", "v1.apps", "v1.example.com"]);
        let mut registrar = Registrar::default();
        let old = [
            registered(
                "v1.",
                Some(ON_START),
                &json!({"version": "v1", "groupPriorityMinimum": 5, "versionPriority": 1}),
            ),
            registered("v1.gone", Some(ON_START), &json!({})),
            registered("v1.dropped", Some(ALWAYS), &json!({})),
            registered("v1.foreign", None, &json!({})),
        ];
        let names: Vec<String> = registrar
            .plan(&wanted, &old)
            .iter()
            .map(|action| match action {
                Action::Create(object) => format!("+{}", object.name()),
                Action::Update(object) => format!("~{}", object.name()),
                Action::Delete(name, uid) => format!("-{name}/{uid}"),
            })
            .collect();
        let deletions = ["-v1.dropped/uid-v1.dropped", "-v1.gone/uid-v1.gone"];
        assert_eq!(names, [&["~v1.", "+v1.apps", "+v1.example.com"][..], &deletions].concat());
        // Somebody deletes both: only the custom resource's comes back.
        let actions = registrar.plan(&wanted, []);
        assert_eq!(actions.len(), 1);
        assert!(matches!(&actions[0], Action::Create(object) if object.name() == "v1.example.com"));
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written() {
        let wanted = wanted([("apps", "v1")], []);
        let mut object = wanted["v1.apps"].object();
        object["spec"]["insecureSkipTLSVerify"] = json!(false);
        let mut registrar = Registrar::default();
        assert_eq!(registrar.plan(&wanted, [&object]), []);
        // With the label taken off it is somebody else's.
        object["metadata"]["labels"] = json!({});
        object["spec"]["versionPriority"] = json!(3);
        assert_eq!(Registrar::default().plan(&wanted, [&object]), []);
    }
}
