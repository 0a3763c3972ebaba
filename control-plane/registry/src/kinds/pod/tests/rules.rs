//! A table of faulty pods with everything a client is told of each, in upstream's words.

use super::*;

/// A pod of one container with these fields more.
fn container(fields: &Value) -> Value {
    let mut container = json!({"name": "a", "image": "i"});
    for (field, value) in fields.as_object().into_iter().flatten() {
        container[field] = value.clone();
    }
    json!({"containers": [container]})
}

/// A pod with these fields more.
fn with(fields: &Value) -> Value {
    let mut spec = json!({"containers": [{"name": "a", "image": "i"}]});
    for (field, value) in fields.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    spec
}

#[track_caller]
fn table(cases: &[(Value, &[&str])]) {
    for (spec, want) in cases {
        assert_eq!(ROW.validate_create(&pod(spec)).lines(), *want, "{spec}");
    }
}

const C: &str = "spec.containers[0]";

#[track_caller]
fn containers(cases: &[(Value, &[&str])]) {
    for (fields, want) in cases {
        let want: Vec<String> = want.iter().map(|line| format!("{C}{line}")).collect();
        assert_eq!(ROW.validate_create(&pod(&container(fields))).lines(), want, "{fields}");
    }
}

#[test]
fn handlers() {
    containers(&[
        (json!({"livenessProbe": {"exec": {"command": ["x"]}}}), &[]),
        (json!({"livenessProbe": {"exec": {}}}), &[".livenessProbe.exec.command: Required value"]),
        (
            json!({"readinessProbe": {"tcpSocket": {"port": 0}, "terminationGracePeriodSeconds": 3}}),
            &[
                ".readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                ".readinessProbe.terminationGracePeriodSeconds: Invalid value: 3: must not be set for readinessProbes",
            ],
        ),
        (
            json!({"startupProbe": {"httpGet": {"port": "Http", "httpHeaders": [{"name": "a b"}]}}}),
            &[
                ".startupProbe.httpGet.port: Invalid value: \"Http\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                ".startupProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
            ],
        ),
        (
            json!({"livenessProbe": {"grpc": {"port": 70000}, "exec": {"command": ["x"]}, "periodSeconds": -1, "terminationGracePeriodSeconds": 0}}),
            &[
                ".livenessProbe.grpc: Forbidden: may not specify more than 1 handler type",
                ".livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                ".livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
            ],
        ),
        (
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}, "postStart": {}}}),
            &[
                ".lifecycle.postStart: Required value: must specify a handler type",
                ".lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
            ],
        ),
        (json!({"lifecycle": {"preStop": {"sleep": {"seconds": 0}}}}), &[]),
    ]);
}

#[test]
fn ports_and_images() {
    containers(&[
        (
            json!({"image": " i", "imagePullPolicy": "Never", "terminationMessagePolicy": "X"}),
            &[
                ".image: Invalid value: \" i\": must not have leading or trailing whitespace",
                ".terminationMessagePolicy: Unsupported value: \"X\": supported values: \"File\", \"FallbackToLogsOnError\"",
            ],
        ),
        (
            json!({"imagePullPolicy": "X"}),
            &[
                ".imagePullPolicy: Unsupported value: \"X\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ],
        ),
        (
            json!({"ports": [{"containerPort": 80, "name": "web", "hostPort": 80}, {"containerPort": 81, "name": "web", "hostPort": 80}]}),
            &[".ports[1].name: Duplicate value: \"web\"", ".ports[1].hostPort: Duplicate value: \"TCP//80\""],
        ),
        (
            json!({"ports": [{"containerPort": 80, "name": "a--b"}]}),
            &[".ports[0].name: Invalid value: \"a--b\": must not contain consecutive hyphens"],
        ),
    ]);
    table(&[
        (
            with(&json!({"hostNetwork": true, "containers": [{"name": "a", "image": "i",
                "ports": [{"containerPort": 80, "hostPort": 81}]}]})),
            &[
                "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
            ],
        ),
        (
            with(
                &json!({"initContainers": [{"name": "a", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}},
                "lifecycle": {}}]}),
            ),
            &[
                "spec.initContainers[0].name: Duplicate value: \"a\"",
                "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ],
        ),
        (
            with(&json!({"initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always",
                "readinessProbe": {"exec": {"command": ["x"]}}}]})),
            &[],
        ),
    ]);
}

