//! The table reads, and says what the API says.

use super::{ListType, Schema, Type, schema_props};
use skep_api::resource::GroupVersionKind;

fn of(group: &str, version: &str, kind: &str) -> &'static super::Message {
    Schema::of(&GroupVersionKind::new(group, version, kind)).expect(kind)
}

#[test]
fn table_reads_and_every_reference_resolves() {
    assert!(Schema::get().messages().count() > 500);
    assert_eq!(schema_props().name, "JSONSchemaProps");
    assert_eq!(super::object_meta().name, "ObjectMeta");
    for message in Schema::get().messages() {
        let numbers: std::collections::HashSet<_> =
            message.fields.iter().filter(|field| field.number > 0).map(|field| field.number).collect();
        assert_eq!(
            numbers.len(),
            message.fields.iter().filter(|field| field.number > 0).count(),
            "{}",
            message.openapi_name()
        );
    }
}

#[test]
fn kinds_fields_and_inlining() {
    let pod = of("", "v1", "Pod");
    assert_eq!(pod.openapi_name(), "io.k8s.api.core.v1.Pod");
    let spec = pod.field("spec").and_then(super::Field::message).expect("spec");
    let containers = spec.field("containers").expect("containers");
    assert_eq!(containers.number, 2);
    assert!(containers.patch.merge && containers.required);
    assert_eq!(containers.list, ListType::Map(vec!["name"]));
    let volume = spec.field("volumes").and_then(super::Field::message).expect("volume");
    assert!(volume.field("emptyDir").is_some() && volume.field("volumeSource").is_none());
    assert_eq!(volume.numbered(2).expect("inline").json, "volumeSource");
    let secret = of("", "v1", "Secret");
    assert_eq!(secret.field("data").expect("data").ty, Type::Map(Box::new(Type::Bytes)));
}

#[test]
fn options_live_in_every_group() {
    assert_eq!(of("apps", "v1", "DeleteOptions").name, "DeleteOptions");
    assert_eq!(of("", "v1", "Status").name, "Status");
    assert!(Schema::of(&GroupVersionKind::new("example.com", "v1", "Widget")).is_none());
}
