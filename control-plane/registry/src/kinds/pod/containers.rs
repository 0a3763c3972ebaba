//! Rules of the containers of a pod.

use std::collections::BTreeSet;

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;

use super::resources;
use crate::strategy::check::At;

pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["FallbackToLogsOnError", "File"];
const FIELD_PATHS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const ENV_SOURCES: [&str; 5] =
    ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const INIT_ONLY: &str = "may not be set for init containers without restartPolicy=Always";
const MAX_ID: i64 = 2_147_483_647;

/// Which list a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    App,
    Init,
    Ephemeral,
}

/// The containers of all lists: unique names, free host ports, and each container by itself.
pub(super) fn all(spec: &At<'_>, volumes: &BTreeSet<&str>) {
    let apps = spec.child("containers");
    apps.require();
    let mut taken = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    let host_network = spec.child("hostNetwork").flag();
    for (list, role) in
        [("containers", Role::App), ("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)]
    {
        for container in spec.child(list).items() {
            let name = container.child("name");
            if name.require() {
                name.named(names::dns1123_label);
                if !taken.insert(name.text()) {
                    name.duplicate();
                }
            }
            one(&container, role, volumes);
            let target = container.child("targetContainerName");
            let known = || apps.items().iter().any(|app| app.child("name").text() == target.text());
            if role == Role::Ephemeral && !target.is_empty() && !known() {
                target.not_found();
            }
            if role == Role::App {
                claim_host_ports(&container, host_network, &mut host_ports);
            }
        }
    }
}

fn one(container: &At<'_>, role: Role, volumes: &BTreeSet<&str>) {
    let image = container.child("image");
    if image.require() && image.text().trim() != image.text() {
        image.invalid("must not have leading or trailing whitespace");
    }
    container.child("terminationMessagePolicy").require_one_of(MESSAGE_POLICIES);
    container.child("imagePullPolicy").require_one_of(PULL_POLICIES);
    ports(&container.child("ports"));
    environment(container);
    mounts(container, volumes);
    resources::requirements(&container.child("resources"));
    security(&container.child("securityContext"));
    let policy = container.child("restartPolicy");
    match role {
        Role::Init | Role::App => policy.one_of(&["Always", "Never", "OnFailure"]),
        Role::Ephemeral => {
            for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
                if !container.child(field).is_empty() {
                    container.child(field).forbidden("cannot be set for an Ephemeral Container");
                }
            }
            if !container.child("resources").is_empty() {
                container.child("resources").forbidden("cannot be set for an Ephemeral Container");
            }
            if policy.is_set() {
                policy.forbidden("cannot be set for an Ephemeral Container");
            }
            return;
        }
    }
    let plain_init = role == Role::Init && policy.text() != "Always";
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.child(field);
        if plain_init && probe.is_set() {
            probe.forbidden(INIT_ONLY);
        } else if probe.is_set() {
            self::probe(&probe, field != "readinessProbe");
        }
    }
    let lifecycle = container.child("lifecycle");
    if plain_init && lifecycle.is_set() {
        lifecycle.forbidden(INIT_ONLY);
    }
    for hook in ["postStart", "preStop"] {
        if lifecycle.child(hook).is_set() {
            handler(&lifecycle.child(hook), &["exec", "httpGet", "tcpSocket", "sleep"]);
        }
    }
}

