//! What clients send, and what hostile ones send.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn gvk(group: &str, version: &str, kind: &str) -> GroupVersionKind {
    GroupVersionKind::new(group, version, kind)
}

fn strict(body: &str) -> String {
    decode("application/json", body.as_bytes(), None, FieldValidation::Strict)
        .map_or_else(|e| e.to_string(), |d| d.object.to_string())
}

#[test]
fn strict_errors_come_in_document_order() {
    let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","labels":{"a":"b","a":"c"}},
        "spec":{"unknownField":"foo","replicas":2,"replicas":3,
        "template":{"spec":{"containers":[{"name":"x","image":"y","foo":1}]}}}}"#;
    let got = strict(body);
    assert_eq!(
        got,
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: duplicate field \
         \"metadata.labels.a\", unknown field \"spec.unknownField\", duplicate field \"spec.replicas\", unknown field \
         \"spec.template.spec.containers[0].foo\""
    );
    let warned =
        decode("application/json", body.as_bytes(), None, FieldValidation::Warn).expect("only warns");
    assert_eq!(warned.warnings.len(), 4);
    assert_eq!(warned.object["spec"]["replicas"], 3);
    assert!(warned.object["spec"].get("unknownField").is_none());
}

#[test]
fn type_errors_read_like_gos() {
    let got = strict(r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":"three"}}"#);
    assert!(
        got.ends_with(
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        ),
        "{got}"
    );
    let got = strict(r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":{"a":1}}}"#);
    assert!(
        got.ends_with(
            "cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"
        ),
        "{got}"
    );
    let got = strict(r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":1}}}"#);
    assert!(
        got.ends_with(
            "cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
        ),
        "{got}"
    );
    let got = strict(r#"{"apiVersion":"v1","kind":"Pod","spec":{"priority":3000000000}}"#);
    assert!(got.ends_with(
        "cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32"
    ));
}

#[test]
fn yaml_duplicates_name_their_line() {
    let body =
        b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  foo: a\n  bar: b\n  foo: c\n";
    let got =
        decode("application/yaml", body, None, FieldValidation::Strict).expect_err("duplicate").to_string();
    assert!(got.contains("line 8: key \"foo\" already set in map"), "{got}");
    let got = decode("application/yaml", body, None, FieldValidation::Ignore).expect("lenient");
    assert_eq!(got.object["data"]["foo"], "c");
}

#[test]
fn empty_is_left_out_as_go_does() {
    let body = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "creationTimestamp": null, "namespace": "", "labels": {}, "generation": 0},
        "spec": {"containers": [{"name": "c", "ports": [], "resources": {"limits": {"cpu": 1, "memory": 0.5}}}],
            "terminationGracePeriodSeconds": 0, "hostNetwork": false}});
    let got = decode("", body.to_string().as_bytes(), Some(&gvk("", "v1", "Pod")), FieldValidation::Strict)
        .expect("pod");
    assert_eq!(
        got.object,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "0.5"}}}],
                "terminationGracePeriodSeconds": 0}})
    );
}

#[test]
fn kinds_must_match() {
    let pod = gvk("", "v1", "Pod");
    let fail = |body: &str| {
        decode("", body.as_bytes(), Some(&pod), FieldValidation::Warn).expect_err("mismatch").to_string()
    };
    assert_eq!(
        fail(r#"{"apiVersion":"v2","kind":"Pod"}"#),
        "the API version in the data (v2) does not match the expected API version (v1)"
    );
    assert!(
        fail(r#"{"apiVersion":"v1","kind":"Node"}"#)
            .starts_with("Node in version \"v1\" cannot be handled as a Pod")
    );
    let options = decode(
        "",
        b"{\"propagationPolicy\":\"Background\"}",
        Some(&gvk("", "v1", "DeleteOptions")),
        FieldValidation::Strict,
    );
    assert_eq!(options.expect("options").object["propagationPolicy"], "Background");
    let other = br#"{"apiVersion":"policy/v1","kind":"DeleteOptions"}"#;
    assert!(decode("", other, Some(&gvk("", "v1", "DeleteOptions")), FieldValidation::Strict).is_ok());
}

#[test]
fn protobuf_round_trips() {
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "creationTimestamp": "2024-01-02T03:04:05Z", "labels": {"a": "b", "": "x"},
            "managedFields": [{"manager": "m", "operation": "Update", "time": "2024-01-02T03:04:05Z",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]},
        "spec": {"ports": [{"port": 80, "targetPort": "http", "nodePort": -5}, {"port": 81, "targetPort": 8080}]}});
    let kind = gvk("", "v1", "Service");
    let bytes = encode_protobuf(&kind, &service).expect("encodes");
    let back = decode("application/vnd.kubernetes.protobuf", &bytes, Some(&kind), FieldValidation::Strict)
        .expect("decodes");
    assert_eq!(back.object, service);
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": {"group": "x", "versions": [{"name": "v1", "served": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"a": {"type": "array", "items": {"type": "string", "default": {"x": [1]}}},
                "b": {"additionalProperties": true, "minimum": 1.5}, "c": {"additionalProperties": {"type": "string"}}}}}}]}});
    let kind = gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let bytes = encode_protobuf(&kind, &crd).expect("encodes");
    let back = decode("application/vnd.kubernetes.protobuf", &bytes, None, FieldValidation::Strict)
        .expect("decodes");
    assert_eq!(back.object, crd);
}