#[test]
fn environment() {
    containers(&[
        (
            json!({"env": [{"name": ""}, {"name": "a=b"}]}),
            &[
                ".env[0].name: Required value",
                ".env[1].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            ],
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {}}]}),
            &[
                ".env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ],
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b/c']"}}}]}),
            &[
                ".env[0].valueFrom.fieldRef: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            ],
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name['a']"}}}]}),
            &[".env[0].valueFrom.fieldRef: Invalid value: \"metadata.name\": does not support subscript"],
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}]}),
            &[
                ".env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
            ],
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]}),
            &[
                ".env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.gpu\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
            ],
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "a b"}, "secretKeyRef": {"name": "s", "key": "k"}}}]}),
            &[
                ".env[0].valueFrom.configMapKeyRef.key: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ".env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
            ],
        ),
        (
            json!({"envFrom": [{}, {"configMapRef": {}}]}),
            &[
                ".envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                ".envFrom[1].configMapRef.name: Required value",
            ],
        ),
    ]);
}

#[test]
fn resources() {
    containers(&[
        (
            json!({"resources": {"limits": {"cpu": "-1"}}}),
            &[
                ".resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                ".resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            ],
        ),
        (
            json!({"resources": {"requests": {"example.com/gpu": "1"}}}),
            &[".resources.limits: Required value: Limit must be set for non overcommitable resources"],
        ),
        (
            json!({"resources": {"limits": {"example.com/gpu": "1.5"}}}),
            &[
                ".resources.limits[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
                ".resources.requests[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
            ],
        ),
        (
            json!({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}),
            &[".resources: Forbidden: HugePages require cpu or memory"],
        ),
        (
            json!({"resources": {"claims": [{"name": "gone"}]}}),
            &[".resources.claims[0]: Not found: \"gone\""],
        ),
        (
            json!({"resizePolicy": [{"resourceName": "gpu", "restartPolicy": "X"}]}),
            &[
                ".resizePolicy: Unsupported value: \"gpu\": supported values: \"cpu\", \"memory\"",
                ".resizePolicy: Unsupported value: \"X\": supported values: \"NotRequired\", \"RestartContainer\"",
            ],
        ),
    ]);
    table(&[(
        with(&json!({"resources": {"requests": {"cpu": "1"}}, "containers": [
                {"name": "a", "image": "i", "resources": {"requests": {"cpu": "800m"}}},
                {"name": "b", "image": "i", "resources": {"requests": {"cpu": "800m"}}}]})),
        &[
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 1600m",
        ],
    )]);
}

#[test]
fn security() {
    containers(&[
        (
            json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false, "runAsUser": -1}}),
            &[
                ".securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ".securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true,\"runAsUser\":-1}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ],
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
            &[
                ".securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            ],
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}, "appArmorProfile": {"type": "X"}}}),
            &[
                ".securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'",
                ".securityContext.appArmorProfile.type: Unsupported value: \"X\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
            ],
        ),
        (
            json!({"securityContext": {"procMount": "Unmasked"}}),
            &[
                ".securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
            ],
        ),
    ]);
    table(&[
        (
            with(
                &json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net.a"}, {"name": "a..b"}, {"name": "net.a"}]}}),
            ),
            &[
                "spec.securityContext.sysctls[0].name: Invalid value: \"net.a\": may not be specified when 'hostNetwork' is true",
                "spec.securityContext.sysctls[1].name: Invalid value: \"a..b\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
                "spec.securityContext.sysctls[2].name: Duplicate value: \"net.a\"",
                "spec.securityContext.sysctls[2].name: Invalid value: \"net.a\": may not be specified when 'hostNetwork' is true",
            ],
        ),
        (
            with(&json!({"shareProcessNamespace": true, "hostPID": true})),
            &[
                "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
            ],
        ),
        (
            with(&json!({"os": {"name": "windows"}, "securityContext": {"fsGroup": 1}, "hostPID": true})),
            &[
                "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod",
                "spec.hostPID: Forbidden: cannot be set for a windows pod",
            ],
        ),
        (
            with(&json!({"os": {"name": "plan9"}})),
            &["spec.os.name: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
        ),
        (
            with(&json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {}}})),
            &[
                "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
            ],
        ),
    ]);
}

