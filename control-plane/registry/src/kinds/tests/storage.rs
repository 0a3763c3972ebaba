//! Tables of faults of the kinds of storage and of service addresses.

use serde_json::{Value, json};
use skep_api::object::ObjectExt;

use super::{object, refused, row_of};

#[track_caller]
fn changed(kind: &str, old: Value, path: &[&str], value: impl Into<Value>, want: &[&str]) {
    let old = object(kind, old);
    let mut new = old.clone();
    new.set(path, value);
    assert_eq!(row_of(kind).validate_update(&new, &old).lines(), want, "{kind}");
}

#[test]
fn drivers() {
    refused(
        "CSIDriver",
        json!({"spec": {"fsGroupPolicy": "Any", "volumeLifecycleModes": ["Persistent", "Never"],
            "tokenRequests": [{"audience": "a", "expirationSeconds": 599}, {"audience": "a"}],
            "nodeAllocatableUpdatePeriodSeconds": 9}}),
        &[
            r#"spec.fsGroupPolicy: Unsupported value: "Any": supported values: "File", "None", "ReadWriteOnceWithFSType""#,
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
            r#"spec.tokenRequests[1].audience: Duplicate value: "a""#,
            r#"spec.volumeLifecycleModes: Unsupported value: "Never": supported values: "Persistent", "Ephemeral""#,
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
        ],
    );
    changed(
        "CSIDriver",
        json!({"spec": {}}),
        &["spec", "attachRequired"],
        false,
        &["spec.attachedRequired: Invalid value: false: field is immutable"],
    );
    let driver = json!({"name": "d.example", "nodeID": "1", "allocatable": {"count": 1}});
    refused(
        "CSINode",
        json!({"spec": {"drivers": [driver, {"name": "d.example", "nodeID": "", "topologyKeys": ["a", "a"],
            "allocatable": {"count": -1}}]}}),
        &[
            "spec.drivers[1].nodeID: Required value",
            "spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
            r#"spec.drivers[1].name: Duplicate value: "d.example""#,
            r#"spec.drivers[1]: Duplicate value: "a""#,
        ],
    );
    let node = json!({"spec": {"drivers": [driver]}});
    let more = json!([{"name": "d.example", "nodeID": "1", "allocatable": {"count": 2}}]);
    changed("CSINode", node.clone(), &["spec", "drivers"], more, &[]);
    let other = json!([{"name": "d.example", "nodeID": "2"}]);
    changed(
        "CSINode",
        node,
        &["spec", "drivers"],
        other,
        &[r#"spec.drivers: Invalid value: {"name":"d.example","nodeID":"2"}: field is immutable"#],
    );
    let capacity = json!({"storageClassName": "fast", "capacity": "-1"});
    refused(
        "CSIStorageCapacity",
        capacity,
        &[r#"capacity: Invalid value: "-1": must be greater than or equal to 0"#],
    );
    changed(
        "CSIStorageCapacity",
        json!({"storageClassName": "fast"}),
        &["storageClassName"],
        "slow",
        &[r#"storageClassName: Invalid value: "slow": field is immutable"#],
    );
}

#[test]
fn attachments() {
    refused(
        "VolumeAttachment",
        json!({"spec": {"attacher": "", "nodeName": "n", "source": {}}}),
        &[
            "spec.attacher: Required value",
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ],
    );
    refused(
        "VolumeAttachment",
        json!({"spec": {"attacher": "d.example", "nodeName": "n", "source": {"inlineVolumeSpec":
            {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}}}}}),
        &[
            "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
        ],
    );
    let whole =
        json!({"spec": {"attacher": "d.example", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    let old = object("VolumeAttachment", whole);
    let mut new = old.clone();
    new.set(&["spec", "nodeName"], "m");
    new.set(&["status", "attachError"], json!({"message": "x".repeat(1025), "errorCode": -1}));
    let lines = row_of("VolumeAttachment").validate_update(&new, &old).lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], "status.attachError.message: Too long: may not be more than 262144 bytes");
    assert_eq!(
        lines[1],
        "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"
    );
    assert!(lines[2].starts_with("spec: Invalid value: ") && lines[2].ends_with(": field is immutable"));
}

#[test]
fn classes() {
    refused(
        "VolumeAttributesClass",
        json!({"driverName": ""}),
        &[
            "driverName: Required value",
            "parameters: Required value: must contain at least one key/value pair",
        ],
    );
    changed(
        "VolumeAttributesClass",
        json!({"driverName": "d.example", "parameters": {"iops": "1"}}),
        &["parameters", "iops"],
        "2",
        &["parameters: Forbidden: updates to parameters are forbidden."],
    );
    refused(
        "StorageClass",
        json!({"provisioner": "", "reclaimPolicy": "Recycle", "allowedTopologies": [
            {"matchLabelExpressions": [{"key": "z", "values": ["a", "a"]}, {"key": "z", "values": []}]},
            {"matchLabelExpressions": [{"key": "y", "values": ["a"]}]},
            {"matchLabelExpressions": [{"key": "y", "values": ["a"]}]},
        ]}),
        &[
            "provisioner: Required value",
            r#"reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain""#,
            r#"allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: "a""#,
            "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
            r#"allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: "z""#,
            r#"allowedTopologies[2].matchLabelExpressions: Duplicate value: """#,
        ],
    );
    changed(
        "StorageClass",
        json!({"provisioner": "d.example"}),
        &["reclaimPolicy"],
        "Retain",
        &["reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."],
    );
}

fn claim() -> Value {
    json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}})
}

