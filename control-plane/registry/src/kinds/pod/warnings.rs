//! Warnings to those who write pods or templates of pods: what is deprecated, ignored, or surely a slip.

mod paths;
mod ports;

use std::collections::BTreeSet;

use serde_json::Value;
use skep_api::names;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

use crate::strategy::address::ip_warnings;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Node labels of old, with what became of them.
const LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// Volume sources that are gone or going.
pub(in crate::kinds) const SOURCES: [(&str, &str); 8] = [
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
];

/// Annotations that do nothing any more.
const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";
/// Bytes: no fractions.
const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

/// What to tell of a new pod.
pub(in crate::kinds) fn pod(pod: &Value) -> Vec<String> {
    let mut told = Vec::new();
    name(&mut told, pod, "the Pod's hostname");
    told.extend(about(pod, ""));
    told
}

/// What to tell of the template at a path, `spec.template`, when its spec has changed.
pub(in crate::kinds) fn template(object: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    if old.is_some_and(|old| old.generation() == object.generation()) {
        return Vec::new();
    }
    let steps: Vec<&str> = path.split('.').collect();
    object.at(&steps).map_or_else(Vec::new, |template| about(template, &format!("{path}.")))
}

/// The same, and of a name that its pods cannot have as their host's.
pub(in crate::kinds) fn named_template(object: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    let mut told = Vec::new();
    if old.is_none() {
        name(&mut told, object, "Pod names and hostnames");
    }
    told.extend(template(object, old, path));
    told
}

/// The same of the spec of a job at a path, `spec`.
pub(in crate::kinds) fn named_job(object: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    let mut told = Vec::new();
    if old.is_none() {
        name(&mut told, object, "Pod names and hostnames");
    }
    if old.is_some_and(|old| old.generation() == object.generation()) {
        return told;
    }
    let steps: Vec<&str> = path.split('.').collect();
    let spec = object.at(&steps).unwrap_or(&Value::Null);
    let count = |field: &str| spec.int(&[field]).unwrap_or(0);
    let indexed = spec.text(&["completionMode"]) == "Indexed";
    if indexed && count("completions") > 100_000 && count("parallelism") > 10_000 {
        told.push(format!("{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"));
    }
    told.extend(template(object, old, &format!("{path}.template")));
    told
}

fn name(told: &mut Vec<String>, object: &Value, used_in: &str) {
    let faults = names::dns1123_label(object.name());
    if !faults.is_empty() {
        told.push(format!("metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{}]", faults.join(" ")));
    }
}

