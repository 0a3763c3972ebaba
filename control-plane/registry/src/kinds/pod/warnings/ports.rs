//! Warnings of ports: the same one twice, one that hides another, names that name two.

use serde_json::Value;
use skep_api::object::ObjectExt;

use super::LISTS;

/// A port with where it is.
struct Port<'a> {
    at: String,
    value: &'a Value,
}

impl Port<'_> {
    fn number(&self) -> i64 {
        self.value.int(&["containerPort"]).unwrap_or(0)
    }

    fn protocol(&self) -> &str {
        self.value.text(&["protocol"])
    }

    fn host(&self) -> (i64, &str) {
        (self.value.int(&["hostPort"]).unwrap_or(0), self.value.text(&["hostIP"]))
    }
}

/// What to tell of all ports of a pod.
pub(super) fn all(told: &mut Vec<String>, spec: &Value, path: &str) {
    let mut ports: Vec<Port<'_>> = Vec::new();
    for list in LISTS {
        for (index, container) in spec.items(&[list]).iter().enumerate() {
            for (place, value) in container.items(&["ports"]).iter().enumerate() {
                ports.push(Port { at: format!("{path}.{list}[{index}].ports[{place}]"), value });
            }
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let (host, ip) = port.host();
        let at = &port.at;
        if !ip.is_empty() && host == 0 {
            let (name, number, protocol) = (port.value.text(&["name"]), port.number(), port.protocol());
            told.push(format!(
                "{at}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}"
            ));
        }
        let alike =
            |other: &&Port<'_>| other.number() == port.number() && other.protocol() == port.protocol();
        for other in ports[..index].iter().filter(alike) {
            let (other_host, other_ip) = other.host();
            let what = if (host, ip) == (other_host, other_ip) {
                "duplicate"
            } else if host == 0 || other_host == 0 {
                "overlapping"
            } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            told.push(format!("{at}: {what} port definition with {}", other.at));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let name = port.value.text(&["name"]);
        let first = ports[..index].iter().find(|other| other.value.text(&["name"]) == name);
        if let (false, Some(other)) = (name.is_empty(), first) {
            let other = &other.at;
            told.push(format!("{}: duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}", port.at));
        }
    }
}