#[test]
fn claims() {
    refused(
        "PersistentVolumeClaim",
        json!({"spec": {"accessModes": ["ReadWriteOncePod", "ReadOnlyMany", "Odd"],
            "dataSource": {"kind": "Volume", "name": "x"}, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "y"}}}),
        &[
            r#"spec.accessModes: Unsupported value: "Odd": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod""#,
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            "spec.resources[storage]: Required value",
            r#"spec.dataSource: Invalid value: "Volume": must be 'PersistentVolumeClaim' when referencing the default apiGroup"#,
            r#"spec: Invalid value: "spec.dataSource": must match dataSourceRef"#,
        ],
    );
    let frozen = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    changed(
        "PersistentVolumeClaim",
        claim(),
        &["spec", "resources", "requests", "storage"],
        "3Gi",
        &[frozen],
    );
    changed("PersistentVolumeClaim", claim(), &["spec", "volumeName"], "v", &[]);
    changed("PersistentVolumeClaim", claim(), &["spec", "storageClassName"], "fast", &[]);
    let mut bound = claim();
    bound.set(&["spec", "volumeName"], "v");
    bound.set(&["status"], json!({"phase": "Bound", "capacity": {"storage": "2Gi"}}));
    let size = ["spec", "resources", "requests", "storage"];
    changed("PersistentVolumeClaim", bound.clone(), &size, "3Gi", &[]);
    changed(
        "PersistentVolumeClaim",
        bound.clone(),
        &size,
        "1Gi",
        &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
    );
    changed("PersistentVolumeClaim", bound.clone(), &["spec", "volumeName"], "w", &[frozen]);
    let old = object("PersistentVolumeClaim", bound);
    let mut new = old.clone();
    new.set(&["status", "allocatedResourceStatuses"], json!({"cpu": "Growing"}));
    assert_eq!(
        row_of("PersistentVolumeClaim").validate_status_update(&new, &old).lines(),
        [
            "resourceVersion: Required value",
            r#"status.allocatedResourceStatuses: Unsupported value: "cpu": supported values: "storage""#,
            r#"status.allocatedResourceStatuses: Unsupported value: "cpu": supported values: "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending""#,
        ]
    );
}

#[test]
fn volumes() {
    refused(
        "PersistentVolume",
        json!({"spec": {"capacity": {"cpu": "1"}, "accessModes": [], "hostPath": {"path": "/"},
            "persistentVolumeReclaimPolicy": "Recycle", "volumeMode": "Tape"}}),
        &[
            "spec.accessModes: Required value",
            r#"spec.capacity: Unsupported value: {"cpu":"1"}: supported values: "storage""#,
            "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            r#"spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem""#,
        ],
    );
    let csi = json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "d.example", "volumeHandle": "h"}, "volumeAttributesClassName": "gold"}});
    changed(
        "PersistentVolume",
        csi.clone(),
        &["spec", "csi", "volumeHandle"],
        "i",
        &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
    );
    changed(
        "PersistentVolume",
        csi,
        &["spec", "volumeAttributesClassName"],
        Value::Null,
        &["spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"],
    );
}

