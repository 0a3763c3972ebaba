//! Rules of Services.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::kind;
use crate::kinds::pod::containers::port as port_or_name;
use crate::kinds::pod::spec::ip;
use crate::strategy::check::{At, check};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const MAX_AFFINITY_SECONDS: i64 = 86400;
const KUBELET: i64 = 10250;

/// A new Service.
pub(super) fn create(service: &Value) -> ErrorList {
    check(service, |root| {
        let spec = root.child("spec");
        spec.child("selector").labels();
        let affinity = spec.child("sessionAffinity");
        affinity.require_one_of(&["ClientIP", "None"]);
        if affinity.text() == "ClientIP" {
            let timeout = spec.down(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
            if !timeout.int().is_some_and(|s| (1..=MAX_AFFINITY_SECONDS).contains(&s)) {
                timeout.invalid(format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"));
            }
        }
        spec.child("type").require_one_of(TYPES);
        by_type(&spec, service);
        ports(&spec, service);
        cluster_ips(&spec);
        spec.child("externalIPs").items().iter().for_each(ip);
        policies(&spec, service);
    })
}

fn by_type(spec: &At<'_>, service: &Value) {
    let headless = spec.child("clusterIP").text() == "None";
    let text = "may not be set for ExternalName services";
    match kind(service) {
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.child(field).is_empty() {
                    spec.child(field).forbidden(text);
                }
            }
            let name = spec.child("externalName");
            if name.require() {
                let host = name.text().strip_suffix('.').unwrap_or(name.text());
                name.invalid_all(names::dns1123_subdomain(host));
            }
        }
        "LoadBalancer" => {
            for port in spec.child("ports").items() {
                if port.child("port").int() == Some(KUBELET) {
                    let detail =
                        format!("may not expose port {KUBELET} externally since it is used by kubelet");
                    port.error(Error::invalid(port.path(), KUBELET, detail));
                }
            }
        }
        _ => {}
    }
    let external = ["NodePort", "LoadBalancer"].contains(&kind(service));
    if external && headless {
        let ip = spec.child("clusterIPs");
        ip.error(Error::invalid(
            &ip.path().index(0),
            "None",
            format!("may not be set to 'None' for {} services", kind(service)),
        ));
    }
}

fn ports(spec: &At<'_>, service: &Value) {
    let ports = spec.child("ports");
    let headless = spec.child("clusterIP").text() == "None";
    if ports.is_empty() && !headless && kind(service) != "ExternalName" {
        ports.required("");
    }
    let many = ports.items().len() > 1;
    let (mut taken_names, mut taken_ports, mut taken_nodes) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for port in ports.items() {
        let name = port.child("name");
        if many && name.is_empty() {
            name.required("");
        } else if !name.is_empty() {
            name.named(names::dns1123_label);
            if !taken_names.insert(name.text()) {
                name.duplicate();
            }
        }
        let number = port.child("port");
        port_number(&number);
        let protocol = port.child("protocol");
        protocol.require_one_of(PROTOCOLS);
        port_or_name(&port.child("targetPort"));
        if !taken_ports.insert((protocol.text(), number.int())) {
            let twin = json!({"protocol": protocol.text(), "port": number.int()});
            port.error(Error::duplicate(port.path(), twin));
        }
        let node = port.child("nodePort");
        let Some(node_port) = node.int().filter(|n| *n != 0) else { continue };
        if kind(service) == "ClusterIP" {
            node.forbidden("may not be used when `type` is 'ClusterIP'");
        } else if !taken_nodes.insert((protocol.text(), node_port)) {
            node.duplicate();
        }
    }
}

/// Must be the number of a port; absent counts as 0.
fn port_number(at: &At<'_>) {
    let number = at.int().unwrap_or(0);
    for detail in names::port_number(number) {
        at.error(Error::invalid(at.path(), number, detail));
    }
}

fn cluster_ips(spec: &At<'_>) {
    let ips = spec.child("clusterIPs");
    let first = spec.child("clusterIP");
    let items = ips.items();
    if let Some(primary) = items.first()
        && !first.is_empty()
        && primary.text() != first.text()
    {
        ips.error(Error::invalid(ips.path(), ips.value().clone(), "first value must match `clusterIP`"));
    }
    if items.len() > 2 {
        ips.invalid("may only hold up to 2 values");
    }
    for (index, address) in items.iter().enumerate() {
        if address.text() == "None" {
            if index > 0 || items.len() > 1 {
                address.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
            }
        } else {
            ip(address);
        }
    }
    for family in spec.child("ipFamilies").items() {
        family.one_of(&["IPv4", "IPv6"]);
    }
    spec.child("ipFamilyPolicy").one_of(FAMILY_POLICIES);
}

fn policies(spec: &At<'_>, service: &Value) {
    let external = spec.child("externalTrafficPolicy");
    let accessible =
        ["NodePort", "LoadBalancer"].contains(&kind(service)) || !spec.child("externalIPs").is_empty();
    if accessible {
        external.require_one_of(POLICIES);
    } else if !external.is_empty() {
        external.invalid("may only be set for externally-accessible services");
    }
    let internal = spec.child("internalTrafficPolicy");
    if kind(service) != "ExternalName" {
        internal.require_one_of(POLICIES);
    }
    let health = spec.child("healthCheckNodePort");
    let local = kind(service) == "LoadBalancer" && external.text() == "Local";
    if health.int().is_some_and(|n| n != 0) && !local {
        health
            .invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
    }
    let class = spec.child("loadBalancerClass");
    if kind(service) != "LoadBalancer" {
        for field in [class, spec.child("allocateLoadBalancerNodePorts")] {
            if field.is_set() {
                field.forbidden("may only be used when `type` is 'LoadBalancer'");
            }
        }
    }
    spec.child("trafficDistribution").one_of(&["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

/// A changed Service: an address, once given, stays as long as the type has addresses.
pub(super) fn update(new: &Value, old: &Value) -> ErrorList {
    let mut errors = create(new);
    if kind(new) == "ExternalName" || kind(old) == "ExternalName" {
        return errors;
    }
    errors.extend(check(new, |root| {
        let ips = root.child("spec").child("clusterIPs");
        let before = old.items(&["spec", "clusterIPs"]);
        let path = ips.path().index(0);
        let items = ips.items();
        match (before.first(), items.first()) {
            (Some(_), None) => {
                ips.error(Error::invalid(&path, ips.value().clone(), "primary clusterIP can not be unset"));
            }
            (Some(was), Some(now)) if was != now.value() => {
                ips.error(Error::invalid(&path, ips.value().clone(), "may not change once set"));
            }
            _ => {}
        }
    }));
    errors
}
