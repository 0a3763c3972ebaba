//! What DNS needs to know of one Service: a pure function of the Service and its EndpointSlices.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::{EndpointPort, EndpointSlice},
};
use serde::{Deserialize, Serialize};

/// A Service as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// It has addresses of its own.
    Virtual {
        /// Its cluster addresses.
        ips: Vec<IpAddr>,
        /// Its named ports.
        ports: Vec<Port>,
        /// Those of its ready endpoints that have a host name, by it: a StatefulSet's pods are found by name
        /// whether the service in front of them is headless or not.
        endpoints: BTreeMap<String, Endpoint>,
    },
    /// Its name leads to its endpoints.
    Headless {
        /// The ready endpoints by the label in front of the service's name.
        endpoints: BTreeMap<String, Endpoint>,
    },
    /// Its name stands for another name.
    Alias {
        /// The other name.
        target: String,
    },
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Its name, lower case.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Its number.
    pub number: u16,
}

/// One endpoint of a headless service, with its addresses of all families.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its named ports.
    pub ports: Vec<Port>,
}

/// The entry of a Service; `None` while it has nothing to answer with.
#[must_use]
pub fn of(service: &Service, slices: &[Arc<EndpointSlice>]) -> Option<Entry> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec.external_name.as_deref()?.trim_end_matches('.').to_ascii_lowercase();
        return Some(Entry::Alias { target });
    }
    let unready = publishes_unready(service);
    if spec.cluster_ip.as_deref() == Some("None") {
        return Some(Entry::Headless { endpoints: endpoints(slices, unready, Naming::All) });
    }
    let texts = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in texts.filter_map(|text| text.parse().ok()) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    let ports = spec.ports.iter().flatten().filter_map(service_port).collect();
    // Without an address it was not allocated one yet.
    let endpoints = endpoints(slices, unready, Naming::Hostnames);
    (!ips.is_empty()).then_some(Entry::Virtual { ips, ports, endpoints })
}

/// Whether endpoints count that are not ready: the field, or the annotation that it was before.
fn publishes_unready(service: &Service) -> bool {
    let annotation = "service.alpha.kubernetes.io/tolerate-unready-endpoints";
    let annotated = service.metadata.annotations.as_ref().and_then(|all| all.get(annotation));
    annotated.is_some_and(|value| value == "true")
        || service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// Which endpoints have a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// All: those without a host name by their address.
    All,
    /// Those with a host name.
    Hostnames,
}

fn endpoints(slices: &[Arc<EndpointSlice>], unready: bool, naming: Naming) -> BTreeMap<String, Endpoint> {
    let mut found: BTreeMap<String, Endpoint> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.address_type != "FQDN") {
        let ports: Vec<Port> = slice.ports.iter().flatten().filter_map(endpoint_port).collect();
        for endpoint in slice.endpoints.iter().flatten() {
            // Not said is ready.
            if !unready && endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(false) {
                continue;
            }
            if naming == Naming::Hostnames && endpoint.hostname.is_none() {
                continue;
            }
            let ips: Vec<IpAddr> = endpoint.addresses.iter().filter_map(|text| text.parse().ok()).collect();
            let Some(first) = ips.first() else { continue };
            let label = endpoint.hostname.as_deref().map_or_else(|| dashed(*first), str::to_ascii_lowercase);
            let entry = found.entry(label).or_default();
            entry.ips.extend(ips);
            entry.ips.sort_unstable();
            entry.ips.dedup();
            entry.ports.extend(ports.iter().cloned());
            entry.ports.sort_unstable();
            entry.ports.dedup();
        }
    }
    found
}

/// An address as a label.
#[must_use]
pub fn dashed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        // A label must not begin or end with a dash: all groups are written out.
        IpAddr::V6(v6) => v6.segments().map(|group| format!("{group:x}")).join("-"),
    }
}

/// The address that a label of dashes stands for.
#[must_use]
pub fn undashed(label: &str) -> Option<IpAddr> {
    let dots = label.replace('-', ".");
    if let Ok(v4) = dots.parse() {
        return Some(IpAddr::V4(v4));
    }
    label.replace('-', ":").parse().ok().map(IpAddr::V6)
}

fn service_port(port: &ServicePort) -> Option<Port> {
    named(port.name.as_deref(), port.protocol.as_deref(), Some(port.port))
}

fn endpoint_port(port: &EndpointPort) -> Option<Port> {
    named(port.name.as_deref(), port.protocol.as_deref(), port.port)
}

