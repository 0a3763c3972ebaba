//! Which names a definition gets, and the conditions that say so: pure.

use serde_json::{Value, json};
use skep_api::object::ObjectExt;

use super::definition::is_true;

/// The annotation that protected groups must carry.
pub(crate) const APPROVED: &str = "api-approved.kubernetes.io";

/// The finalizer that keeps a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) kind: &'static str,
    pub(crate) status: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Condition {
    pub(crate) fn new(
        kind: &'static str,
        status: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, status, reason, message: message.into() }
    }
}

/// Writes a condition; the time of transition moves when the status does.
pub(crate) fn set_condition(definition: &mut Value, condition: &Condition, now: &str) {
    let mut conditions = definition.items(&["status", "conditions"]).to_vec();
    let wanted = |time: &str| {
        json!({
            "type": condition.kind,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
            "lastTransitionTime": time,
        })
    };
    match conditions.iter_mut().find(|old| old.text(&["type"]) == condition.kind) {
        Some(old) => {
            let since = old.text(&["lastTransitionTime"]);
            let kept = old.text(&["status"]) == condition.status && !since.is_empty();
            let time = if kept { since.to_owned() } else { now.to_owned() };
            *old = wanted(&time);
        }
        None => conditions.push(wanted(now)),
    }
    definition.set(&["status", "conditions"], conditions);
}

/// Removes a condition.
pub(crate) fn remove_condition(definition: &mut Value, kind: &str) {
    let conditions = definition.items(&["status", "conditions"]).iter();
    let kept: Vec<Value> = conditions.filter(|c| c.text(&["type"]) != kind).cloned().collect();
    definition.set(&["status", "conditions"], kept);
}

/// The names others of the group hold.
#[derive(Default)]
struct Taken<'a> {
    resources: Vec<&'a str>,
    kinds: Vec<&'a str>,
}

/// What the status of a definition should say of its names, given all definitions. `None`: what it
/// says already.
pub(crate) fn accept(definition: &Value, all: &[&Value], now: &str) -> Option<Value> {
    let wanted = definition.at(&["spec", "names"])?;
    let accepted = definition.at(&["status", "acceptedNames"]).cloned().unwrap_or_else(|| json!({}));
    if crate::strategy::check::same(wanted, &accepted) {
        return None;
    }
    let mut taken = Taken::default();
    for other in all.iter().filter(|other| same_group(other, definition)) {
        let names = other.at(&["status", "acceptedNames"]);
        let text = |field: &str| names.map(|names| names.text(&[field])).unwrap_or_default();
        taken.resources.extend([text("plural"), text("singular")]);
        let short = names.map(|names| names.items(&["shortNames"])).unwrap_or_default();
        taken.resources.extend(short.iter().filter_map(Value::as_str));
        taken.kinds.extend([text("kind"), text("listKind")]);
    }
    let mut names = accepted.clone();
    let mut condition = Condition::new("NamesAccepted", "True", "NoConflicts", "no conflicts found");
    let mut refuse = |reason, message| condition = Condition::new("NamesAccepted", "False", reason, message);
    let in_use = |name: &str| format!("{name:?} is already in use");
    let fields = [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ];
    for (field, reason, taken) in fields {
        let name = wanted.text(&[field]);
        if name != accepted.text(&[field]) && taken.contains(&name) {
            refuse(reason, in_use(name));
        } else {
            names.set(&[field], name);
        }
        if field == "singular" {
            let own = accepted.items(&["shortNames"]);
            let fresh = wanted.items(&["shortNames"]).iter().filter(|name| !own.contains(name));
            let used: Vec<&str> =
                fresh.filter_map(Value::as_str).filter(|name| taken.contains(name)).collect();
            match used.as_slice() {
                [] => copy(wanted, &mut names, "shortNames"),
                [one] => refuse("ShortNamesConflict", in_use(one)),
                more => {
                    let texts: Vec<String> = more.iter().map(|name| in_use(name)).collect();
                    refuse("ShortNamesConflict", format!("[{}]", texts.join(", ")));
                }
            }
        }
    }
    copy(wanted, &mut names, "categories");
    let mut new = definition.clone();
    new.set(&["status", "acceptedNames"], names);
    set_condition(&mut new, &condition, now);
    if !is_true(definition, "Established") {
        let established = if condition.status == "True" {
            Condition::new("Established", "False", "Installing", "the initial names have been accepted")
        } else {
            Condition::new("Established", "False", "NotAccepted", "not all names are accepted")
        };
        set_condition(&mut new, &established, now);
    }
    (new != *definition).then_some(new)
}