fn about(template: &Value, at: &str) -> Vec<String> {
    let mut told = Vec::new();
    let Some(spec) = template.get("spec") else { return told };
    let path = format!("{at}spec");
    labels(&mut told, spec, &path);
    for (index, constraint) in spec.items(&["topologySpreadConstraints"]).iter().enumerate() {
        let here = format!("{path}.topologySpreadConstraints[{index}]");
        let key = constraint.text(&["topologyKey"]);
        if let Some(fate) = deprecated_label(key) {
            told.push(format!("{here}.topologyKey: {key} is {fate}"));
        }
        if constraint.at(&["labelSelector"]).is_none() {
            told.push(format!("{here}.labelSelector: {NO_SELECTOR}"));
        }
    }
    for (key, fate) in ANNOTATIONS {
        if template.annotation(key).is_some() {
            told.push(format!("{at}metadata.annotations[{key}]: {fate}"));
        }
    }
    volumes(&mut told, spec, &path);
    paths::all(&mut told, spec);
    let mut aliases = BTreeSet::new();
    for (index, alias) in spec.items(&["hostAliases"]).iter().enumerate() {
        let ip = alias.text(&["ip"]);
        if !aliases.insert(ip) {
            told.push(format!("{path}.hostAliases[{index}].ip: duplicate ip {ip:?}"));
        }
    }
    pull_secrets(&mut told, spec, &path);
    fractions(&mut told, spec.at(&["overhead"]), &format!("{path}.overhead"), &BYTES);
    if spec.at(&["securityContext", "seccompProfile"]).is_none() {
        seccomp(&mut told, template, at, SECCOMP_POD);
    }
    for list in LISTS {
        for (index, container) in spec.items(&[list]).iter().enumerate() {
            profiles(&mut told, template, container, at);
            self::container(&mut told, container, &format!("{path}.{list}[{index}]"));
        }
    }
    ports::all(&mut told, spec, &path);
    if spec.int(&["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        told.push(format!("{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        affinity(&mut told, spec, &path, kind);
    }
    for (index, server) in spec.items(&["dnsConfig", "nameservers"]).iter().enumerate() {
        let here = format!("{path}.dnsConfig.nameservers[{index}]");
        ip_warnings(&mut told, &here, server.as_str().unwrap_or_default());
    }
    for (index, alias) in spec.items(&["hostAliases"]).iter().enumerate() {
        ip_warnings(&mut told, &format!("{path}.hostAliases[{index}].ip"), alias.text(&["ip"]));
    }
    told
}

fn pull_secrets(told: &mut Vec<String>, spec: &Value, path: &str) {
    let secrets = spec.items(&["imagePullSecrets"]);
    let mut taken = BTreeSet::new();
    for (index, secret) in secrets.iter().enumerate() {
        let name = secret.text(&["name"]);
        if !taken.insert(name) {
            told.push(format!("{path}.imagePullSecrets[{index}].name: duplicate name {name:?}"));
        }
    }
    for (index, secret) in secrets.iter().enumerate() {
        if secret.text(&["name"]).is_empty() {
            told.push(format!("{path}.imagePullSecrets[{index}].name: invalid empty name \"\""));
        }
    }
}

fn labels(told: &mut Vec<String>, spec: &Value, path: &str) {
    for key in spec.map(&["nodeSelector"]).into_iter().flat_map(|map| map.keys()) {
        if let Some(fate) = deprecated_label(key) {
            told.push(format!("{path}.nodeSelector[{key}]: {fate}"));
        }
    }
    let base = ["affinity", "nodeAffinity"];
    let hard = [base[0], base[1], "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let soft = [base[0], base[1], "preferredDuringSchedulingIgnoredDuringExecution"];
    for (index, term) in spec.items(&hard).iter().enumerate() {
        node_term(told, term, false, &format!("{path}.{}[{index}]", hard.join(".")));
    }
    for (index, term) in spec.items(&soft).iter().enumerate() {
        if let Some(preference) = term.get("preference") {
            let at = format!("{path}.{}[{index}].preference", soft.join("."));
            node_term(told, preference, true, &at);
        }
    }
}

/// A `NodeSelectorTerm`: labels of old, and values that no label has.
pub(in crate::kinds) fn node_term(told: &mut Vec<String>, term: &Value, values: bool, at: &str) {
    for (index, expression) in term.items(&["matchExpressions"]).iter().enumerate() {
        let here = format!("{at}.matchExpressions[{index}]");
        let key = expression.text(&["key"]);
        if let Some(fate) = deprecated_label(key) {
            told.push(format!("{here}.key: {key} is {fate}"));
        }
        for (place, value) in expression.items(&["values"]).iter().enumerate().filter(|_| values) {
            let value = value.as_str().unwrap_or_default();
            for detail in names::label_value(value) {
                told.push(format!("{here}.values[{place}]: {value} is invalid, {detail}"));
            }
        }
    }
}

/// What became of a node label of old.
pub(in crate::kinds) fn deprecated_label(key: &str) -> Option<&'static str> {
    LABELS.iter().find(|(label, _)| *label == key).map(|(_, fate)| *fate)
}

fn affinity(told: &mut Vec<String>, spec: &Value, path: &str, kind: &str) {
    let hard = "requiredDuringSchedulingIgnoredDuringExecution";
    let soft = "preferredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in spec.items(&["affinity", kind, hard]).iter().enumerate() {
        if term.at(&["labelSelector"]).is_none() {
            told.push(format!("{path}.affinity.{kind}.{hard}[{index}].labelSelector: {NO_SELECTOR}"));
        }
    }
    for (index, term) in spec.items(&["affinity", kind, soft]).iter().enumerate() {
        if term.at(&["podAffinityTerm", "labelSelector"]).is_none() {
            told.push(format!(
                "{path}.affinity.{kind}.{soft}[{index}].podAffinityTerm.labelSelector: {NO_SELECTOR}"
            ));
        }
    }
}

fn seccomp(told: &mut Vec<String>, template: &Value, at: &str, key: &str) {
    if template.annotation(key).is_some() {
        told.push(format!(
            "{at}metadata.annotations[{key}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"
        ));
    }
}

/// Profiles of a container that are given by annotations.
fn profiles(told: &mut Vec<String>, template: &Value, container: &Value, at: &str) {
    if container.at(&["securityContext", "seccompProfile"]).is_none() {
        seccomp(told, template, at, &format!("{SECCOMP}{}", container.text(&["name"])));
    }
    let key = format!("{APP_ARMOR}{}", container.text(&["name"]));
    let Some(annotation) = template.annotation(&key) else { return };
    // Of a pod, the field has been filled in from the annotation.
    if at.is_empty() || container.at(&["securityContext", "appArmorProfile"]).is_some() {
        return;
    }
    let of_pod = template.at(&["spec", "securityContext", "appArmorProfile"]);
    let said = match annotation {
        "" | "runtime/default" => ("RuntimeDefault", ""),
        "unconfined" => ("Unconfined", ""),
        other => ("Localhost", other.strip_prefix("localhost/").unwrap_or(other)),
    };
    let same =
        of_pod.is_some_and(|profile| (profile.text(&["type"]), profile.text(&["localhostProfile"])) == said);
    if !same {
        told.push(format!(
            "{at}metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
        ));
    }
}

fn volumes(told: &mut Vec<String>, spec: &Value, path: &str) {
    for (index, volume) in spec.items(&["volumes"]).iter().enumerate() {
        let here = format!("{path}.volumes[{index}]");
        for (source, fate) in SOURCES {
            if volume.at(&[source]).is_some() {
                // Upstream tells this one as Go names it.
                let told_as = if source == "storageos" { "storageOS" } else { source };
                told.push(format!("{here}.{told_as}: {fate}"));
            }
        }
        if volume.at(&["gitRepo"]).is_some() {
            told.push(format!("{here}.gitRepo: deprecated in v1.11, and disabled by default in v1.33+"));
        }
        if let Some(claim) = volume.at(&["ephemeral", "volumeClaimTemplate", "spec"]) {
            claim_spec(told, claim, &format!("{here}.ephemeral.volumeClaimTemplate.spec"));
        }
    }
}

/// The spec of a claim: storage without fractions of bytes.
pub(in crate::kinds) fn claim_spec(told: &mut Vec<String>, spec: &Value, at: &str) {
    for list in ["requests", "limits"] {
        fractions(told, spec.at(&["resources", list]), &format!("{at}.resources.{list}"), &["storage"]);
    }
}

/// Amounts of bytes with a fraction, as `100m` of memory.
fn fractions(told: &mut Vec<String>, amounts: Option<&Value>, at: &str, bytes: &[&str]) {
    for name in bytes {
        let Some(text) = amounts.and_then(|amounts| amounts.get(name)).and_then(Value::as_str) else {
            continue;
        };
        if text.parse::<Quantity>().is_ok_and(|quantity| !quantity.is_integer()) {
            told.push(format!("{at}[{name}]: fractional byte value {text:?} is invalid, must be an integer"));
        }
    }
}

fn container(told: &mut Vec<String>, container: &Value, here: &str) {
    for bytes in BYTES {
        for list in ["limits", "requests"] {
            let amounts = container.at(&["resources", list]);
            fractions(told, amounts, &format!("{here}.resources.{list}"), &[bytes]);
        }
    }
    let mut names: Vec<&str> = Vec::new();
    for (index, variable) in container.items(&["env"]).iter().enumerate() {
        let name = variable.text(&["name"]);
        if names.contains(&name) {
            // One that adds to what it hides is meant so.
            let (value, itself) = (variable.text(&["value"]), format!("$({name})"));
            let adds = variable.at(&["valueFrom"]).is_none() && value != itself && value.contains(&itself);
            if !adds {
                told.push(format!("{here}.env[{index}]: hides previous definition of \"{name}\", which may be dropped when using apply"));
            }
        }
        names.push(name);
    }
}