fn named(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<Port> {
    Some(Port {
        name: name.filter(|name| !name.is_empty())?.to_ascii_lowercase(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
        number: u16::try_from(number?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(spec: &Value, slices: &[Value]) -> Option<Entry> {
        let service = serde_json::from_value(json!({"spec": spec})).expect("a service");
        let slices: Vec<_> = slices
            .iter()
            .map(|slice| Arc::new(serde_json::from_value(slice.clone()).expect("a slice")))
            .collect();
        of(&service, &slices)
    }

    #[test]
    fn services_of_all_types() {
        let port = |name: &str| Port { name: name.into(), protocol: "tcp".into(), number: 80 };
        let ips =
            |list: &[&str]| list.iter().map(|ip| ip.parse().expect("an address")).collect::<Vec<IpAddr>>();
        let at = |list: &[&str], ports| Entry::Virtual { ips: ips(list), ports, endpoints: BTreeMap::new() };
        let cases = [
            (
                json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"],
                       "ports": [{"name": "HTTP", "port": 80}, {"port": 81}]}),
                Some(at(&["10.96.0.9", "fd00::9"], vec![port("http")])),
            ),
            (json!({"type": "NodePort", "clusterIP": "10.96.0.9"}), Some(at(&["10.96.0.9"], vec![]))),
            (
                json!({"type": "ExternalName", "externalName": "Example.COM."}),
                Some(Entry::Alias { target: "example.com".into() }),
            ),
            (json!({"clusterIP": "None"}), Some(Entry::Headless { endpoints: BTreeMap::new() })),
            (json!({"clusterIP": ""}), None),
            (json!({"type": "ExternalName"}), None),
        ];
        for (spec, want) in cases {
            assert_eq!(entry(&spec, &[]), want, "{spec}");
        }
    }

    #[test]
    fn endpoints_of_both_families_join_under_one_hostname() {
        let slices = [
            json!({"addressType": "IPv4", "ports": [{"name": "web", "port": 80}], "endpoints": [
                {"addresses": ["10.244.0.5"], "hostname": "web-0"},
                {"addresses": ["10.244.0.6"], "conditions": {"ready": true}},
                {"addresses": ["10.244.0.7"], "conditions": {"ready": false}}]}),
            json!({"addressType": "IPv6", "ports": [{"name": "web", "port": 80}], "endpoints": [
                {"addresses": ["fd00::5"], "hostname": "web-0"}]}),
            json!({"addressType": "FQDN", "endpoints": [{"addresses": ["example.com"]}]}),
        ];
        let Some(Entry::Headless { endpoints }) = entry(&json!({"clusterIP": "None"}), &slices) else {
            panic!("not headless")
        };
        assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["10-244-0-6", "web-0"]);
        assert_eq!(endpoints["web-0"].ips.len(), 2);
        assert_eq!(endpoints["web-0"].ports.len(), 1);
    }

    #[test]
    fn unready_endpoints_count_where_they_are_published() {
        let slice = json!({"addressType": "IPv4", "endpoints": [
            {"addresses": ["10.244.0.7"], "conditions": {"ready": false}}]});
        for (publish, count) in [(json!(null), 0), (json!(false), 0), (json!(true), 1)] {
            let spec = json!({"clusterIP": "None", "publishNotReadyAddresses": publish});
            let Some(Entry::Headless { endpoints }) = entry(&spec, std::slice::from_ref(&slice)) else {
                panic!("not headless")
            };
            assert_eq!(endpoints.len(), count, "{publish}");
        }
        let annotated: Service = serde_json::from_value(json!({"spec": {"clusterIP": "None"}, "metadata": {
            "annotations": {"service.alpha.kubernetes.io/tolerate-unready-endpoints": "true"}}}))
        .expect("a service");
        assert!(publishes_unready(&annotated));
    }

    #[test]
    fn endpoints_with_a_host_name_are_known_behind_an_address_too() {
        let slice = json!({"addressType": "IPv4", "endpoints": [
            {"addresses": ["10.244.0.5"], "hostname": "Web-0"}, {"addresses": ["10.244.0.6"]}]});
        let Some(Entry::Virtual { endpoints, .. }) = entry(&json!({"clusterIP": "10.96.0.9"}), &[slice])
        else {
            panic!("no addresses")
        };
        assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["web-0"]);
    }

    #[test]
    fn addresses_become_labels_and_come_back() {
        for ip in ["10.244.1.2", "fd00:10:244::2", "::1", "2001:db8::"] {
            let ip: IpAddr = ip.parse().expect("an address");
            assert_eq!(undashed(&dashed(ip)), Some(ip));
            assert!(!dashed(ip).starts_with('-') && !dashed(ip).ends_with('-'));
        }
        for bad in ["10-244-1", "10-244-1-2-3", "web-0", "10-244-1-256", ""] {
            assert_eq!(undashed(bad), None, "{bad}");
        }
    }
}
