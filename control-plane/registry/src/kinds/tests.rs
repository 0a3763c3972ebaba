//! The table as a whole, and tables of errors and printed rows of the kinds of the first slice.

mod apps;
mod bounds;
mod checklist;
mod events;
mod jobs;
mod slices;
mod storage;

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::object::ObjectExt;
use skep_api::selector::FieldSelector;

use super::{TABLE, by_kind, by_resource};
use crate::strategy::Storage;

const NOW: &str = "2026-01-01T01:00:00Z";

fn row_of(kind: &str) -> &'static crate::strategy::KindRow {
    TABLE.iter().find(|r| r.kind == kind && matches!(r.storage, Storage::Own)).copied().unwrap()
}

fn object(kind: &str, mut rest: Value) -> Value {
    let row = row_of(kind);
    rest.set_gvk(&row.gvk());
    rest.set_name("x");
    rest.set_creation_timestamp("2026-01-01T00:00:00Z");
    if row.namespaced {
        rest.set_namespace("n");
    }
    row.default(&mut rest);
    rest
}

#[track_caller]
fn refused(kind: &str, rest: Value, want: &[&str]) {
    assert_eq!(row_of(kind).validate_create(&object(kind, rest)).lines(), want, "{kind}");
}

/// What a change to the new fields is told, over the old ones.
#[track_caller]
fn changed(kind: &str, old: Value, new: Value, want: &[&str]) {
    let row = row_of(kind);
    let (old, mut new) = (object(kind, old), object(kind, new));
    row.prepare_update(&mut new, &old);
    assert_eq!(row.validate_update(&new, &old).lines(), want, "{kind}");
}

/// The same of a status.
#[track_caller]
fn reported(kind: &str, spec: &Value, old: &Value, new: &Value, want: &[&str]) {
    let with = |status: &Value| {
        let mut object = object(kind, json!({"spec": spec}));
        object.set(&["status"], status.clone());
        object
    };
    assert_eq!(row_of(kind).validate_status_update(&with(new), &with(old)).lines(), want, "{kind}");
}

/// What whoever writes it is warned of.
#[track_caller]
fn warned(kind: &str, rest: Value, want: &[&str]) {
    assert_eq!(row_of(kind).strategy.warnings(&object(kind, rest), None), want, "{kind}");
}

#[track_caller]
fn prints(kind: &str, rest: Value, want: &str) {
    let now: Timestamp = NOW.parse().unwrap();
    let row = row_of(kind).strategy.row(&object(kind, rest), now);
    let cells: Vec<String> =
        row.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
    assert_eq!(cells.join(" | "), want, "{kind}");
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

#[test]
fn rows_are_unique_and_consistent() {
    for (index, row) in TABLE.iter().enumerate() {
        for other in &TABLE[index + 1..] {
            let same_version = row.group == other.group && row.version == other.version;
            assert!(!(same_version && row.kind == other.kind), "{row:?}");
            assert!(!(same_version && row.plural == other.plural), "{row:?}");
        }
        if let Storage::Alias { group, version, plural, .. } = row.storage {
            let stores = by_resource(group, version, plural).unwrap();
            assert!(matches!(stores.storage, Storage::Own), "{row:?}");
        }
        assert_eq!(by_kind(row.group, row.version, row.kind).unwrap().plural, row.plural);
    }
}

#[test]
fn defaults_are_idempotent_and_rows_fit_their_columns() {
    let now: Timestamp = NOW.parse().unwrap();
    for row in TABLE {
        let mut first = json!({"metadata": {"name": "x"}, "spec": {}});
        row.default(&mut first);
        let mut second = first.clone();
        row.default(&mut second);
        assert_eq!(first, second, "{row:?}");
        for sample in [&first, &json!({"metadata": {"name": "x"}})] {
            assert_eq!(row.strategy.row(sample, now).len(), row.strategy.columns().len(), "{row:?}");
            let _errors = row.validate_create(sample);
        }
    }
}

#[test]
fn metadata_is_checked() {
    let mut config = object("ConfigMap", json!({"metadata": {"labels": {"-a": "b c"}}}));
    config.set_name("A_b");
    config.unset(&["metadata", "namespace"]);
    let lines = row_of("ConfigMap").validate_create(&config).lines();
    assert!(
        lines[0].starts_with("metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must")
    );
    assert_eq!(lines[1], "metadata.namespace: Required value");
    assert!(lines[2].starts_with("metadata.labels: Invalid value: \"-a\": name part must consist of"));
    assert!(lines[3].starts_with("metadata.labels: Invalid value: \"b c\": a valid label must be an empty"));
}

#[test]
fn config_maps_and_secrets() {
    refused(
        "ConfigMap",
        json!({"data": {"a": "1"}, "binaryData": {"a": "MQ=="}}),
        &["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"],
    );
    let old = object("ConfigMap", json!({"immutable": true, "data": {"a": "1"}}));
    let mut new = old.clone();
    new.set(&["data", "a"], "2");
    assert_eq!(
        row_of("ConfigMap").validate_update(&new, &old).lines(),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let secret = object("Secret", json!({"stringData": {"k": "v"}, "data": {"k": "AA==", "l": "AA=="}}));
    assert_eq!(secret["data"], json!({"k": "dg==", "l": "AA=="}));
    assert_eq!((&secret["type"], secret.get("stringData")), (&json!("Opaque"), None));
    refused(
        "Secret",
        json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "AA=="}}),
        &["data[tls.key]: Required value"],
    );
    let mut new = secret.clone();
    new.set(&["type"], "x");
    assert_eq!(
        row_of("Secret").validate_update(&new, &secret).lines(),
        ["type: Invalid value: \"x\": field is immutable"]
    );
}

