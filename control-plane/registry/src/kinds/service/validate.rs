//! Rules of Services. The order is upstream's.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::kind;
use crate::kinds::pod::containers::port as port_or_name;
use crate::strategy::address::{self, cidr, ip};
use crate::strategy::check::{At, check};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
const MAX_AFFINITY_SECONDS: i64 = 86400;
const KUBELET: i64 = 10250;
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

fn headless(service: &Value) -> bool {
    service.text(&["spec", "clusterIP"]) == "None"
        || service.items(&["spec", "clusterIPs"]).iter().any(|ip| ip == "None")
}

/// A new Service.
pub(super) fn create(service: &Value) -> ErrorList {
    check(service, |root| {
        let annotations = root.child("metadata").child("annotations");
        let (mode, hints) = (annotations.value().get(MODE), annotations.value().get(HINTS));
        if let (Some(mode), Some(hints)) = (mode, hints)
            && mode != hints
        {
            let detail = format!("must match annotations[{HINTS}] when both are specified");
            annotations.error(Error::invalid(&annotations.path().key(MODE), mode.clone(), detail));
        }
        let spec = root.child("spec");
        if spec.child("ports").is_empty() && !headless(service) && kind(service) != "ExternalName" {
            spec.child("ports").required("");
        }
        by_type(&spec, service);
        ports(&spec);
        spec.child("selector").labels();
        affinity(&spec);
        families(&spec, service);
        for address in spec.child("externalIPs").items() {
            if address.text().parse::<std::net::IpAddr>().is_ok() {
                ordinary(&address);
            } else {
                ip(&address);
            }
        }
        spec.child("type").require_one_of(TYPES);
        node_ports(&spec, service);
        unique_ports(&spec);
        source_ranges(&spec, &annotations, service);
        balancer(&spec, service);
        policies(&spec, service);
        let distribution = spec.child("trafficDistribution");
        if distribution.is_set() {
            let value = distribution.text();
            if !DISTRIBUTIONS.contains(&value) {
                distribution.error(Error::not_supported(distribution.path(), value, DISTRIBUTIONS));
            }
        }
    })
}

fn by_type(spec: &At<'_>, service: &Value) {
    let text = "may not be set for ExternalName services";
    match kind(service) {
        kind @ ("LoadBalancer" | "NodePort") => {
            for port in spec.child("ports").items() {
                if kind == "LoadBalancer" && port.child("port").int() == Some(KUBELET) {
                    let detail =
                        format!("may not expose port {KUBELET} externally since it is used by kubelet");
                    port.error(Error::invalid(port.path(), KUBELET, detail));
                }
            }
            if headless(service) {
                let path = spec.path().child("clusterIPs").index(0);
                let detail = format!("may not be set to 'None' for {kind} services");
                spec.error(Error::invalid(&path, "None", detail));
            }
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.child(field).is_empty() {
                    spec.child(field).forbidden(text);
                }
            }
            let name = spec.child("externalName");
            let host = name.text().strip_suffix('.').unwrap_or(name.text());
            if host.is_empty() {
                name.required("");
            } else {
                for detail in names::dns1123_subdomain(host) {
                    name.error(Error::invalid(name.path(), host, detail));
                }
            }
        }
        _ => {}
    }
}

fn ports(spec: &At<'_>) {
    let ports = spec.child("ports").items();
    let mut taken = BTreeSet::new();
    for port in &ports {
        let name = port.child("name");
        if ports.len() > 1 && name.is_empty() {
            name.required("");
        } else if !name.is_empty() {
            name.named(names::dns1123_label);
            if !taken.insert(name.text()) {
                name.duplicate();
            }
        }
        let number = port.child("port");
        let value = number.int().unwrap_or(0);
        for detail in names::port_number(value) {
            number.error(Error::invalid(number.path(), value, detail));
        }
        port.child("protocol").require_one_of(PROTOCOLS);
        port_or_name(&port.child("targetPort"));
        let protocol = port.child("appProtocol");
        if protocol.is_set() {
            protocol.invalid_all(names::qualified_name(protocol.text()));
        }
    }
}

