//! The controls of the Pod Security Standards: one pure function each, and the table of which hold from
//! which release on.
//!
//! Each control has one wording for all releases; what it allows may depend on the release it is given.
//! A control of the restricted level may take the place of a weaker one of the baseline.

mod baseline;
mod restricted;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value;
use skep_api::object::ObjectExt;

use super::policy::{Level, Standard, Version};

/// The release whose standards `latest` means.
const LATEST: u32 = 36;

/// A pod, or the template of one.
pub(super) struct Pod<'a>(&'a Value);

impl<'a> Pod<'a> {
    pub(super) fn new(object: &'a Value) -> Self {
        Self(object)
    }

    fn spec(&self, path: &[&str]) -> Option<&'a Value> {
        let mut here = self.0.get("spec")?;
        for step in path {
            here = here.get(step)?;
        }
        Some(here).filter(|value| !value.is_null())
    }

    fn list(&self, field: &str) -> &'a [Value] {
        self.spec(&[field]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let annotations = self.0.annotations().into_iter().flatten();
        annotations.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
    }

    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let lists = ["initContainers", "containers", "ephemeralContainers"].map(|list| self.list(list));
        lists.into_iter().flatten()
    }

    /// The names of the containers for which something is true.
    fn containers_where(&self, bad: impl FnMut(&&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(bad).map(|container| container.text(&["name"])).collect()
    }

    /// Who sets a field of the security context to something bad: `pod`, `container "a"`, both, nobody.
    fn setters(&self, path: &[&str], mut bad: impl FnMut(&Value) -> bool) -> Setters<'a> {
        let field = |context: Option<&'a Value>| {
            path.iter().try_fold(context?, |here, step| here.get(step)).filter(|value| !value.is_null())
        };
        let pod = field(self.spec(&["securityContext"])).is_some_and(&mut bad);
        let containers =
            self.containers_where(|container| field(container.get("securityContext")).is_some_and(&mut bad));
        Setters { pod, containers }
    }

    fn is_windows(&self) -> bool {
        self.spec(&["os", "name"]).and_then(Value::as_str) == Some("windows")
    }

    /// Its users are not the node's.
    fn has_own_users(&self) -> bool {
        self.spec(&["hostUsers"]) == Some(&Value::Bool(false))
    }
}

/// Who sets a field.
struct Setters<'a> {
    pod: bool,
    containers: Vec<&'a str>,
}

impl Setters<'_> {
    fn is_empty(&self) -> bool {
        !self.pod && self.containers.is_empty()
    }

    fn names(&self) -> Vec<String> {
        let pod = self.pod.then(|| "pod".to_owned());
        let containers = (!self.containers.is_empty()).then(|| containers(&self.containers));
        pod.into_iter().chain(containers).collect()
    }

    fn text(&self) -> String {
        self.names().join(" and ")
    }
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

/// `container "a"`, `containers "a", "b"`
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// What a pod does that a control forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    reason: String,
    detail: String,
}

impl Violation {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Option<Self> {
        Some(Self { reason: reason.into(), detail: detail.into() })
    }
}

/// Everything a pod does that a standard forbids.
#[derive(Clone, Debug, Default)]
pub(super) struct Violations(Vec<Violation>);

impl Violations {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The reasons alone.
    pub(super) fn reasons(&self) -> String {
        self.0.iter().map(|violation| violation.reason.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Each reason with its detail.
    pub(super) fn details(&self) -> String {
        let one = |violation: &Violation| match violation.detail.as_str() {
            "" => violation.reason.clone(),
            detail => format!("{} ({detail})", violation.reason),
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// One control.
struct Control {
    level: Level,
    /// The first release it is in.
    since: u32,
    /// A control of the baseline: the release from which the restricted level has a stricter one instead.
    replaced: u32,
    check: fn(&Pod<'_>, u32) -> Option<Violation>,
}

const NEVER: u32 = u32::MAX;

const fn baseline(since: u32, replaced: u32, check: fn(&Pod<'_>, u32) -> Option<Violation>) -> Control {
    Control { level: Level::Baseline, since, replaced, check }
}

const fn restricted(since: u32, check: fn(&Pod<'_>, u32) -> Option<Violation>) -> Control {
    Control { level: Level::Restricted, since, replaced: NEVER, check }
}

/// The controls in the order they are told.
static CONTROLS: &[Control] = &[
    baseline(0, NEVER, baseline::app_armor),
    baseline(0, 22, baseline::capabilities),
    baseline(0, NEVER, baseline::host_namespaces),
    baseline(0, 0, baseline::host_path),
    baseline(0, NEVER, baseline::host_ports),
    baseline(34, NEVER, baseline::handler_hosts),
    baseline(0, NEVER, baseline::privileged),
    baseline(0, 35, baseline::proc_mount),
    baseline(0, NEVER, baseline::selinux),
    baseline(0, 19, baseline::seccomp),
    baseline(0, NEVER, baseline::sysctls),
    baseline(0, NEVER, baseline::host_process),
    restricted(8, restricted::privilege_escalation),
    restricted(22, restricted::capabilities),
    restricted(35, restricted::proc_mount),
    restricted(0, restricted::volumes),
    restricted(0, restricted::run_as_non_root),
    restricted(23, restricted::run_as_user),
    restricted(19, restricted::seccomp),
];

/// What a pod does that a standard forbids.
pub(super) fn evaluate(standard: Standard, pod: &Pod<'_>) -> Violations {
    let minor = match standard.version {
        Version::Latest => LATEST,
        Version::Minor(minor) => minor.min(LATEST),
    };
    let strict = standard.level == Level::Restricted;
    let holds = |control: &&Control| {
        control.level <= standard.level && control.since <= minor && !(strict && control.replaced <= minor)
    };
    if standard.level == Level::Privileged {
        return Violations::default();
    }
    Violations(CONTROLS.iter().filter(holds).filter_map(|control| (control.check)(pod, minor)).collect())
}

/// Distinct values in order.
type Values = BTreeSet<String>;