#[test]
fn namespaces() {
    let row = row_of("Namespace");
    let mut namespace = object("Namespace", json!({}));
    row.prepare_create(&mut namespace);
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(namespace.label("kubernetes.io/metadata.name"), Some("x"));
    let mut new = namespace.clone();
    new.set(&["spec", "finalizers"], json!([]));
    row.prepare_update(&mut new, &namespace);
    assert_eq!(new["spec"]["finalizers"], json!(["kubernetes"]));
    new.set(&["spec", "finalizers"], json!([]));
    row.strategy.prepare_for_subresource("finalize", &mut new, &namespace);
    assert_eq!(new["spec"]["finalizers"], json!([]));
}

#[test]
fn services() {
    let row = row_of("Service");
    let service = object("Service", json!({"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}));
    assert_eq!(row.validate_create(&service).lines(), Vec::<String>::new());
    assert_eq!(
        service["spec"],
        json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"a": "b"},
            "sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster"})
    );
    refused("Service", json!({"spec": {}}), &["spec.ports: Required value"]);
    refused(
        "Service",
        json!({"spec": {"type": "X", "ports": [{"port": 80, "nodePort": 3}, {"port": 80, "targetPort": "A"}]}}),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1].name: Required value",
            "spec.ports[1].targetPort: Invalid value: \"A\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "spec.ports[1].targetPort: Invalid value: \"A\": must contain at least one letter (a-z)",
            "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            "spec.internalTrafficPolicy: Required value",
        ],
    );
    refused(
        "Service",
        json!({"spec": {"ports": [{"port": 0, "nodePort": 30000}], "externalIPs": ["x"]}}),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.externalIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ],
    );
    refused("Service", json!({"spec": {"type": "ExternalName"}}), &["spec.externalName: Required value"]);
}

