//! Rules of the containers of a pod: those every container has, and those of each list.

use std::collections::BTreeSet;

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;

use super::spec::Scope;
use super::volumes::Volumes;
use super::{environment, handlers, mounts, resources, security};
use crate::strategy::check::At;

pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];
const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const INIT_ONLY: &str = "may not be set for init containers without restartPolicy=Always";
const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// What a ephemeral container must not have.
const FORBIDDEN_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];

/// What the containers of a pod are judged against.
struct Pod<'a> {
    spec: &'a At<'a>,
    volumes: &'a Volumes<'a>,
    scope: Scope,
    grace: Option<i64>,
}

/// The containers of all lists: unique names, free host ports, and each container by itself.
pub(super) fn all<'a>(spec: &'a At<'a>, volumes: &'a Volumes<'a>, scope: Scope) {
    let grace = spec.child("terminationGracePeriodSeconds").int();
    let pod = Pod { spec, volumes, scope, grace };
    pod.apps();
    pod.inits();
    pod.ephemerals();
}

impl Pod<'_> {
    fn names(&self, list: &str) -> BTreeSet<&str> {
        self.spec.child(list).items().iter().map(|c| c.child("name").text()).collect()
    }

    fn apps(&self) {
        let containers = self.spec.child("containers");
        if !containers.require() {
            return;
        }
        let mut taken = BTreeSet::new();
        let mut host_ports = BTreeSet::new();
        for container in containers.items() {
            self.common(&container);
            let name = container.child("name");
            if !taken.insert(name.text()) {
                name.duplicate();
            }
            handlers::lifecycle(&container.child("lifecycle"), self.grace);
            handlers::probes(&container);
            container.child("restartPolicy").one_of(RESTART_POLICIES);
            restart_rules(&container);
        }
        for container in containers.items() {
            claim_host_ports(&container, &mut host_ports);
        }
    }

    fn inits(&self) {
        let mut taken = self.names("containers");
        for container in self.spec.child("initContainers").items() {
            self.common(&container);
            let policy = container.child("restartPolicy");
            policy.one_of(RESTART_POLICIES);
            let name = container.child("name");
            if !name.is_empty() && !taken.insert(name.text()) {
                name.duplicate();
            }
            // Init containers run one after the other: each is alone with its ports.
            claim_host_ports(&container, &mut BTreeSet::new());
            if policy.text() == "Always" {
                handlers::lifecycle(&container.child("lifecycle"), self.grace);
                handlers::probes(&container);
            } else {
                for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                    if container.child(field).is_set() {
                        container.child(field).forbidden(INIT_ONLY);
                    }
                }
            }
            restart_rules(&container);
        }
    }

    fn ephemerals(&self) {
        let mut others = self.names("containers");
        others.extend(self.names("initContainers"));
        let mut taken = others.clone();
        for container in self.spec.child("ephemeralContainers").items() {
            self.common(&container);
            image_is_trimmed(&container);
            let name = container.child("name");
            if !taken.insert(name.text()) {
                name.duplicate();
            }
            let target = container.child("targetContainerName");
            if !target.is_empty() && !others.contains(target.text()) {
                target.not_found();
            }
            for field in FORBIDDEN_EPHEMERAL {
                if !container.child(field).is_empty() {
                    container.child(field).forbidden(NOT_EPHEMERAL);
                }
            }
            for mount in container.child("volumeMounts").items() {
                for field in ["subPath", "subPathExpr"] {
                    if !mount.child(field).is_empty() {
                        mount.child(field).forbidden(NOT_EPHEMERAL);
                    }
                }
            }
        }
    }

    /// What holds for a container in whichever list.
    fn common(&self, container: &At<'_>) {
        container.child("name").require_named(names::dns1123_label);
        container.child("image").require();
        if self.scope == Scope::Pod {
            image_is_trimmed(container);
        }
        container.child("terminationMessagePolicy").require_one_of(MESSAGE_POLICIES);
        ports(&container.child("ports"));
        environment::validate(container, self.volumes);
        mounts::validate(container, self.volumes);
        container.child("imagePullPolicy").require_one_of(PULL_POLICIES);
        resources::requirements(&container.child("resources"), Some(self.spec));
        resources::resize_policies(&container.child("resizePolicy"), self.spec);
        security::container(&container.child("securityContext"), self.spec);
    }
}