fn copy(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) => to.set(&[field], value.clone()),
        None => _ = to.unset(&[field]),
    }
}

fn same_group(a: &Value, b: &Value) -> bool {
    a.text(&["spec", "group"]) == b.text(&["spec", "group"])
}

/// The deletion of a definition begins: its objects go first.
pub(crate) fn begin_delete(definition: &mut Value) {
    let mut finalizers: Vec<Value> = definition.finalizers().into_iter().map(Value::from).collect();
    if !finalizers.iter().any(|name| name == CLEANUP) {
        finalizers.push(CLEANUP.into());
    }
    definition.set(&["metadata", "finalizers"], finalizers);
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    let condition = Condition::new("Terminating", "True", "InstanceDeletionPending", message);
    set_condition(definition, &condition, &crate::store::now());
}

/// Is the group one of the project's own, which need approval?
pub(crate) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')))
}

/// Whether the API of a definition in a protected group was approved, and in what words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Approval {
    Invalid,
    Approved,
    Bypassed,
    Missing,
}

/// Reads the annotation.
pub(crate) fn approval(definition: &Value) -> (Approval, String) {
    let annotation = definition.annotation(APPROVED).unwrap_or_default();
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let must = format!("protected groups must have approval annotation {APPROVED:?}");
    let is_url = annotation.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
            && !rest.starts_with('/')
            && !rest.is_empty()
    });
    match annotation {
        "" => (Approval::Missing, format!("{must}, {see}")),
        text if text.starts_with("unapproved") => (Approval::Bypassed, format!("not approved: {text:?}")),
        text if is_url => (Approval::Approved, format!("approved in {text}")),
        _ => (
            Approval::Invalid,
            format!("{must} with either a URL or a reason starting with \"unapproved\", {see}"),
        ),
    }
}

/// The condition that tells of the approval; none for groups of others.
pub(crate) fn approval_condition(definition: &Value) -> Option<Condition> {
    if !is_protected(definition.text(&["spec", "group"])) {
        return None;
    }
    let (approval, message) = approval(definition);
    let (status, reason) = match approval {
        Approval::Invalid => ("False", "InvalidAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
    };
    Some(Condition::new("KubernetesAPIApprovalPolicyConformant", status, reason, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2024-01-01T00:00:00Z";

    fn definition(name: &str, plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {"group": "example.com", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                "listKind": format!("{kind}List"), "shortNames": short,
            }},
        })
    }

    fn condition<'v>(definition: &'v Value, kind: &str) -> (&'v str, &'v str, &'v str) {
        let found = definition.items(&["status", "conditions"]).iter().find(|c| c.text(&["type"]) == kind);
        found.map_or(("", "", ""), |c| (c.text(&["status"]), c.text(&["reason"]), c.text(&["message"])))
    }

    #[test]
    fn names_are_given_to_the_first() {
        let first = definition("widgets.example.com", "widgets", "Widget", &["w"]);
        let first = accept(&first, &[&first], NOW).expect("new");
        assert_eq!(condition(&first, "NamesAccepted"), ("True", "NoConflicts", "no conflicts found"));
        assert_eq!(condition(&first, "Established").1, "Installing");
        assert_eq!(accept(&first, &[&first], NOW), None);

        let second = definition("wobbles.example.com", "wobbles", "Widget", &["w"]);
        let second = accept(&second, &[&first, &second], NOW).expect("new");
        let conflict = ("False", "ListKindConflict", "\"WidgetList\" is already in use");
        assert_eq!(condition(&second, "NamesAccepted"), conflict);
        assert_eq!(condition(&second, "Established"), ("False", "NotAccepted", "not all names are accepted"));
        assert_eq!(second["status"]["acceptedNames"]["plural"], "wobbles");
        assert_eq!(second["status"]["acceptedNames"].get("kind"), None);
        // The first goes: its names are free.
        let free = accept(&second, &[&second], NOW).expect("changed");
        assert_eq!(condition(&free, "NamesAccepted").0, "True");
    }

    #[test]
    fn protected_groups_need_approval() {
        assert!(is_protected("apps.k8s.io") && is_protected("k8s.io") && !is_protected("myk8s.io"));
        let with = |text: &str| json!({"metadata": {"annotations": {APPROVED: text}}});
        for (text, wanted) in [
            ("https://github.com/x/pull/1", Approval::Approved),
            ("unapproved, testing", Approval::Bypassed),
            ("maybe", Approval::Invalid),
            ("", Approval::Missing),
        ] {
            assert_eq!(approval(&with(text)).0, wanted, "{text}");
        }
    }
}