#[test]
fn service_ranges_and_addresses() {
    refused("ServiceCIDR", json!({"spec": {}}), &["spec.cidrs: Required value: at least one CIDR required"]);
    refused(
        "ServiceCIDR",
        json!({"spec": {"cidrs": ["10.0.0.1/24", "10.1.0.0/24"]}}),
        &[
            r#"spec.cidrs[0]: Invalid value: "10.0.0.1/24": must not have bits set beyond the prefix length"#,
            r#"spec.cidrs: Invalid value: ["10.0.0.1/24","10.1.0.0/24"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#,
        ],
    );
    refused(
        "ServiceCIDR",
        json!({"spec": {"cidrs": ["10.0.0.0", "2001:DB8::/64"]}}),
        &[
            r#"spec.cidrs[0]: Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
            r#"spec.cidrs[1]: Invalid value: "2001:DB8::/64": must be in canonical form ("2001:db8::/64")"#,
        ],
    );
    let range = json!({"spec": {"cidrs": ["10.0.0.0/24"]}});
    changed("ServiceCIDR", range.clone(), &["spec", "cidrs"], json!(["10.0.0.0/24", "2001:db8::/64"]), &[]);
    changed(
        "ServiceCIDR",
        range,
        &["spec", "cidrs"],
        json!(["10.9.0.0/24"]),
        &[r#"spec.cidrs[0]: Invalid value: "10.9.0.0/24": field is immutable"#],
    );
    let mut address = object("IPAddress", json!({"spec": {"parentRef": {"name": "s"}}}));
    address.set_name("2001:DB8::1");
    assert_eq!(
        row_of("IPAddress").validate_create(&address).lines(),
        [
            r#"metadata.name: Invalid value: "2001:DB8::1": must be in canonical form ("2001:db8::1")"#,
            "spec.parentRef.resource: Required value",
        ]
    );
}

#[test]
fn network_policies_and_ingresses() {
    refused(
        "NetworkPolicy",
        json!({"spec": {"podSelector": {}, "policyTypes": ["Sideways"], "ingress": [{"ports": [
            {"endPort": 9}, {"port": "http", "endPort": 9}, {"port": 90, "endPort": 9, "protocol": "ICMP"}],
            "from": [{}, {"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.1.0.0/28"]}, "podSelector": {}}]}]}}),
        &[
            "spec.ingress[0].ports[0].endPort: Invalid value: 9: may not be specified when `port` is not specified",
            "spec.ingress[0].ports[1].endPort: Invalid value: 9: may not be specified when `port` is non-numeric",
            r#"spec.ingress[0].ports[2].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP""#,
            "spec.ingress[0].ports[2].endPort: Invalid value: 9: must be greater than or equal to `port`",
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            "spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
            r#"spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "10.1.0.0/28": must be a strict subset of `cidr`"#,
            r#"spec.policyTypes[0]: Unsupported value: "Sideways": supported values: "Ingress", "Egress""#,
        ],
    );
    refused(
        "Ingress",
        json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}, "spec": {"ingressClassName": "b",
            "defaultBackend": {}, "rules": [{"http": {"paths": [{"pathType": "Exact", "path": "a//", "backend":
            {"service": {"name": "s", "port": {}}}}, {"path": "/"}]}}]}}),
        &[
            r#"spec.defaultBackend: Invalid value: "": resource or service backend is required"#,
            r#"spec.rules[0].http.paths[0].path: Invalid value: "a//": must be an absolute path"#,
            r#"spec.rules[0].http.paths[0].path: Invalid value: "a//": must not contain '//'"#,
            "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
            "spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified",
            r#"annotations.kubernetes.io/ingress.class: Invalid value: "a": must match `ingressClassName` when both are specified"#,
        ],
    );
    refused(
        "IngressClass",
        json!({"spec": {"controller": "c.example/i", "parameters": {"kind": "P", "name": "p", "scope": "Namespace"}}}),
        &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
    );
}
