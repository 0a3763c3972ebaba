//! Event: what happened to an object. Two groups show the same stored objects under different field names.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::namespaced;
use crate::strategy::check::{At, check, same};
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Storage, Strategy};

/// The row that stores.
pub(super) static CORE: KindRow =
    KindRow { short_names: &["ev"], ..namespaced("", "v1", "Event", "events", &Event { core: true }) };

/// The newer view of the same objects.
pub(super) static EVENTS: KindRow = KindRow {
    short_names: &["ev"],
    storage: Storage::Alias { group: "", version: "v1", plural: "events", from: from_core, to: to_core },
    ..namespaced("events.k8s.io", "v1", "Event", "events", &Event { core: false })
};

struct Event {
    core: bool,
}

/// Fields whose name differs: core, events.k8s.io.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(
    mut event: Value,
    api_version: &str,
    pairs: impl Iterator<Item = (&'static str, &'static str)>,
) -> Value {
    for (from, to) in pairs {
        if let Some(value) = event.unset(&[from]) {
            event.set(&[to], value);
        }
    }
    event.set(&["apiVersion"], api_version);
    event
}

fn from_core(event: Value) -> Value {
    rename(event, "events.k8s.io/v1", NAMES.into_iter())
}

fn to_core(event: Value) -> Value {
    rename(event, "v1", NAMES.into_iter().map(|(core, new)| (new, core)))
}

/// The name of a field in this view.
fn field(core: bool, name: &'static str) -> &'static str {
    if core { name } else { NAMES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new) }
}

/// A field by its name in core, told as upstream tells it: by that name in either view.
fn at<'a>(root: &At<'a>, core: bool, name: &'static str) -> At<'a> {
    root.child(field(core, name)).told_at(root.path().child(name))
}

const MISPLACED: &str = "does not match event.namespace";

/// What holds in either view: for those of old little, for those with an event time more.
fn validate(root: &At<'_>, core: bool) {
    let namespace = root.child("metadata").child("namespace");
    let object = at(root, core, "involvedObject");
    let involved = object.child("namespace");
    let misplaced = || involved.error(Error::invalid(involved.path(), involved.text(), MISPLACED));
    let namespace_fits = || {
        let path = root.path().child("namespace");
        for detail in names::dns1123_subdomain(namespace.text()) {
            root.error(Error::invalid(&path, namespace.text(), detail));
        }
    };
    if root.child("eventTime").is_empty() {
        let fits = match involved.text() {
            "" => ["", "default"].contains(&namespace.text()),
            text => text == namespace.text(),
        };
        if !fits {
            misplaced();
        }
        namespace_fits();
        return;
    }
    if involved.is_empty() && !["default", "kube-system"].contains(&namespace.text()) {
        misplaced();
    }
    let controller = root.child(field(core, "reportingComponent"));
    if controller.is_empty() {
        controller.required("");
    }
    controller.invalid_text(names::qualified_name(controller.text()));
    for name in ["reportingInstance", "action", "reason"] {
        let here = root.child(name);
        here.require();
        bounded(&here, 128);
    }
    bounded(&at(root, core, "message"), 1024);
    namespace_fits();
}

fn bounded(at: &At<'_>, max: usize) {
    if at.text().len() > max {
        at.error(Error::invalid(at.path(), "", format!("can have at most {max} characters")));
    }
}

/// What the newer view asks for beside that.
fn strict(root: &At<'_>) {
    series(root);
    if root.child("eventTime").is_empty() {
        root.child("eventTime").required("");
    }
    let kind = root.child("type");
    if !["Normal", "Warning"].contains(&kind.text()) {
        kind.error(Error::invalid(kind.path(), "", format!("has invalid value: {}", kind.text())));
    }
    for name in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let here = at(root, false, name);
        let set = match name {
            "count" => here.int().unwrap_or(0) != 0,
            "source" => ["component", "host"].iter().any(|part| !here.child(part).is_empty()),
            _ => !here.is_empty(),
        };
        if set {
            here.error(Error::invalid(here.path(), "", "needs to be unset"));
        }
    }
}

fn series(root: &At<'_>) {
    let series = root.child("series");
    if !series.is_set() {
        return;
    }
    let (count, last) = (series.child("count"), series.child("lastObservedTime"));
    if count.int().unwrap_or(0) < 2 {
        count.error(Error::invalid(count.path(), "", "should be at least 2"));
    }
    if last.is_empty() {
        last.required("");
    }
}