fn affinity(spec: &At<'_>) {
    let affinity = spec.child("sessionAffinity");
    affinity.require_one_of(&["ClientIP", "None"]);
    let config = spec.child("sessionAffinityConfig");
    let when = "when session affinity type is ClientIP";
    match affinity.text() {
        "ClientIP" => {
            let client = config.child("clientIP");
            let timeout = client.child("timeoutSeconds");
            if !config.is_set() {
                config.required(when);
            } else if !client.is_set() {
                client.required(when);
            } else if !timeout.is_set() {
                timeout.required(when);
            } else if !timeout.int().is_some_and(|s| (1..=MAX_AFFINITY_SECONDS).contains(&s)) {
                timeout.invalid(format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"));
            }
        }
        "None" if config.is_set() => {
            config.forbidden("must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn family(address: &str) -> Option<&'static str> {
    address.parse::<std::net::IpAddr>().ok().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" })
}

/// `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`, one against the others.
fn families(spec: &At<'_>, service: &Value) {
    if kind(service) == "ExternalName" {
        return;
    }
    let families = spec.child("ipFamilies");
    let mut seen = BTreeSet::new();
    for at in families.items() {
        if !["IPv4", "IPv6"].contains(&at.text()) {
            at.one_of(&["IPv4", "IPv6"]);
        } else if !seen.insert(at.text()) {
            at.duplicate();
        }
    }
    spec.child("ipFamilyPolicy").one_of(FAMILY_POLICIES);

    let ips = spec.child("clusterIPs");
    let items = ips.items();
    let first = spec.child("clusterIP");
    match items.first() {
        Some(primary) if primary.text() != first.text() => {
            ips.invalid("first value must match `clusterIP`");
        }
        None if !first.is_empty() => ips.required(""),
        _ => {}
    }
    if items.len() > 2 {
        ips.invalid("may only hold up to 2 values");
    }
    for (index, address) in items.iter().enumerate() {
        match address.text() {
            "None" if index > 0 => {
                address.invalid(
                    "must be empty, 'None', or a valid IP address (e.g. 10.9.8.7 or 2001:db8::ffff)",
                );
            }
            "None" if items.len() > 1 => {
                ips.invalid("may hold only one value when `clusterIP` is 'None'");
            }
            "None" | "" => {}
            _ => {
                ip(address);
            }
        }
    }
    let address_families: Vec<Option<&str>> = items.iter().map(|item| family(item.text())).collect();
    if let [Some(one), Some(other)] = address_families.as_slice()
        && one == other
    {
        ips.invalid("may specify no more than one IP for each IP family");
    }
    for (index, (address, at)) in address_families.iter().zip(families.items()).enumerate() {
        if let Some(found) = address
            && *found != at.text()
            && ["IPv4", "IPv6"].contains(&at.text())
        {
            let path = ips.path().index(index);
            let detail = format!("expected an {} value as indicated by `ipFamilies[{index}]`", at.text());
            ips.error(Error::invalid(&path, items[index].text(), detail));
        }
    }
}

/// Not the loopback, a multicast group, or the like.
fn ordinary(address: &At<'_>) {
    use std::net::IpAddr;
    let Ok(parsed) = address.text().parse::<IpAddr>() else { return };
    if parsed.is_unspecified() {
        address.invalid(format!("may not be unspecified ({})", address.text()));
    }
    if parsed.is_loopback() {
        address.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link, group) = match parsed {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.is_multicast() && ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => {
            let head = ip.segments()[0];
            (head & 0xffc0 == 0xfe80, head & 0xff0f == 0xff02)
        }
    };
    if link {
        address.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if group {
        address.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn node_ports(spec: &At<'_>, service: &Value) {
    let mut taken = BTreeSet::new();
    let ports = spec.child("ports").items();
    let given = |port: &At<'_>| port.child("nodePort").int().filter(|n| *n != 0);
    if kind(service) == "ClusterIP" {
        for port in ports.iter().filter(|port| given(port).is_some()) {
            port.child("nodePort").forbidden("may not be used when `type` is 'ClusterIP'");
        }
    }
    for port in &ports {
        if let Some(number) = given(port)
            && !taken.insert((port.child("protocol").text(), number))
        {
            port.child("nodePort").duplicate();
        }
    }
}

fn unique_ports(spec: &At<'_>) {
    let mut taken = BTreeSet::new();
    for port in spec.child("ports").items() {
        let (protocol, number) = (port.child("protocol").text(), port.child("port").int());
        if !taken.insert((protocol, number)) {
            port.error(Error::duplicate(port.path(), json!({"protocol": protocol, "port": number})));
        }
    }
}

fn source_ranges(spec: &At<'_>, annotations: &At<'_>, service: &Value) {
    let balancer = kind(service) == "LoadBalancer";
    let ranges = spec.child("loadBalancerSourceRanges");
    if !ranges.is_empty() {
        // Upstream writes the field with a capital.
        let told = ranges.told_at(spec.path().child("LoadBalancerSourceRanges"));
        if !balancer {
            told.forbidden(ONLY_BALANCERS);
        }
        for range in told.items() {
            let text = Value::String(range.text().trim().to_owned());
            cidr(&range.with_value(&text));
        }
    } else if let Some(text) = annotations.value().get(RANGES).and_then(Value::as_str) {
        let path = annotations.path().key(RANGES);
        if !balancer {
            annotations.error(Error::forbidden(&path, ONLY_BALANCERS));
        }
        for range in text.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            let text = Value::String(range.to_owned());
            cidr(&annotations.with_value(&text).told_at(path.clone()));
        }
    }
}

fn balancer(spec: &At<'_>, service: &Value) {
    let balancer = kind(service) == "LoadBalancer";
    let allocate = spec.child("allocateLoadBalancerNodePorts");
    if allocate.is_set() && !balancer {
        allocate.forbidden(ONLY_BALANCERS);
    }
    let class = spec.child("loadBalancerClass");
    if !class.is_set() {
        return;
    }
    if balancer {
        class.invalid_all(names::qualified_name(class.text()));
    } else {
        class.forbidden(ONLY_BALANCERS);
    }
}

fn policies(spec: &At<'_>, service: &Value) {
    let external = spec.child("externalTrafficPolicy");
    let accessible = ["NodePort", "LoadBalancer"].contains(&kind(service))
        || (kind(service) == "ClusterIP" && !spec.child("externalIPs").is_empty());
    if accessible {
        external.require_one_of(POLICIES);
    } else if !external.is_empty() {
        external.invalid("may only be set for externally-accessible services");
    }
    let health = spec.child("healthCheckNodePort");
    let number = health.int().unwrap_or(0);
    let local = kind(service) == "LoadBalancer" && external.text() == "Local";
    if number != 0 && !local {
        health
            .invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
    } else if number != 0 {
        health.invalid_all(names::port_number(number));
    }
    let internal = spec.child("internalTrafficPolicy");
    if kind(service) == "ExternalName" {
        internal.one_of(POLICIES);
    } else {
        internal.require_one_of(POLICIES);
    }
}

/// A changed Service: an address, once given, stays as long as the type has addresses.
pub(super) fn update(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if kind(new) != "ExternalName" && kind(old) != "ExternalName" {
        errors.extend(check(new, |root| addresses_stay(&root.child("spec"), old)));
    }
    errors.extend(check(new, |root| {
        let spec = root.child("spec");
        let class = spec.child("loadBalancerClass");
        if kind(old) == "LoadBalancer" && kind(new) == "LoadBalancer" {
            let before = old.at(&["spec", "loadBalancerClass"]).unwrap_or(&Value::Null);
            if class.value() != before {
                class.invalid("may not change once set");
            }
        }
        let needs = |service: &Value| {
            kind(service) == "LoadBalancer" && service.text(&["spec", "externalTrafficPolicy"]) == "Local"
        };
        let port = |service: &Value| service.int(&["spec", "healthCheckNodePort"]).unwrap_or(0);
        if needs(old) && needs(new) && port(old) != port(new) {
            spec.child("healthCheckNodePort").forbidden("field is immutable");
        }
    }));
    errors.extend(create(new));
    errors
}

/// The first address and family stay; the second may come and go, but not change.
fn addresses_stay(spec: &At<'_>, old: &Value) {
    for (field, unset) in [
        ("clusterIPs", "primary clusterIP can not be unset"),
        ("ipFamilies", "primary ipFamily can not be unset"),
    ] {
        let here = spec.child(field);
        let before = old.items(&["spec", field]);
        let items = here.items();
        match (before.first(), items.first()) {
            (Some(_), None) => {
                here.error(Error::invalid(&here.path().index(0), here.value().clone(), unset));
            }
            (Some(was), Some(now)) if was != now.value() => {
                here.error(Error::invalid(
                    &here.path().index(0),
                    here.value().clone(),
                    "may not change once set",
                ));
            }
            _ => {}
        }
        if let (Some(was), Some(now)) = (before.get(1), items.get(1))
            && was != now.value()
        {
            let path = here.path().index(1);
            here.error(Error::invalid(&path, here.value().clone(), "may not change once set"));
        }
    }
}

/// The status: addresses of the load balancer.
pub(super) fn status(new: &Value) -> ErrorList {
    check(new, |root| {
        let balancer = root.child("status").child("loadBalancer");
        let ingress = balancer.child("ingress");
        if kind(new) != "LoadBalancer" && !ingress.is_empty() {
            ingress.forbidden("may only be used when `spec.type` is LoadBalancer");
            return;
        }
        for entry in ingress.items() {
            let address = entry.child("ip");
            let mode = entry.child("ipMode");
            if !address.is_empty() {
                ip(&address);
                if mode.is_set() {
                    mode.one_of(&["Proxy", "VIP"]);
                } else {
                    mode.required("must be specified when `ip` is set");
                }
            } else if mode.is_set() {
                mode.forbidden("may not be specified when `ip` is not set");
            }
            let host = entry.child("hostname");
            if !host.is_empty() {
                host.named(names::dns1123_subdomain);
                if host.text().parse::<std::net::IpAddr>().is_ok() {
                    host.invalid("must be a DNS name, not an IP address");
                }
            }
        }
    })
}

/// Warnings to those who write a Service.
pub(super) fn warnings(service: &Value) -> Vec<String> {
    let mut told = Vec::new();
    if service.annotation(HINTS).is_some() {
        told.push(format!(
            "annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"
        ));
    }
    let spec = |field: &str| service.text(&["spec", field]);
    let list = |field: &str| service.items(&["spec", field]);
    let headless = headless(service) && kind(service) == "ClusterIP";
    let external = kind(service) == "ExternalName";
    if !["", "None"].contains(&spec("clusterIP")) {
        each(&mut told, service, "clusterIPs", address::ip_warnings);
    }
    if headless {
        if !spec("loadBalancerIP").is_empty() {
            told.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if !list("externalIPs").is_empty() {
            told.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if spec("sessionAffinity") != "None" {
            told.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    each(&mut told, service, "externalIPs", address::ip_warnings);
    if !list("externalIPs").is_empty() && !headless && !external {
        told.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    address::ip_warnings(&mut told, "spec.loadBalancerIP", spec("loadBalancerIP"));
    each(&mut told, service, "loadBalancerSourceRanges", address::cidr_warnings);
    if external && !list("externalIPs").is_empty() {
        told.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external && !spec("externalName").is_empty() {
        told.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec("trafficDistribution") == "PreferClose" {
        told.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
    told
}

fn each(told: &mut Vec<String>, service: &Value, field: &str, warn: impl Fn(&mut Vec<String>, &str, &str)) {
    for (index, item) in service.items(&["spec", field]).iter().enumerate() {
        warn(told, &format!("spec.{field}[{index}]"), item.as_str().unwrap_or_default());
    }
}
