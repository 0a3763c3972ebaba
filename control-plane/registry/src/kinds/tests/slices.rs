//! Tables of Endpoints, EndpointSlices, Nodes, Services and policies: addresses above all.

use serde_json::json;
use skep_api::object::ObjectExt;

use super::{changed, object, refused, row_of, warned};

#[test]
fn endpoints() {
    refused(
        "Endpoints",
        json!({"subsets": [{}, {
            "addresses": [{"ip": "127.0.0.1", "hostname": "A"}, {"ip": "010.0.0.1", "nodeName": "N"}, {"ip": "x"}],
            "ports": [{"port": 1}, {"name": "a", "port": 0, "appProtocol": "a b"}]}]}),
        &[
            "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
            "subsets[1].addresses[0].hostname: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "subsets[1].addresses[1].ip: Invalid value: \"010.0.0.1\": must not have leading 0s",
            "subsets[1].addresses[1].nodeName: Invalid value: \"N\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "subsets[1].addresses[2].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "subsets[1].addresses[2].ip: Invalid value: \"x\": must be a valid IP address",
            "subsets[1].ports[0].name: Required value",
            "subsets[1].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "subsets[1].ports[1].appProtocol: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
    // What is there already may stay.
    let bad = json!({"subsets": [{}]});
    changed("Endpoints", bad.clone(), bad, &[]);
    warned(
        "Endpoints",
        json!({"subsets": [{"notReadyAddresses": [{"ip": "FD00::1"}]}]}),
        &[
            "subsets[0].notReadyAddresses[0].ip: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
        ],
    );
}

#[test]
fn slices() {
    refused("EndpointSlice", json!({"endpoints": []}), &["addressType: Required value"]);
    refused(
        "EndpointSlice",
        json!({"addressType": "IPv6", "endpoints": [
            {"addresses": ["10.0.0.1", "FD00::1", "fe80::1"], "nodeName": "",
             "hints": {"forZones": [{"name": "z"}, {"name": "z"}, {"name": "a b"}]}}]}),
        &[
            "endpoints[0].addresses: Invalid value: \"10.0.0.1\": must be an IPv6 address",
            "endpoints[0].addresses[1]: Invalid value: \"FD00::1\": must be in canonical form (\"fd00::1\")",
            "endpoints[0].addresses[2]: Invalid value: \"fe80::1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
            "endpoints[0].nodeName: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "endpoints[0].hints.forZones[1].name: Duplicate value: \"z\"",
            "endpoints[0].hints.forZones[2].name: Invalid value: \"a b\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
    refused(
        "EndpointSlice",
        json!({"addressType": "FQDN", "endpoints": [{"addresses": ["host", "a.b.", ""]}],
            "ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]}),
        &[
            "ports[1].name: Duplicate value: \"a\"",
            "endpoints[0].addresses[0]: Invalid value: \"host\": should be a domain with at least two segments separated by dots",
            "endpoints[0].addresses[2]: Required value",
        ],
    );
    let slice = |kind: &str| json!({"addressType": kind, "endpoints": [{"addresses": ["127.0.0.1"]}]});
    changed(
        "EndpointSlice",
        slice("IPv4"),
        slice("IPv6"),
        &["addressType: Invalid value: \"IPv6\": field is immutable"],
    );
    warned(
        "EndpointSlice",
        json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]}),
        &["spec.addressType: FQDN endpoints are deprecated"],
    );
    let row = row_of("EndpointSlice");
    let mut new = object("EndpointSlice", slice("IPv4"));
    new["endpoints"][0]["deprecatedTopology"] = json!({"a": "b"});
    row.prepare_create(&mut new);
    assert_eq!(new["endpoints"][0].get("deprecatedTopology"), None);
    let mut labelled = new.clone();
    labelled.set_label("a", "b");
    row.prepare_update(&mut labelled, &new);
    assert_eq!(labelled.generation(), 2);
}

#[test]
fn nodes() {
    refused(
        "Node",
        json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"],
                "taints": [{"key": "a", "value": "b c", "effect": "X"}, {"key": "a", "effect": "NoExecute"}, {"key": "a", "effect": "NoExecute"}]},
            "status": {"capacity": {"pods": "1500m"}, "declaredFeatures": ["B", "A", "A"]}}),
        &[
            "metadata.taints[0].value: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            "metadata.taints[0].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            "metadata.taints[2]: Duplicate value: {\"effect\":\"NoExecute\",\"key\":\"a\"}: taints must be unique by key and effect pair",
            "status.capacity.pods: Invalid value: \"1500m\": must be an integer",
            "status.allocatable.pods: Invalid value: \"1500m\": must be an integer",
            "status.declaredFeatures[1]: Invalid value: \"A\": list must be sorted alphabetically",
            "status.declaredFeatures[2]: Duplicate value: \"A\"",
            "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family",
        ],
    );
    changed(
        "Node",
        json!({"spec": {"podCIDR": "10.0.0.0/24", "providerID": "a", "externalID": "e"}}),
        json!({"spec": {"podCIDR": "10.0.1.0/24", "providerID": "b"}, "status": {"addresses": []}}),
        &[
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
            "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
            "spec.externalID: Forbidden: may not be updated",
        ],
    );
    warned(
        "Node",
        json!({"spec": {"externalID": "e", "podCIDRs": ["10.0.0.1/24"]}}),
        &[
            "spec.externalID: this field is deprecated, and is unused by Kubernetes",
            "spec.podCIDRs[0]: CIDR value \"10.0.0.1/24\" is ambiguous in this context (should be \"10.0.0.0/24\" or \"10.0.0.1/32\"?)",
        ],
    );
}

#[test]
fn what_services_and_policies_are_warned_of() {
    warned(
        "Service",
        json!({"metadata": {"annotations": {"service.kubernetes.io/topology-aware-hints": "auto"}},
            "spec": {"ports": [{"port": 80}], "externalIPs": ["FD00::1"], "externalName": "x", "trafficDistribution": "PreferClose"}}),
        &[
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
            "spec.externalIPs[0]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ],
    );
    warned(
        "Service",
        json!({"spec": {"clusterIP": "None", "sessionAffinity": "ClientIP", "externalIPs": ["1.2.3.4"], "loadBalancerIP": "1.2.3.4"}}),
        &[
            "spec.loadBalancerIP is ignored for headless services",
            "spec.externalIPs is ignored for headless services",
            "spec.SessionAffinity is ignored for headless services",
        ],
    );
    let policy = |cidr: &str| json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]}});
    refused(
        "NetworkPolicy",
        policy("10.0.0.1/8"),
        &[
            "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
        ],
    );
    changed("NetworkPolicy", policy("10.0.0.1/8"), policy("10.0.0.1/8"), &[]);
    warned(
        "NetworkPolicy",
        policy("FD00::/16"),
        &[
            "spec.ingress[0].from[0].ipBlock.cidr: IPv6 CIDR value \"FD00::/16\" should be in RFC 5952 canonical format (\"fd00::/16\")",
        ],
    );
}