fn ports(ports: &At<'_>) {
    let mut taken = BTreeSet::new();
    for port in ports.items() {
        let name = port.child("name");
        if !name.is_empty() {
            name.named(names::port_name);
            if !taken.insert(name.text()) {
                name.duplicate();
            }
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

fn claim_host_ports(container: &At<'_>, host_network: bool, taken: &mut BTreeSet<String>) {
    for port in container.child("ports").items() {
        let at = port.child("hostPort");
        let host = at.int().unwrap_or(0);
        if host == 0 {
            continue;
        }
        if host_network && port.child("containerPort").int() != Some(host) {
            at.invalid("must match `containerPort` when `hostNetwork` is true");
        }
        let claim = format!("{}/{}/{host}", port.child("protocol").text(), port.child("hostIP").text());
        if taken.contains(&claim) {
            port.error(Error::duplicate(&port.path().child("hostPort"), claim));
        } else {
            taken.insert(claim);
        }
    }
}

fn environment(container: &At<'_>) {
    for variable in container.child("env").items() {
        variable.child("name").require_named(names::env_var);
        let source = variable.child("valueFrom");
        if source.is_set() {
            env_source(&variable, &source);
        }
    }
    for source in container.child("envFrom").items() {
        source.child("prefix").named(names::env_var);
        let references = ["configMapRef", "secretRef"].map(|name| source.child(name));
        match references.iter().filter(|r| r.is_set()).count() {
            0 => source.error(Error::invalid(
                source.path(),
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => source.error(Error::invalid(
                source.path(),
                "",
                "may not have more than one field specified at a time",
            )),
        }
        for reference in references.iter().filter(|r| r.is_set()) {
            reference.child("name").require();
        }
    }
}

fn env_source(variable: &At<'_>, source: &At<'_>) {
    let complain = |detail: &str| source.error(Error::invalid(source.path(), "", detail));
    let given = ENV_SOURCES.iter().filter(|name| source.child(name).is_set()).count();
    if given == 0 {
        complain(
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    }
    if !variable.child("value").is_empty() {
        complain("may not be specified when `value` is not empty");
    } else if given > 1 {
        complain("may not have more than one field specified at a time");
    }
    let field = source.child("fieldRef");
    if field.is_set() {
        field.child("apiVersion").require();
        field_path(&field.child("fieldPath"), FIELD_PATHS);
    }
    let resource = source.child("resourceFieldRef");
    if resource.is_set() {
        resource.child("resource").require();
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let reference = source.child(name);
        if reference.is_set() {
            reference.child("name").require();
            reference.child("key").require_named(names::config_map_key);
        }
    }
}

/// A field a container may see: one of a list, or one label or annotation.
pub(super) fn field_path(path: &At<'_>, supported: &[&str]) {
    if !path.require() {
        return;
    }
    let subscript = path.text().strip_suffix("']").and_then(|p| p.split_once("['"));
    match subscript {
        Some(("metadata.labels" | "metadata.annotations", key)) => {
            path.invalid_all(names::qualified_name(&key.to_lowercase()));
        }
        Some(_) => path.invalid("does not support subscript"),
        None => path.one_of(supported),
    }
}

fn mounts(container: &At<'_>, volumes: &BTreeSet<&str>) {
    let mut taken = BTreeSet::new();
    for mount in container.child("volumeMounts").items() {
        let name = mount.child("name");
        if name.require() && !volumes.contains(name.text()) {
            name.not_found();
        }
        let path = mount.child("mountPath");
        path.require();
        if !taken.insert(path.text()) {
            path.invalid("must be unique");
        }
        for field in ["subPath", "subPathExpr"] {
            relative(&mount.child(field));
        }
        if !mount.child("subPath").is_empty() && !mount.child("subPathExpr").is_empty() {
            mount.child("subPathExpr").invalid("subPathExpr and subPath are mutually exclusive");
        }
        mount.child("mountPropagation").one_of(&["Bidirectional", "HostToContainer", "None"]);
    }
    for device in container.child("volumeDevices").items() {
        let name = device.child("name");
        if name.require() && !volumes.contains(name.text()) {
            name.not_found();
        }
        device.child("devicePath").require();
    }
}

/// A path that stays below where it starts.
pub(super) fn relative(path: &At<'_>) {
    if path.text().starts_with('/') {
        path.invalid("must be a relative path");
    }
    if path.text().split('/').any(|part| part == "..") {
        path.invalid("must not contain '..'");
    }
}

fn probe(probe: &At<'_>, one_success: bool) {
    handler(probe, &HANDLERS);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        probe.child(field).non_negative();
    }
    let success = probe.child("successThreshold");
    if one_success && success.int().is_some_and(|n| n != 1) {
        success.invalid("must be 1");
    }
    probe.child("terminationGracePeriodSeconds").positive();
}

fn handler(handler: &At<'_>, kinds: &[&str]) {
    let mut found = 0;
    for kind in kinds {
        let action = handler.child(kind);
        if !action.is_set() {
            continue;
        }
        found += 1;
        if found > 1 {
            action.forbidden("may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" => {
                action.child("command").require();
            }
            "httpGet" => {
                action.child("path").require();
                port(&action.child("port"));
                action.child("scheme").one_of(&["HTTP", "HTTPS"]);
                for header in action.child("httpHeaders").items() {
                    header.child("name").require();
                }
            }
            "sleep" => action.child("seconds").non_negative(),
            _ => port(&action.child("port")),
        }
    }
    if found == 0 {
        handler.required("must specify a handler type");
    }
}

/// A port by number or by name.
pub(in crate::kinds) fn port(port: &At<'_>) {
    match port.value() {
        Value::String(name) => port.invalid_all(names::port_name(name)),
        other => port.invalid_all(names::port_number(other.as_i64().unwrap_or(0))),
    }
}

fn security(context: &At<'_>) {
    for field in ["runAsUser", "runAsGroup"] {
        context.child(field).within(0, MAX_ID);
    }
    let escalation = context.child("allowPrivilegeEscalation");
    if escalation.is_set() && !escalation.flag() {
        if context.child("privileged").flag() {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = context.child("capabilities").child("add");
        if added.items().iter().any(|c| c.text() == "CAP_SYS_ADMIN") {
            context.invalid(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    context.child("procMount").one_of(&["Default", "Unmasked"]);
}
