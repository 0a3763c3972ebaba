//! Request bodies: JSON, YAML, protobuf.

use serde_json::Value;
use skep_machinery::codec::{self, FieldValidation, Format};

use crate::Target;

const POD: &[u8] = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"x":"y"}},
"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"100m"}},
"ports":[{"containerPort":80,"protocol":"TCP"}],"env":[{"name":"A","value":"B"}]}]}}"#;
const SERVICE: &[u8] = br#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},
"spec":{"selector":{"app":"w"},"ports":[{"port":80,"targetPort":"http"},{"port":81,"targetPort":8081}]}}"#;
const LEASE: &[u8] = br#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l"},
"spec":{"renewTime":"2026-01-02T03:04:05.678901Z","leaseDurationSeconds":40}}"#;
const SECRET: &[u8] =
    br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"t"},"data":{"k":"aGVsbG8="}}"#;

/// JSON bodies; what decodes is the same after a trip through protobuf.
pub(crate) const JSON: Target =
    Target { name: "json", about: "JSON request bodies", run: json, seeds: &[POD, SERVICE, LEASE, SECRET] };

fn json(bytes: &[u8]) {
    for validation in [FieldValidation::Ignore, FieldValidation::Warn, FieldValidation::Strict] {
        let Ok(decoded) = codec::decode_as(Format::Json, bytes, None, validation) else { continue };
        let Ok(sealed) = codec::encode_protobuf(&decoded.gvk, &decoded.object) else { continue };
        let again = codec::decode_as(Format::Protobuf, &sealed, None, FieldValidation::Ignore);
        let again = again.expect("what was encoded decodes");
        let once_more = codec::encode_protobuf(&again.gvk, &again.object).expect("encodes again");
        assert_eq!(sealed, once_more, "protobuf is stable: {} / {}", decoded.object, again.object);
    }
}

/// YAML bodies.
pub(crate) const YAML: Target = Target {
    name: "yaml",
    about: "YAML request bodies",
    run: yaml,
    seeds: &[
        POD,
        b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {b: \"c\"}}\ndata:\n  k: |\n    two\n    lines\n",
        b"a: &x [1, 2]\nb: *x\n<<: {c: d}\n? [complex]\n: !!str 5\n",
        b"kind: Deployment\napiVersion: apps/v1\nspec:\n  replicas: 3\n  template:\n    spec:\n      containers:\n      - name: c\n",
    ],
};

fn yaml(bytes: &[u8]) {
    for validation in [FieldValidation::Ignore, FieldValidation::Strict] {
        if let Ok(decoded) = codec::decode_as(Format::Yaml, bytes, None, validation) {
            let text = codec::encode_yaml(&decoded.object).expect("what was read can be written");
            let again =
                codec::decode_as(Format::Yaml, &text, None, FieldValidation::Ignore).expect("and read");
            assert_eq!(decoded.object, again.object);
        }
    }
    let untyped: Result<Value, _> = codec::parse_untyped(Format::Yaml, bytes);
    drop(untyped);
}

/// Protobuf bodies; the first seeds are made by our own encoder, as kubectl's are by Go's.
pub(crate) const PROTOBUF: Target = Target {
    name: "protobuf",
    about: "protobuf request bodies",
    run: protobuf,
    seeds: &[
        b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x15\x0a\x07\x0a\x01a\x12\0\x1a\0\x12\x0a\x0a\x01k\x12\x05value\x1a\0\x22\0",
        b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x12\x0a\x05\x0a\x01p\x12\0\x12\x09\x12\x07\x0a\x01c\x12\x02im\x1a\0\x22\0",
        b"k8s\0\x0a\x0b\x0a\x02v1\x12\x05Event\x12\x04\x0a\x02\x0a\0\x1a\0\x22\0",
    ],
};

fn protobuf(bytes: &[u8]) {
    let Ok(decoded) = codec::decode_as(Format::Protobuf, bytes, None, FieldValidation::Ignore) else {
        return;
    };
    let Ok(sealed) = codec::encode_protobuf(&decoded.gvk, &decoded.object) else { return };
    let again = codec::decode_as(Format::Protobuf, &sealed, None, FieldValidation::Ignore).expect("decodes");
    assert_eq!(decoded.object, again.object, "protobuf round trip");
}