fn image_is_trimmed(container: &At<'_>) {
    let image = container.child("image");
    if image.text().trim() != image.text() {
        image.invalid("must not have leading or trailing whitespace");
    }
}

fn ports(ports: &At<'_>) {
    let mut taken = BTreeSet::new();
    for port in ports.items() {
        let name = port.child("name");
        if !name.is_empty() {
            let faults = names::port_name(name.text());
            if faults.is_empty() && !taken.insert(name.text()) {
                name.duplicate();
            }
            name.invalid_all(faults);
        }
        let number = port.child("containerPort");
        if number.int().unwrap_or(0) == 0 {
            number.required("");
        } else {
            number.within(1, 65535);
        }
        let host = port.child("hostPort");
        if host.int().unwrap_or(0) != 0 {
            host.within(1, 65535);
        }
        port.child("protocol").require_one_of(PROTOCOLS);
    }
}

fn claim_host_ports(container: &At<'_>, taken: &mut BTreeSet<String>) {
    for port in container.child("ports").items() {
        let host = port.child("hostPort").int().unwrap_or(0);
        if host == 0 {
            continue;
        }
        let claim = format!("{}/{}/{host}", port.child("protocol").text(), port.child("hostIP").text());
        if taken.contains(&claim) {
            port.error(Error::duplicate(&port.path().child("hostPort"), claim));
        } else {
            taken.insert(claim);
        }
    }
}

/// On the host's network a container's port is the host's port. A template may leave it open.
pub(super) fn host_network(spec: &At<'_>, scope: Scope) {
    if !spec.child("hostNetwork").flag() {
        return;
    }
    for container in spec.child("containers").items() {
        for port in container.child("ports").items() {
            let host = port.child("hostPort").int().unwrap_or(0);
            let differs = host != port.child("containerPort").int().unwrap_or(0);
            if differs && (scope == Scope::Pod || host != 0) {
                let path = port.path().child("hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                port.error(Error::invalid(&path, host, detail));
            }
        }
    }
}

/// Rules that decide by exit code whether a container is restarted.
fn restart_rules(container: &At<'_>) {
    let rules = container.child("restartPolicyRules");
    if rules.is_empty() {
        return;
    }
    if container.child("restartPolicy").is_empty() {
        container.child("restartPolicy").required("must specify restartPolicy when restart rules are used");
    }
    if rules.items().len() > MAX_RULES {
        rules.error(Error::too_many(rules.path(), rules.items().len(), MAX_RULES));
    }
    for rule in rules.items() {
        rule.child("action").require_one_of(&["Restart", "RestartAllContainers"]);
        let codes = rule.child("exitCodes");
        if !codes.is_set() {
            codes.required("must be specified");
            continue;
        }
        codes.child("operator").require_one_of(&["In", "NotIn"]);
        let values = codes.child("values");
        let count = values.items().len();
        if count == 0 {
            values.error(Error::invalid(
                values.path(),
                Value::Array(Vec::new()),
                "must have at least one exit code",
            ));
        }
        if count > MAX_EXIT_CODES {
            values.error(Error::too_many(values.path(), count, MAX_EXIT_CODES));
        }
    }
}

/// A port by number or by name.
pub(in crate::kinds) fn port(port: &At<'_>) {
    match port.value() {
        Value::String(name) => port.invalid_all(names::port_name(name)),
        other => {
            let number = other.as_i64().unwrap_or(0);
            for detail in names::port_number(number) {
                port.error(Error::invalid(port.path(), number, detail));
            }
        }
    }
}