#[test]
fn a_service_keeps_its_address() {
    let row = row_of("Service");
    let mut old = object(
        "Service",
        json!({"spec": {"type": "NodePort",
        "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": [{"port": 80, "nodePort": 30001}]}}),
    );
    old.set(&["status"], json!({"loadBalancer": {}}));
    // A client that never saw the address.
    let mut new = object("Service", json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}}));
    row.prepare_update(&mut new, &old);
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.5"]));
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
    assert!(row.validate_update(&new, &old).is_empty());
    // Another address.
    new.set(&["spec", "clusterIP"], "10.96.0.6");
    row.prepare_update(&mut new, &old);
    assert_eq!(
        row.validate_update(&new, &old).lines(),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.6\"]: may not change once set"]
    );
    // Another type.
    let mut new = old.clone();
    new.set(&["spec", "type"], "ClusterIP");
    row.prepare_update(&mut new, &old);
    assert_eq!(new["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(row.validate_update(&new, &old).lines(), Vec::<String>::new());
    let mut new = old.clone();
    new.set(&["spec", "type"], "ExternalName");
    new.set(&["spec", "externalName"], "example.com");
    row.prepare_update(&mut new, &old);
    assert_eq!(row.validate_update(&new, &old).lines(), Vec::<String>::new());
    assert_eq!(new["spec"].get("clusterIPs"), None);
}

#[test]
fn workloads() {
    let spec = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template()});
    for kind in ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"] {
        refused(kind, json!({"spec": spec}), &[]);
        let row = row_of(kind);
        let mut old = object(kind, json!({"spec": spec}));
        row.prepare_create(&mut old);
        assert_eq!(old.generation(), 1);
        let mut new = old.clone();
        row.prepare_update(&mut new, &old);
        assert_eq!(new.generation(), 1, "{kind}");
        new.set(&["spec", "template", "spec", "terminationGracePeriodSeconds"], 5);
        new.set(&["status"], json!({"replicas": 9}));
        row.prepare_update(&mut new, &old);
        assert_eq!((new.generation(), &new["status"]), (2, &old["status"]), "{kind}");
    }
    refused(
        "Deployment",
        json!({"spec": {"replicas": -1, "selector": {"matchLabels": {"app": "b"}}, "template": template(),
            "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ],
    );
    refused(
        "ReplicaSet",
        json!({"spec": {"selector": {}, "template": {"spec": {"restartPolicy": "Never", "containers": []}}}}),
        &[
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
            "spec.template.spec.containers: Required value",
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ],
    );
    let old = object("Deployment", json!({"spec": spec}));
    let mut new = old.clone();
    new.set(&["spec", "selector"], json!({"matchLabels": {"app": "a", "x": "y"}}));
    new.set(&["spec", "template", "metadata", "labels", "x"], "y");
    assert_eq!(
        row_of("Deployment").validate_update(&new, &old).lines(),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"x\":\"y\"}}: field is immutable"]
    );
    let controller = object("ReplicationController", json!({"spec": {"template": template()}}));
    assert_eq!(controller["spec"]["selector"], json!({"app": "a"}));
    assert_eq!(controller.label("app"), Some("a"));
}

#[test]
fn scale() {
    let deployment = object(
        "Deployment",
        json!({"spec": {"replicas": 3, "template": template(),
        "selector": {"matchLabels": {"app": "a"}}}, "status": {"replicas": 2}}),
    );
    let paths = row_of("Deployment").strategy.scale().unwrap();
    let scale = paths.read(&deployment);
    assert_eq!(scale["spec"], json!({"replicas": 3}));
    assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=a"}));
    let controller = object("ReplicationController", json!({"spec": {"template": template()}}));
    let mut scale = row_of("ReplicationController").strategy.scale().unwrap().read(&controller);
    assert_eq!(scale["status"]["selector"], "app=a");
    scale.set(&["spec", "replicas"], 7);
    let mut changed = deployment;
    paths.write(&mut changed, &scale);
    assert_eq!(changed["spec"]["replicas"], 7);
}

#[test]
fn jobs() {
    let row = row_of("Job");
    let spec = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
    let mut job = object("Job", json!({"metadata": {"uid": "u1"}, "spec": spec}));
    row.prepare_create(&mut job);
    assert_eq!(row.validate_create(&job).lines(), Vec::<String>::new());
    assert_eq!(job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u1");
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "x");
    refused("CronJob", json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": spec}}}), &[]);
}

#[test]
fn rbac() {
    refused(
        "Role",
        json!({"rules": [{"apiGroups": [""], "resources": ["pods"]}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
        &[
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
        ],
    );
    let mut role = object("ClusterRole", json!({"rules": []}));
    role.set_name("system:node");
    assert!(row_of("ClusterRole").validate_create(&role).is_empty());
}

#[test]
fn printed_rows() {
    prints(
        "Service",
        json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.5", "selector": {"a": "b"},
            "ports": [{"port": 80, "nodePort": 30001}, {"port": 53, "protocol": "UDP"}]}}),
        "x | NodePort | 10.96.0.5 | <none> | 80:30001/TCP,53/UDP | 60m | a=b",
    );
    prints(
        "Service",
        json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}),
        "x | LoadBalancer | <none> | <pending> | 80/TCP | 60m | <none>",
    );
    prints(
        "Deployment",
        json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": template()},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}}),
        "x | 2/3 | 3 | 1 | 60m | c | i:1 | app=a",
    );
    prints(
        "ReplicaSet",
        json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template()}, "status": {"replicas": 1}}),
        "x | 1 | 1 | 0 | 60m | c | i:1 | app=a",
    );
    prints(
        "StatefulSet",
        json!({"spec": {"template": template()}, "status": {"readyReplicas": 1}}),
        "x | 1/1 | 60m | c | i:1",
    );
    prints(
        "Node",
        json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.0"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
        "x | Ready,SchedulingDisabled | control-plane | 60m | v1.36.0 | 10.0.0.1 | <none> | <unknown> | <unknown> | <unknown>",
    );
    prints(
        "Endpoints",
        json!({"subsets": [{"ports": [{"port": 80}],
            "addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}, {"ip": "1.1.1.3"}, {"ip": "1.1.1.4"}]}]}),
        "x | 1.1.1.1:80,1.1.1.2:80,1.1.1.3:80 + 1 more... | 60m",
    );
    prints(
        "EndpointSlice",
        json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1.1.1.1"]}]}),
        "x | IPv4 | 80 | 1.1.1.1 | 60m",
    );
    prints("ConfigMap", json!({"data": {"a": "b"}}), "x | 1 | 60m");
    prints("Secret", json!({"data": {"a": "MQ=="}}), "x | Opaque | 1 | 60m");
    prints("Namespace", json!({}), "x | Active | 60m");
    prints("Lease", json!({"spec": {"holderIdentity": "h"}}), "x | h | 60m");
    prints(
        "Job",
        json!({"spec": {"template": template()}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:00:00Z",
            "completionTime": "2026-01-01T00:00:07Z", "conditions": [{"type": "Complete", "status": "True"}]}}),
        "x | Complete | 1/1 | 7s | 60m | c | i:1 | <none>",
    );
}

#[test]
fn field_selectors() {
    let pods = row_of("Pod");
    let selector = FieldSelector::parse("spec.nodeName=n1,metadata.name=x").unwrap();
    assert!(pods.check_field_selector(&selector).is_ok());
    let pod = object("Pod", json!({"spec": {"nodeName": "n1", "containers": []}}));
    assert!(selector.matches(&pods.fields(&pod)));
    let unknown = FieldSelector::parse("spec.foo=1").unwrap();
    let message = pods.check_field_selector(&unknown).unwrap_err().message;
    assert!(message.ends_with("field label not supported: spec.foo"), "{message}");
    let nodes = row_of("Node");
    let cordoned = FieldSelector::parse("spec.unschedulable=true").unwrap();
    assert!(!cordoned.matches(&nodes.fields(&object("Node", json!({"spec": {}})))));
}

/// What upstream lets a field selector name, beside name and namespace.
#[test]
fn fields_that_selectors_may_name() {
    let event = "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type";
    let wanted = [
        (
            "Pod",
            "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP status.podIPs status.nominatedNodeName",
        ),
        ("Node", "spec.unschedulable"),
        ("Namespace", "status.phase"),
        ("Secret", "type"),
        ("Service", "spec.clusterIP spec.type"),
        ("ReplicationController", "status.replicas"),
        ("ReplicaSet", "status.replicas"),
        ("Job", "status.successful"),
        ("CertificateSigningRequest", "spec.signerName"),
        ("ResourceSlice", "spec.nodeName spec.driver"),
    ];
    for row in TABLE {
        let wanted = match (row.group, row.kind) {
            ("", "Event") => event.to_owned(),
            ("events.k8s.io", "Event") => event
                .replace("involvedObject.", "regarding.")
                .replace("reportingComponent source type", "reportingController type"),
            (_, kind) => {
                wanted.iter().find(|(of, _)| *of == kind).map_or("", |(_, fields)| fields).to_owned()
            }
        };
        let mut wanted: Vec<&str> = wanted.split_whitespace().collect();
        let mut found = row.strategy.selectable().to_vec();
        wanted.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, wanted, "{row:?}");
    }
}
