//! Patches. An input is an object, a zero byte, and a patch.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::resource::GroupVersionKind;
use skep_machinery::apply::{Types, Writer, apply_patch};
use skep_machinery::codec::{self, FieldValidation, Format};
use skep_machinery::patch;
use skep_machinery::schema::Schema;

use crate::{Target, two};

const DEPTH: usize = 60;

fn pair(bytes: &[u8]) -> Option<(Value, Value)> {
    let (object, change) = two(bytes);
    let object: Value = serde_json::from_slice(object).ok()?;
    let change: Value = serde_json::from_slice(change).ok()?;
    (object.is_object() && depth(&object) < DEPTH && depth(&change) < DEPTH).then_some((object, change))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// RFC 6902.
pub(crate) const JSON_PATCH: Target = Target {
    name: "json-patch",
    about: "JSON patches (RFC 6902)",
    run: json_patch,
    seeds: &[
        b"{\"a\":[1,2],\"b\":{\"c\":1}}\0[{\"op\":\"add\",\"path\":\"/a/-\",\"value\":3},{\"op\":\"test\",\"path\":\"/b/c\",\"value\":1}]",
        b"{\"a\":{\"x~y\":1}}\0[{\"op\":\"move\",\"from\":\"/a/x~0y\",\"path\":\"/b\"},{\"op\":\"remove\",\"path\":\"/a\"}]",
        b"{\"a\":1}\0[{\"op\":\"copy\",\"from\":\"\",\"path\":\"/a\"},{\"op\":\"replace\",\"path\":\"\",\"value\":{}}]",
    ],
};

fn json_patch(bytes: &[u8]) {
    let (object, change) = two(bytes);
    if let Ok(object) = serde_json::from_slice::<Value>(object) {
        let outcome = patch::json_patch(&object, change);
        drop(outcome);
    }
}

/// RFC 7396: applying twice is applying once.
pub(crate) const MERGE: Target = Target {
    name: "merge-patch",
    about: "merge patches (RFC 7396)",
    run: merge,
    seeds: &[
        b"{\"a\":{\"b\":1,\"c\":2},\"d\":[1]}\0{\"a\":{\"b\":null,\"e\":{\"f\":null}},\"d\":[2]}",
        b"{\"a\":[1]}\0{\"a\":{\"b\":{\"c\":null}}}",
    ],
};

fn merge(bytes: &[u8]) {
    let Some((object, change)) = pair(bytes) else { return };
    let once = patch::merge_patch(&object, &change);
    assert_eq!(patch::merge_patch(&once, &change), once);
}

const POD: &str = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\",\"ports\":[{\"containerPort\":80,\"protocol\":\"TCP\"}]}]}}";

/// Strategic merge on a pod.
pub(crate) const STRATEGIC: Target = Target {
    name: "strategic-merge",
    about: "strategic merge patches of a pod",
    run: strategic,
    seeds: &[
        b"{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}\0{\"spec\":{\"$setElementOrder/containers\":[{\"name\":\"d\"},{\"name\":\"c\"}],\"containers\":[{\"name\":\"d\",\"image\":\"j\"}]}}",
        b"{\"spec\":{\"containers\":[{\"name\":\"c\",\"env\":[{\"name\":\"A\"}]}]}}\0{\"spec\":{\"containers\":[{\"name\":\"c\",\"env\":[{\"name\":\"A\",\"$patch\":\"delete\"}]}]}}",
        b"{\"metadata\":{\"finalizers\":[\"a\",\"b\"]}}\0{\"metadata\":{\"$deleteFromPrimitiveList/finalizers\":[\"a\"]},\"spec\":{\"$patch\":\"replace\",\"volumes\":[{\"name\":\"v\",\"$retainKeys\":[\"name\"]}]}}",
    ],
};

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Pod")
}

fn strategic(bytes: &[u8]) {
    let (Some((object, change)), Some(message)) = (pair(bytes), Schema::of(&kind())) else { return };
    let outcome = patch::strategic_merge(&object, &change, message);
    drop(outcome);
}

/// Server-side apply on a pod: applying twice changes nothing the second time.
pub(crate) const APPLY: Target = Target {
    name: "apply",
    about: "server-side apply of a pod, after another manager's",
    run: apply,
    seeds: &[
        b"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\",\"labels\":{\"x\":\"1\"}}}\0{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\",\"labels\":{\"y\":\"2\"}}}",
        b"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\",\"ports\":[{\"containerPort\":80,\"protocol\":\"TCP\"}]}]}}\0{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"},\"spec\":{\"containers\":[{\"name\":\"d\"},{\"name\":\"c\",\"image\":\"k\"}]}}",
        b"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\",\"managedFields\":[{\"manager\":\"m\",\"operation\":\"Apply\",\"apiVersion\":\"v1\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{\"f:metadata\":{\"f:labels\":{\"f:x\":{}}}}}]}}\0{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"}}",
    ],
};

fn apply(bytes: &[u8]) {
    let Some((live, config)) = pair(bytes) else { return };
    let (gvk, now) = (kind(), Timestamp::UNIX_EPOCH);
    // A live object has been decoded once; a configuration comes as it is sent.
    let Ok(live) = codec::check(&gvk, &live, FieldValidation::Ignore) else { return };
    let sent = serde_json::to_vec(&config).unwrap_or_else(|_| POD.into());
    let Ok(config) = codec::decode_as(Format::Json, &sent, Some(&gvk), FieldValidation::Ignore) else {
        return;
    };
    let writer = Writer {
        manager: "fuzz",
        subresource: "",
        gvk: &gvk,
        types: Types::of(&gvk),
        versions: None,
        ignored: None,
        now,
    };
    for force in [false, true] {
        let Ok(once) = apply_patch(Some(&live.object), &config.object, &writer, force) else { continue };
        let twice =
            apply_patch(Some(&once.object), &config.object, &writer, force).expect("no conflict with itself");
        assert_eq!(twice.object, once.object, "apply twice: {}", config.object);
    }
}
