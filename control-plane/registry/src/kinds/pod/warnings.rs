//! Warnings to those who write pods or templates of pods: what is deprecated, ignored, or surely a slip.

use std::collections::BTreeSet;

use serde_json::Value;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Node labels of old, with what took their place.
const LABELS: [(&str, &str); 7] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("failure-domain.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// Volume sources that are gone or going.
pub(in crate::kinds) const SOURCES: [(&str, &str); 15] = [
    ("gcePersistentDisk", "deprecated in v1.17, non-functional in v1.28+"),
    ("awsElasticBlockStore", "deprecated in v1.17, non-functional in v1.27+"),
    ("azureDisk", "deprecated in v1.19, non-functional in v1.27+"),
    ("azureFile", "deprecated in v1.21, non-functional in v1.30+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("cinder", "deprecated in v1.11, non-functional in v1.26+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("vsphereVolume", "deprecated in v1.19, non-functional in v1.26+"),
    ("flexVolume", "deprecated in v1.23"),
];

/// What to tell of a pod.
pub(in crate::kinds) fn pod(pod: &Value) -> Vec<String> {
    about(pod, "")
}

/// What to tell of the template at a path, `spec.template`.
pub(in crate::kinds) fn template(object: &Value, path: &str) -> Vec<String> {
    let steps: Vec<&str> = path.split('.').collect();
    object.at(&steps).map_or_else(Vec::new, |template| about(template, &format!("{path}.")))
}

fn about(template: &Value, at: &str) -> Vec<String> {
    let mut told = Vec::new();
    let Some(spec) = template.get("spec") else { return told };
    let path = format!("{at}spec");
    labels(&mut told, spec, &path);
    for (index, constraint) in spec.items(&["topologySpreadConstraints"]).iter().enumerate() {
        let here = format!("{path}.topologySpreadConstraints[{index}]");
        deprecated_label(&mut told, constraint.text(&["topologyKey"]), &format!("{here}.topologyKey"));
        if constraint.at(&["labelSelector"]).is_none() {
            told.push(format!("{here}.labelSelector: a null labelSelector results in matching no pod"));
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        affinity(&mut told, spec, &path, kind);
    }
    annotations(&mut told, template, at);
    let mut aliases = BTreeSet::new();
    for (index, alias) in spec.items(&["hostAliases"]).iter().enumerate() {
        if !aliases.insert(alias.text(&["ip"])) {
            told.push(format!("{path}.hostAliases: duplicate ip \"{}\"", alias.text(&["ip"])));
        }
        address(&mut told, alias.text(&["ip"]), &format!("{path}.hostAliases[{index}].ip"));
    }
    let mut secrets = BTreeSet::new();
    for (index, secret) in spec.items(&["imagePullSecrets"]).iter().enumerate() {
        let name = secret.text(&["name"]);
        if name.is_empty() {
            told.push(format!("{path}.imagePullSecrets[{index}].name: invalid empty name \"\""));
        } else if !secrets.insert(name) {
            told.push(format!("{path}.imagePullSecrets[{index}].name: duplicate name \"{name}\""));
        }
    }
    volumes(&mut told, spec, &path);
    fractions(&mut told, spec.at(&["overhead"]), &format!("{path}.overhead"));
    let mut host_ports = BTreeSet::new();
    for list in LISTS {
        for (index, container) in spec.items(&[list]).iter().enumerate() {
            self::container(&mut told, container, &format!("{path}.{list}[{index}]"));
            if list != "initContainers" || container.text(&["restartPolicy"]) == "Always" {
                ports(&mut told, container, &format!("{path}.{list}[{index}]"), &mut host_ports);
            }
        }
    }
    if spec.int(&["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        told.push(format!("{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    told
}

fn labels(told: &mut Vec<String>, spec: &Value, path: &str) {
    for key in spec.map(&["nodeSelector"]).into_iter().flat_map(|map| map.keys()) {
        deprecated_label(told, key, &format!("{path}.nodeSelector[{key}]"));
    }
    let base = ["affinity", "nodeAffinity"];
    let hard = [base[0], base[1], "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let soft = [base[0], base[1], "preferredDuringSchedulingIgnoredDuringExecution"];
    let mut expressions = |term: &Value, at: String| {
        for (index, expression) in term.items(&["matchExpressions"]).iter().enumerate() {
            let at = format!("{at}.matchExpressions[{index}].key");
            deprecated_label(told, expression.text(&["key"]), &at);
        }
    };
    for (index, term) in spec.items(&hard).iter().enumerate() {
        expressions(term, format!("{path}.{}[{index}]", hard.join(".")));
    }
    for (index, term) in spec.items(&soft).iter().enumerate() {
        if let Some(preference) = term.get("preference") {
            expressions(preference, format!("{path}.{}[{index}].preference", soft.join(".")));
        }
    }
}

fn deprecated_label(told: &mut Vec<String>, key: &str, at: &str) {
    if let Some((_, instead)) = LABELS.iter().find(|(label, _)| *label == key) {
        told.push(format!("{at}: deprecated since v1.14; use \"{instead}\" instead"));
    }
}

fn affinity(told: &mut Vec<String>, spec: &Value, path: &str, kind: &str) {
    let hard = "requiredDuringSchedulingIgnoredDuringExecution";
    let soft = "preferredDuringSchedulingIgnoredDuringExecution";
    let text = "a null labelSelector results in matching no pod";
    for (index, term) in spec.items(&["affinity", kind, hard]).iter().enumerate() {
        if term.at(&["labelSelector"]).is_none() {
            told.push(format!("{path}.affinity.{kind}.{hard}[{index}].labelSelector: {text}"));
        }
    }
    for (index, term) in spec.items(&["affinity", kind, soft]).iter().enumerate() {
        if term.at(&["podAffinityTerm", "labelSelector"]).is_none() {
            told.push(format!(
                "{path}.affinity.{kind}.{soft}[{index}].podAffinityTerm.labelSelector: {text}"
            ));
        }
    }
}

fn annotations(told: &mut Vec<String>, template: &Value, at: &str) {
    for (key, _) in template.annotations().into_iter().flatten() {
        let here = format!("{at}metadata.annotations[{key}]");
        if key == "seccomp.security.alpha.kubernetes.io/pod"
            || key.starts_with("container.seccomp.security.alpha.kubernetes.io/")
        {
            told.push(format!("{here}: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
        } else if key.starts_with("container.apparmor.security.beta.kubernetes.io/") {
            told.push(format!("{here}: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
        } else if key == "scheduler.alpha.kubernetes.io/critical-pod" {
            told.push(format!(
                "{here}: non-functional in v1.16+; use the \"priorityClassName\" field instead"
            ));
        }
    }
}

fn volumes(told: &mut Vec<String>, spec: &Value, path: &str) {
    for (index, volume) in spec.items(&["volumes"]).iter().enumerate() {
        let here = format!("{path}.volumes[{index}]");
        for (source, fate) in SOURCES {
            if volume.at(&[source]).is_some() {
                told.push(format!("{here}.{source}: {fate}"));
            }
        }
        if volume.at(&["gitRepo"]).is_some() {
            told.push(format!("{here}.gitRepo: deprecated in v1.11, and disabled by default in v1.33+"));
        }
        if volume.at(&["ephemeral", "volumeClaimTemplate", "spec"]).is_some() {
            let requests = volume.at(&["ephemeral", "volumeClaimTemplate", "spec", "resources", "requests"]);
            let at = format!("{here}.ephemeral.volumeClaimTemplate.spec.resources.requests");
            fractions(told, requests, &at);
        }
        fractions(
            told,
            volume.at(&["emptyDir"]).filter(|e| e.get("sizeLimit").is_some()),
            &format!("{here}.emptyDir"),
        );
    }
}

/// Amounts of bytes with a fraction, as `100m` of memory.
fn fractions(told: &mut Vec<String>, amounts: Option<&Value>, at: &str) {
    for (name, amount) in amounts.and_then(Value::as_object).into_iter().flatten() {
        let bytes = ["memory", "ephemeral-storage", "storage", "sizeLimit"].contains(&name.as_str());
        let parsed = amount.as_str().and_then(|text| text.parse::<Quantity>().ok());
        if let (true, Some(quantity)) = (bytes, parsed)
            && !quantity.is_integer()
        {
            let at = if name == "sizeLimit" { format!("{at}.sizeLimit") } else { format!("{at}[{name}]") };
            told.push(format!(
                "{at}: fractional byte value {:?} is invalid, must be an integer",
                amount.as_str().unwrap_or_default()
            ));
        }
    }
}

fn container(told: &mut Vec<String>, container: &Value, here: &str) {
    fractions(told, container.at(&["resources", "limits"]), &format!("{here}.resources.limits"));
    fractions(told, container.at(&["resources", "requests"]), &format!("{here}.resources.requests"));
    let mut names: Vec<&str> = Vec::new();
    for (index, variable) in container.items(&["env"]).iter().enumerate() {
        let name = variable.text(&["name"]);
        // A variable that refers to the one it hides is meant so.
        let refers = variable.text(&["value"]).contains(&format!("$({name})"));
        if names.contains(&name) && !refers {
            told.push(format!("{here}.env[{index}]: hides previous definition of \"{name}\", which may be dropped when using apply"));
        }
        names.push(name);
    }
}

fn ports<'a>(
    told: &mut Vec<String>,
    container: &'a Value,
    here: &str,
    taken: &mut BTreeSet<(i64, &'a str, i64, &'a str)>,
) {
    let ports = container.items(&["ports"]);
    for (index, port) in ports.iter().enumerate() {
        let parts = |port: &'a Value| {
            (
                port.int(&["containerPort"]).unwrap_or(0),
                port.text(&["protocol"]),
                port.int(&["hostPort"]).unwrap_or(0),
                port.text(&["hostIP"]),
            )
        };
        let this = parts(port);
        let text = "duplicate port definition with";
        let twin = ports[..index].iter().position(|other| parts(other) == this);
        if let Some(twin) = twin {
            told.push(format!("{here}.ports[{index}]: {text} {here}.ports[{twin}]"));
        } else if !taken.insert(this) {
            told.push(format!("{here}.ports[{index}]: duplicate port definition with another container"));
        }
        address(told, port.text(&["hostIP"]), &format!("{here}.ports[{index}].hostIP"));
    }
}

/// Addresses that read differently elsewhere: leading zeros, IPv4 within IPv6, not canonical IPv6.
pub(in crate::kinds) fn address(told: &mut Vec<String>, text: &str, at: &str) {
    use std::net::{IpAddr, Ipv6Addr};
    if text.is_empty() {
        return;
    }
    let Ok(parsed) = text.parse::<IpAddr>() else { return };
    if let IpAddr::V6(v6) = parsed {
        if let Some(v4) = Ipv6Addr::to_ipv4_mapped(&v6) {
            told.push(format!("{at}: IPv4-mapped IPv6 address \"{text}\" is non-standard, use \"{v4}\""));
        } else if v6.to_string() != text {
            told.push(format!(
                "{at}: IPv6 address \"{text}\" should be in RFC 5952 canonical format (\"{v6}\")"
            ));
        }
    }
}