/// What `kubectl create deployment web --image=nginx --port=80` sends.
const DEPLOYMENT: &str = "6b3873000a150a07617070732f7631120a4465706c6f796d656e7412b8010a1f0a0377656212001a0022002a003200380042\
    005a0a0a0361707012037765621286010801120c0a0a0a0361707012037765621a6c0a1c0a0012001a0022002a0032003800\
    42005a0a0a036170701203776562124c122e0a056e67696e7812056e67696e782a00320a0a001000185022002a0042006a00\
    7200800100880100900100a201001a00320042004a0052005800600068008201008a01009a0100c2010022020a0028003800\
    1a0c0800100018002000280038001a002200";

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).filter_map(|digit| u8::try_from(digit).ok()).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte * 16 + digit)).collect()
}

#[test]
fn a_real_clients_protobuf() {
    let got =
        decode("application/vnd.kubernetes.protobuf", &from_hex(DEPLOYMENT), None, FieldValidation::Strict);
    assert_eq!(
        got.expect("decodes").object,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "strategy": {},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                    {"name": "nginx", "image": "nginx", "ports": [{"containerPort": 80}], "resources": {}}]}}},
            "status": {}})
    );
}

#[test]
fn lists_join_encoded_items() {
    let kind = gvk("", "v1", "ConfigMap");
    let one = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let item = encode_protobuf_message(&kind, &one).expect("encodes");
    let list = gvk("", "v1", "ConfigMapList");
    let bytes =
        encode_protobuf_list(&list, &json!({"resourceVersion": "7"}), [item.as_slice(), item.as_slice()])
            .expect("list");
    let back = decode("application/vnd.kubernetes.protobuf", &bytes, None, FieldValidation::Ignore)
        .expect("decodes")
        .object;
    assert_eq!(
        back,
        json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": [one, one]})
    );
}

#[test]
fn custom_kinds_pass_through_but_duplicates_are_seen() {
    let body = br#"{"apiVersion":"example.com/v1","kind":"Widget","spec":{"a":null,"b":1,"b":2}}"#;
    let got = decode("", body, None, FieldValidation::Warn).expect("widget");
    assert_eq!(got.warnings, ["duplicate field \"spec.b\""]);
    assert_eq!(got.object["spec"], json!({"a": null, "b": 2}));
    assert!(encode_protobuf(&got.gvk, &got.object).is_err());
    let body = br#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w","nope":1}}"#;
    let refused = decode("", body, None, FieldValidation::Strict).expect_err("unknown metadata").to_string();
    assert!(refused.ends_with("strict decoding error: unknown field \"metadata.nope\""), "{refused}");
    let body = br#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"labels":{"a":1}}}"#;
    assert!(decode("", body, None, FieldValidation::Ignore).is_err());
}

#[test]
fn patches_tell_their_duplicates() {
    let (value, warnings) =
        parse_patch(Format::Json, br#"{"a":1,"a":2}"#, FieldValidation::Warn).expect("warns");
    assert_eq!(
        (value, warnings.as_slice()),
        (json!({"a": 2}), ["duplicate field \"a\"".to_owned()].as_slice())
    );
    let strict =
        parse_patch(Format::Yaml, b"a: 1\nb: 2\na: 3\n", FieldValidation::Strict).expect_err("refused");
    assert!(strict.to_string().contains("line 3: key \"a\" already set in map"), "{strict}");
}

#[test]
fn aliases_may_not_blow_a_document_up() {
    let (many, refs) = ("x,".repeat(20_000), "*a,".repeat(20_000));
    let body = format!("apiVersion: x/v1\nkind: Y\na: &a [{many}]\nb: [{refs}]\n");
    for validation in [FieldValidation::Ignore, FieldValidation::Strict] {
        let refused = decode("application/yaml", body.as_bytes(), None, validation).expect_err("bomb");
        assert!(refused.to_string().contains("excessive aliasing"), "{refused}");
    }
    let body = b"apiVersion: x/v1\nkind: Y\na: &a [1]\nb: *a\n";
    let got = decode("application/yaml", body, None, FieldValidation::Strict).expect("an honest alias");
    assert_eq!(got.object["b"], json!([1]));
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let body = format!(
            "{{\"apiVersion\":\"x/v1\",\"kind\":\"Y\",\"a\":{}1{}}}",
            open.repeat(200_000),
            close.repeat(200_000)
        );
        assert!(decode("application/json", body.as_bytes(), None, FieldValidation::Ignore).is_err());
    }
    let body = format!("apiVersion: x/v1\nkind: Y\na: {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode("application/yaml", body.as_bytes(), None, FieldValidation::Ignore).is_err());
    // A JSON schema inside itself, a thousand times.
    let mut nested = Vec::new();
    for _ in 0..1000 {
        let mut outer = Vec::new();
        // properties/not: field number as the table has it.
        let not = crate::schema::schema_props().field("not").expect("not").number;
        wire::put_bytes(&mut outer, not, &nested);
        nested = outer;
    }
    assert_eq!(decode::message(crate::schema::schema_props(), &nested), Err(wire::WireError::Deep));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let pod = gvk("", "v1", "Pod");
        for format in [Format::Json, Format::Yaml, Format::Protobuf] {
            drop(decode_as(format, &bytes, Some(&pod), FieldValidation::Strict));
        }
        let sealed = seal_protobuf(&pod, &bytes);
        drop(decode_as(Format::Protobuf, &sealed, Some(&pod), FieldValidation::Strict));
        drop(decode_as(Format::Protobuf, &[envelope::MAGIC, bytes.as_slice()].concat(), None, FieldValidation::Strict));
    }

    #[test]
    fn damaged_protobuf_never_panics(damage in proptest::collection::vec((0usize..230, any::<u8>()), 1..6)) {
        let mut bytes = from_hex(DEPLOYMENT);
        for (at, byte) in damage {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        if let Ok(decoded) = decode_as(Format::Protobuf, &bytes, None, FieldValidation::Strict) {
            drop(check(&decoded.gvk, &decoded.object, FieldValidation::Strict));
            drop(encode_protobuf(&decoded.gvk, &decoded.object));
        }
    }
}