#[test]
fn placement() {
    table(&[
        (
            with(
                &json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
            ),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
            ],
        ),
        (
            with(
                &json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "Exists"}]}]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "preference": {"matchExpressions": [{"key": "a", "operator": "X"}]}}]}}}),
            ),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[1].operator: Invalid value: \"Exists\": not a valid selector operator",
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[1].key: Invalid value: \"x\": not a valid field selector key",
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator",
            ],
        ),
        (
            with(&json!({"topologySpreadConstraints": [
                {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1},
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "nodeTaintsPolicy": "X"}]})),
            &[
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "spec.topologySpreadConstraints[0].minDomains: Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
                "spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, ScheduleAnyway}\"",
                "spec.topologySpreadConstraints[1].nodeTaintsPolicy: Unsupported value: \"X\": supported values: \"Honor\", \"Ignore\"",
            ],
        ),
        (
            with(
                &json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "v"}, {"operator": "Equal"}, {"key": "a", "operator": "X"}]}),
            ),
            &[
                "spec.tolerations[0].operator: Invalid value: \"v\": value must be empty when `operator` is 'Exists'",
                "spec.tolerations[1].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                "spec.tolerations[2].operator: Unsupported value: \"X\": supported values: \"Equal\", \"Exists\"",
            ],
        ),
        (
            with(&json!({"schedulingGates": [{"name": "a"}, {"name": "a"}], "nodeName": "n"})),
            &[
                "spec.schedulingGates[1]: Duplicate value: \"a\"",
                "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
            ],
        ),
        (
            with(
                &json!({"resourceClaims": [{"name": "c"}, {"name": "c", "resourceClaimName": "x", "resourceClaimTemplateName": "y"}]}),
            ),
            &[
                "spec.resourceClaims[0]: Invalid value: {\"name\":\"c\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                "spec.resourceClaims[1].name: Duplicate value: \"c\"",
                "spec.resourceClaims[1]: Invalid value: {\"name\":\"c\",\"resourceClaimName\":\"x\",\"resourceClaimTemplateName\":\"y\"}: at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ],
        ),
    ]);
}