/// Fields that stay as they were when the newer view writes, in upstream's order.
const FROZEN: [&str; 12] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingInstance",
];

fn stays(root: &At<'_>, old: &Value) {
    let before = |name: &'static str| old.get(field(false, name)).unwrap_or(&Value::Null);
    if !same(root.child("series").value(), before("series")) {
        series(root);
    }
    for name in FROZEN {
        let here = at(root, false, name);
        // Some clients write times finer than they are kept.
        let truncated = |value: &Value| {
            value.as_str().and_then(|text| text.parse::<Timestamp>().ok()).map(Timestamp::as_microsecond)
        };
        if name == "eventTime" && truncated(here.value()) == truncated(before(name)) {
            continue;
        }
        here.immutable(before(name));
    }
    root.child("reportingController").immutable(before("reportingComponent"));
}

fn since(event: &Value, fields: &[&str], now: Timestamp) -> String {
    let found = fields.iter().map(|f| event.text(&f.split('.').collect::<Vec<_>>())).find(|t| !t.is_empty());
    printer::since(found.unwrap_or_default(), now)
}

impl Strategy for Event {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            validate(root, self.core);
            if !self.core {
                strict(root);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            validate(root, self.core);
            if !self.core {
                stays(root, old);
            }
        })
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::text("Last Seen"),
            printer::text("Type"),
            printer::text("Reason"),
            printer::text("Object"),
            printer::wide("Subobject"),
            printer::wide("Source"),
            printer::text("Message"),
            printer::wide("First Seen"),
            printer::wide("Count"),
            Column { priority: 1, ..printer::NAME },
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let event = if self.core { object.clone() } else { to_core(object.clone()) };
        let text = |path: &[&str]| event.text(path).to_owned();
        let kind = text(&["involvedObject", "kind"]).to_lowercase();
        let name = event.text(&["involvedObject", "name"]);
        let target = if name.is_empty() { kind } else { format!("{kind}/{name}") };
        let component = event.text(&["source", "component"]);
        let (who, instance) = if component.is_empty() {
            (event.text(&["reportingComponent"]), event.text(&["reportingInstance"]))
        } else {
            (component, event.text(&["source", "host"]))
        };
        let source = if instance.is_empty() { who.to_owned() } else { format!("{who}, {instance}") };
        let count =
            event.int(&["series", "count"]).or(event.int(&["count"])).filter(|c| *c != 0).unwrap_or(1);
        vec![
            since(&event, &["series.lastObservedTime", "lastTimestamp", "eventTime"], now).into(),
            or(event.text(&["type"]), "").into(),
            text(&["reason"]).into(),
            target.into(),
            text(&["involvedObject", "fieldPath"]).into(),
            source.into(),
            event.text(&["message"]).trim().into(),
            since(&event, &["firstTimestamp", "eventTime"], now).into(),
            count.into(),
            event.name().into(),
        ]
    }

    fn selectable(&self) -> &'static [&'static str] {
        if self.core {
            &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ]
        } else {
            &[
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reason",
                "reportingController",
                "type",
            ]
        }
    }

    fn selectable_value(&self, object: &Value, field: &str) -> String {
        if field == "source" {
            return or(object.text(&["source", "component"]), object.text(&["reportingComponent"]))
                .to_owned();
        }
        object.text(&field.split('.').collect::<Vec<_>>()).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_two_views_convert_both_ways() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "message": "m", "count": 2, "reason": "r",
            "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet"}});
        let new = from_core(core.clone());
        assert_eq!(new["regarding"]["name"], "p");
        assert_eq!(new["note"], "m");
        assert_eq!(new["apiVersion"], "events.k8s.io/v1");
        assert_eq!(to_core(new), core);
    }

    #[test]
    fn row() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let event = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": " m\n",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:30Z", "count": 3});
        assert_eq!(
            CORE.strategy.row(&event, now),
            [
                json!("30s"),
                json!("Normal"),
                json!("Pulled"),
                json!("pod/p"),
                json!("spec.containers{a}"),
                json!("kubelet, n1"),
                json!("m"),
                json!("60s"),
                json!(3),
                json!("e")
            ]
        );
    }

    #[test]
    fn the_namespace_of_the_object_is_that_of_the_event() {
        let event =
            json!({"metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"namespace": "x"}});
        assert_eq!(
            CORE.validate_create(&event).lines(),
            ["involvedObject.namespace: Invalid value: \"x\": does not match event.namespace"]
        );
    }
}
