//! What happens to an object after it is decoded: defaults, validation, printing; of built-in and of custom
//! kinds.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::object::ObjectExt;
use skep_machinery::codec::{self, FieldValidation, Format};
use skep_registry::custom;
use skep_registry::kinds;
use skep_registry::strategy::Kind;

use crate::{Target, two};

/// Objects of built-in kinds. A second one after a zero byte is what was there before.
pub(crate) const KINDS: Target = Target {
    name: "kinds",
    about: "built-in kinds: defaults, validation, tables",
    run: kind,
    seeds: &[
        br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"livenessProbe":{"httpGet":{"port":"x"}}}],"volumes":[{"name":"v","projected":{"sources":[{"serviceAccountToken":{"path":"t"}}]}}]}}"#,
        br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","generation":1},"spec":{"replicas":-1,"selector":{"matchLabels":{"a":"b"}},"strategy":{"rollingUpdate":{"maxSurge":"30%"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[]}}}}"#,
        br#"{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"a"},"spec":{"schedule":"*/5 1-3,7 * JAN MON","timeZone":"Europe/Berlin","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never"}}}}}}"#,
        br#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"type":"NodePort","clusterIPs":["10.0.0.1","::1"],"ports":[{"port":80,"targetPort":"x","nodePort":1}],"loadBalancerSourceRanges":["1.2.3.4/40"]}}"#,
        br#"{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"i"},"spec":{"rules":[{"host":"*.a","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"s","port":{"number":1}}}}]}}]}}"#,
        br#"{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicy","metadata":{"name":"p"},"spec":{"matchConstraints":{"resourceRules":[{"operations":["*"],"apiGroups":[""],"apiVersions":["v1"],"resources":["pods"]}]},"variables":[{"name":"a","expression":"object.x"}],"validations":[{"expression":"variables.a > 1","messageExpression":"'x' + 'y'"}]}}"#,
        br#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.example.com"},"spec":{"group":"example.com","scope":"Cluster","names":{"plural":"things","kind":"Thing"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"a":{"type":"string","default":"x","pattern":"^(a|b)+$","x-kubernetes-validations":[{"rule":"self == 'x'"}]}}}},"additionalPrinterColumns":[{"name":"A","type":"string","jsonPath":".a[0]"}]}]}}"#,
        br#"{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},"spec":{"maxReplicas":3,"scaleTargetRef":{"kind":"D","name":"d"},"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}]}}"#,
        br#"{"apiVersion":"flowcontrol.apiserver.k8s.io/v1","kind":"PriorityLevelConfiguration","metadata":{"name":"l"},"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":1,"limitResponse":{"type":"Queue","queuing":{"queues":8,"handSize":4,"queueLengthLimit":5}}}}}"#,
    ],
};

fn decoded(bytes: &[u8]) -> Option<(Kind, Value)> {
    let decoded = codec::decode_as(Format::Json, bytes, None, FieldValidation::Ignore).ok()?;
    let gvk = decoded.object.gvk();
    let row = kinds::by_kind(&gvk.group, &gvk.version, &gvk.kind)?;
    Some((Kind::BuiltIn(row), decoded.object))
}

fn kind(bytes: &[u8]) {
    let (new, old) = two(bytes);
    let Some((kind, mut object)) = decoded(new) else { return };
    kind.default(&mut object);
    let once = object.clone();
    kind.default(&mut object);
    assert_eq!(object, once, "defaults are filled in once");
    kind.prepare_create(&mut object);
    drop(kind.validate_create(&object));
    drop(kind.warnings(&object, None));
    drop(kind.cells(&object, Timestamp::UNIX_EPOCH));
    let before = decoded(old).filter(|(other, _)| other.gvk() == kind.gvk()).map(|(_, old)| old);
    let before = before.unwrap_or(once);
    let mut after = object;
    kind.prepare_update(&mut after, &before);
    drop(kind.validate_update(&after, &before));
    if kind.has_status() {
        kind.prepare_status_update(&mut after, &before);
        drop(kind.validate_status_update(&after, &before));
    }
}

/// A schema, a zero byte, an object.
pub(crate) const CUSTOM: Target = Target {
    name: "custom",
    about: "custom resources by any schema",
    run: custom,
    seeds: &[
        b"{\"type\":\"object\",\"properties\":{\"spec\":{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":\"integer\",\"default\":1,\"minimum\":0},\"l\":{\"type\":\"array\",\"x-kubernetes-list-type\":\"map\",\"x-kubernetes-list-map-keys\":[\"k\"],\"items\":{\"type\":\"object\",\"required\":[\"k\"],\"properties\":{\"k\":{\"type\":\"string\"}}}}},\"x-kubernetes-validations\":[{\"rule\":\"self.a < 5 || self == oldSelf\"}]}}}\0{\"apiVersion\":\"example.com/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"t\",\"namespace\":\"n\"},\"spec\":{\"a\":null,\"l\":[{\"k\":\"x\"},{\"k\":\"x\"}],\"u\":1}}",
        b"{\"type\":\"object\",\"properties\":{\"p\":{\"x-kubernetes-int-or-string\":true},\"e\":{\"type\":\"object\",\"x-kubernetes-embedded-resource\":true,\"x-kubernetes-preserve-unknown-fields\":true},\"d\":{\"type\":\"string\",\"format\":\"date-time\",\"nullable\":true},\"m\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\",\"pattern\":\"^a+$\"}}}}\0{\"apiVersion\":\"example.com/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"t\"},\"p\":\"80\",\"e\":{\"apiVersion\":\"v1\",\"kind\":\"X\",\"metadata\":{}},\"d\":null,\"m\":{\"k\":\"aa\"}}",
    ],
};

fn custom(bytes: &[u8]) {
    let (schema, body) = two(bytes);
    if let Ok(schema) = serde_json::from_slice::<Value>(schema) {
        custom::fuzz(&schema, body);
    }
}

/// A path, a zero byte, a value.
pub(crate) const JSON_PATH: Target = Target {
    name: "json-path",
    about: "paths of printer columns and scales",
    run: json_path,
    seeds: &[
        b".spec.a[?(@.type==\"Ready\")].status\0{\"spec\":{\"a\":[{\"type\":\"Ready\",\"status\":1}]}}",
        b"$..a[-1:]['b','c'][*]\0{\"a\":[{\"b\":[1],\"c\":{\"d\":2}}]}",
        b".a[0:3:2]\0{\"a\":[1,2,3]}",
    ],
};

fn json_path(bytes: &[u8]) {
    let (path, value) = two(bytes);
    if let (Ok(path), Ok(value)) = (std::str::from_utf8(path), serde_json::from_slice::<Value>(value)) {
        custom::fuzz_path(path, &value);
    }
}
