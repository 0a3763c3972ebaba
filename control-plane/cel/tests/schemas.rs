//! Objects seen through structural schemas.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use skep_cel::{Budget, Env, Schema, SchemaOptions, Type, Value, Variables};

use crate::support::show;

fn structural() -> Json {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "ratio": {"type": "number"},
            "port": {"x-kubernetes-int-or-string": true},
            "at": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
            "span": {"type": "string", "format": "duration"}, "data": {"type": "string", "format": "byte"},
            "namespace": {"type": "string"}, "a-b": {"type": "string"},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "maybe": {"type": "string", "nullable": true},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true},
        }},
    }})
}

fn run(text: &str) -> String {
    let options = SchemaOptions { resource: true, ..SchemaOptions::default() };
    let schema = Arc::new(Schema::from_structural(&structural(), "self", options).unwrap());
    let env = Env::new()
        .with_schema("self", Arc::clone(&schema))
        .with_schema("oldSelf", Arc::clone(&schema))
        .with_variable("maybeOld", Type::optional(schema.kind().clone()));
    let program = match env.compile(text) {
        Ok(program) => program,
        Err(errors) => return errors.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    let object = json!({"metadata": {"name": "n", "labels": {"a": "b"}}, "kind": "K", "spec": {
        "replicas": 3, "ratio": 2, "port": "http", "at": "2024-01-01T00:00:00Z", "day": "2024-01-02",
        "span": "1h", "data": "aGk=", "namespace": "ns", "a-b": "c", "set": ["a", "b"],
        "ports": [{"name": "x", "n": 1}, {"name": "y", "n": 2}], "labels": {"k-1": "v"}, "maybe": null,
        "embedded": {"kind": "E", "other": 1},
    }});
    let old = json!({"spec": {"replicas": 1, "set": ["b", "a"], "port": 80,
        "ports": [{"name": "y", "n": 2}, {"name": "x", "n": 1}]}});
    let variables = Variables::new()
        .with("self", Value::from_json(&object, Some(&schema)))
        .with("oldSelf", Value::from_json(&old, Some(&schema)))
        .with("maybeOld", Value::Optional(None));
    show(program.eval(&variables, &mut Budget::new(10_000_000)))
}

#[test]
fn fields_have_the_types_of_the_schema() {
    for (text, want) in [
        ("self.spec.replicas > oldSelf.spec.replicas", "true"),
        ("self.spec.ratio > 1.5 && self.spec.ratio / 4.0 == 0.5", "true"),
        ("type(self.spec.port) == string && type(oldSelf.spec.port) == int", "true"),
        ("self.spec.at.getFullYear() + self.spec.day.getDate()", "2026"),
        ("self.spec.span == duration('60m') && self.spec.data == b'hi'", "true"),
        ("self.spec.__namespace__ + self.spec.a__dash__b", "\"nsc\""),
        ("self.spec.namespace", "ERROR: <input>:1:10: undefined field 'namespace'"),
        ("self.spec.nope", "ERROR: <input>:1:10: undefined field 'nope'"),
        ("self.spec.labels['k-1'] + self.spec.labels.?z.orValue('')", "\"v\""),
        ("self.metadata.name + self.kind", "\"nK\""),
        ("self.metadata.labels", "ERROR: <input>:1:14: undefined field 'labels'"),
        ("has(self.metadata.generateName)", "false"),
        (
            "has(self.spec.maybe) && self.spec.maybe == null",
            "ERROR: <input>:1:41: found no matching overload for '_==_' applied to '(string, null)'",
        ),
        ("has(self.spec.maybe)", "true"),
        ("self.spec.embedded.kind", "\"E\""),
        ("self.spec.embedded.other", "ERROR: <input>:1:19: undefined field 'other'"),
        (
            "self.spec.replicas == 'a'",
            "ERROR: <input>:1:20: found no matching overload for '_==_' applied to '(int, string)'",
        ),
        ("maybeOld.hasValue() ? maybeOld.value().spec.replicas : 0", "0"),
        ("maybeOld.?spec.?replicas.orValue(7)", "7"),
        ("self.spec.ports.map(p, p.n).sum()", "3"),
        ("oldSelf.spec.at", "ERROR no such key: at"),
    ] {
        assert_eq!(run(text), want, "{text}");
    }
}

#[test]
fn lists_compare_and_add_by_their_type() {
    for (text, want) in [
        ("self.spec.set == oldSelf.spec.set", "true"),
        ("self.spec.ports == oldSelf.spec.ports", "true"),
        ("self.spec.set + ['b', 'c']", r#"["a","b","c"]"#),
        ("(self.spec.set + ['c']) == ['c', 'b', 'a']", "true"),
        ("(self.spec.ports + oldSelf.spec.ports).size()", "2"),
        ("self.spec.ports + [oldSelf.spec.ports[0]]", r#"[{"n":1,"name":"x"},{"n":2,"name":"y"}]"#),
    ] {
        assert_eq!(run(text), want, "{text}");
    }
}

#[test]
fn a_program_knows_its_variables() {
    let env = Env::new().with_variable("self", Type::Dyn).with_variable("oldSelf", Type::Dyn);
    assert!(env.compile("self.a == oldSelf.a").unwrap().uses("oldSelf"));
    assert!(!env.compile("self.a.all(oldSelf, oldSelf > 1)").unwrap().uses("oldSelf"));
}

#[test]
fn claims_are_named_by_identifiers_at_every_depth() {
    let schema = Schema::claims();
    let env = Env::new().with_variable("claims", schema.kind().clone());
    let json = json!({"kubernetes.io": {"pods": [{"a-b": 1}], "n": 5}, "a__b": 1, "sub": "x"});
    for (text, want) in [
        ("claims.kubernetes__dot__io.pods[0].a__dash__b", "1.0"),
        ("claims['kubernetes.io']['pods'][0]['a-b']", "1.0"),
        ("has(claims.kubernetes__dot__io.n) && !has(claims.nope)", "true"),
        ("string(int(claims.kubernetes__dot__io.n))", "\"5\""),
        ("claims[?'no.such'].orValue('none')", "\"none\""),
        ("claims.all(key, key != '')", "true"),
        ("claims.a__b", "1.0"),
        ("claims.nope", "ERROR no such key: nope"),
    ] {
        let program = env.compile(text).unwrap();
        let variables = Variables::new().with("claims", Value::from_json(&json, Some(&schema)));
        assert_eq!(show(program.eval(&variables, &mut Budget::new(1000))), want, "{text}");
    }
    let program = env.compile("claims.?email.orValue('') == '' || has(claims.email_verified)").unwrap();
    assert!(program.selects("claims", "email") && program.selects("claims", "email_verified"));
    assert!(!program.selects("claims", "sub") && !program.selects("user", "email"));
}