#[test]
fn volumes() {
    let v = |source: Value| with(&json!({"volumes": [source]}));
    table(&[
        (
            v(json!({"name": "v", "hostPath": {"path": "/a/../b", "type": "X"}})),
            &[
                "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                "spec.volumes[0].hostPath.type: Unsupported value: \"X\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
            ],
        ),
        (
            v(json!({"name": "v", "secret": {"defaultMode": 512, "items": [{"key": "", "path": "..a"}]}})),
            &[
                "spec.volumes[0].secret.secretName: Required value",
                "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                "spec.volumes[0].secret.items[0].key: Required value",
                "spec.volumes[0].secret.items[0].path: Invalid value: \"..a\": must not start with '..'",
            ],
        ),
        (
            v(
                json!({"name": "v", "projected": {"sources": [{}, {"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
                {"configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}]}}),
            ),
            &[
                "spec.volumes[0].projected.sources[0]: Required value: must specify a volume type per source",
                "spec.volumes[0].projected.sources[2].configMap: Invalid value: \"p\": conflicting duplicate paths",
            ],
        ),
        (
            with(&json!({"serviceAccountName": "s", "volumes": [{"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "", "expirationSeconds": 5}}]}}]})),
            &[
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                "spec.volumes[0].projected.sources[0].serviceAccountToken.path: Required value",
            ],
        ),
        (
            v(json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
            &[
                "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
            ],
        ),
        (
            v(json!({"name": "v", "nfs": {"server": "s", "path": "p"}})),
            &["spec.volumes[0].nfs.path: Invalid value: \"p\": must be an absolute path"],
        ),
        (
            v(json!({"name": "v", "iscsi": {"targetPortal": "p", "iqn": "iqn.bad", "lun": 300}})),
            &[
                "spec.volumes[0].iscsi.iqn: Invalid value: \"iqn.bad\": must be valid format",
                "spec.volumes[0].iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
            ],
        ),
        (
            v(json!({"name": "v", "csi": {"driver": "a_b"}})),
            &[
                "spec.volumes[0].csi.driver: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ],
        ),
        (
            v(json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["RWO"]}}}})),
            &[
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Unsupported value: \"RWO\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
            ],
        ),
    ]);
    containers(&[(
        json!({"volumeDevices": [{"name": "gone", "devicePath": "/a/../b"}], "volumeMounts": [{"name": "gone", "mountPath": "m"}]}),
        &[
            ".volumeMounts[0].name: Not found: \"gone\"",
            ".volumeMounts[0].name: Invalid value: \"gone\": must not already exist in volumeDevices",
            ".volumeDevices[0].name: Not found: \"gone\"",
            ".volumeDevices[0].devicePath: Invalid value: \"/a/../b\": can not contain backsteps ('..')",
            ".volumeDevices[0].name: Invalid value: \"gone\": must not already exist in volumeMounts",
        ],
    )]);
}

#[test]
fn annotations() {
    let mut object = simple();
    object.set(
        &["metadata", "annotations"],
        json!({
            "kubernetes.io/config.mirror": "x",
            "controller.kubernetes.io/pod-deletion-cost": "01",
            "container.apparmor.security.beta.kubernetes.io/gone": "bad",
        }),
    );
    assert_eq!(
        ROW.validate_create(&object).lines(),
        [
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/gone]: Invalid value: \"gone\": container not found",
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/gone]: Invalid value: \"bad\": invalid AppArmor profile name: \"bad\"",
            "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"01\": must be a 32bit integer",
            "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
        ]
    );
}

#[test]
fn a_client_is_warned() {
    let object = pod(&json!({
        "nodeSelector": {"beta.kubernetes.io/os": "linux"},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}],
        "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}],
        "hostAliases": [{"ip": "::ffff:1.2.3.4"}],
        "volumes": [{"name": "g", "gitRepo": {"repository": "r"}}, {"name": "c", "cephfs": {"monitors": ["m"]}}],
        "terminationGracePeriodSeconds": -1,
        "containers": [{"name": "a", "image": "i",
            "env": [{"name": "X", "value": "1"}, {"name": "X", "value": "2"}, {"name": "X", "value": "$(X)"}],
            "resources": {"limits": {"memory": "100m"}},
            "ports": [{"containerPort": 80}, {"containerPort": 80}]}],
    }));
    assert_eq!(
        ROW.strategy.warnings(&object, None),
        [
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.volumes[1].cephfs: deprecated in v1.28, non-functional in v1.31+",
            "spec.imagePullSecrets[1].name: duplicate name \"s\"",
            "spec.imagePullSecrets[2].name: invalid empty name \"\"",
            "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].env[1]: hides previous definition of \"X\", which may be dropped when using apply",
            "spec.containers[0].env[2]: hides previous definition of \"X\", which may be dropped when using apply",
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            "spec.hostAliases[0].ip: non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\"",
        ]
    );
}

#[test]
fn a_client_is_warned_of_ports_and_paths() {
    let container = |name: &str, ports: Value| json!({"name": name, "image": "i", "ports": ports});
    let object = pod(&json!({
        "volumes": [
            {"name": "m", "configMap": {"name": "cm", "items": [{"key": "a", "path": "d"}, {"key": "b", "path": "d/e"}]}},
            {"name": "p", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}},
                {"secret": {"name": "s", "items": [{"key": "k", "path": "token"}]}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
        ],
        "dnsConfig": {"nameservers": ["FD00::1"]},
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [
                {"key": "beta.kubernetes.io/arch", "operator": "In", "values": ["a b"]}]}}]}},
        "containers": [
            container("a", json!([
                {"name": "web", "containerPort": 80, "hostIP": "10.0.0.1"},
                {"containerPort": 81, "hostPort": 81},
            ])),
            container("b", json!([
                {"name": "web", "containerPort": 80, "hostPort": 8080},
                {"containerPort": 81, "hostPort": 81, "hostIP": "10.0.0.1"},
            ])),
        ],
    }));
    assert_eq!(
        ROW.strategy.warnings(&object, None),
        [
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[0]: a b is invalid, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            "volume \"m\" (ConfigMap \"cm\"): overlapping paths: \"d/e\" with \"d\"",
            "volume \"p\" (Projected): overlapping paths: \"token\" (Secret \"s\") with \"token\" (ServiceAccountToken)",
            "spec.containers[0].ports[0]: hostIP set without hostPort: {Name:web HostPort:0 ContainerPort:80 Protocol:TCP HostIP:10.0.0.1}",
            "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[1]: dangerously ambiguous port definition with spec.containers[0].ports[1]",
            "spec.containers[1].ports[0]: duplicate port name \"web\" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]",
            "spec.dnsConfig.nameservers[0]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
        ]
    );
    assert_eq!(ROW.strategy.warnings(&object, Some(&object)), Vec::<String>::new());
}
