//! LimitRanger: fills in a namespace's default requests and limits, and keeps what is made within its
//! bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;
use skep_api::resource::GroupVersionResource;

use super::{core, forbidden, join};
use crate::{Attributes, Operation, Plugin, Reader};

const NOTE: &str = "kubernetes.io/limit-ranger";

/// The plug-in.
pub struct LimitRanger {
    reader: Arc<dyn Reader>,
}

impl LimitRanger {
    /// Reads limit ranges through `reader`.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }

    async fn ranges(&self, attributes: &Attributes) -> Result<Vec<Arc<Value>>, ApiError> {
        self.reader.list(&core("limitranges"), Some(&attributes.namespace)).await
    }
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        let claim = gvr.resource == "persistentvolumeclaims"
            && matches!(operation, Operation::Create | Operation::Update);
        let pod = gvr.resource == "pods" && operation == Operation::Create;
        gvr.group.is_empty() && subresource.is_empty() && (pod || claim)
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        for range in self.ranges(attributes).await? {
            if let Some(pod) = &mut attributes.object {
                fill_defaults(pod, &range);
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(object) = &attributes.object else { return Ok(()) };
        let mut complaints = Vec::new();
        for range in self.ranges(attributes).await? {
            for limit in range.items(&["spec", "limits"]) {
                match (attributes.gvr.resource.as_str(), limit.text(&["type"])) {
                    ("pods", "Container") => {
                        for (_, container) in containers(object) {
                            check(limit, "Container", &Amounts::of_container(container), &mut complaints);
                        }
                    }
                    ("pods", "Pod") => check(limit, "Pod", &Amounts::of_pod(object), &mut complaints),
                    ("persistentvolumeclaims", "PersistentVolumeClaim") => {
                        let requests = amounts(object, &["spec", "resources", "requests"]);
                        let claim = Amounts { limits: requests.clone(), requests };
                        check(limit, "PersistentVolumeClaim", &claim, &mut complaints);
                    }
                    _ => {}
                }
            }
        }
        if complaints.is_empty() { Ok(()) } else { Err(forbidden(attributes, join(&complaints))) }
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|list| pod.items(&["spec", list]).iter().map(move |container| (list, container)))
}

/// Puts the range's defaults where a container says nothing. A limit without a request is taken as the
/// request too, which is what defaulting does to pods elsewhere.
fn fill_defaults(pod: &mut Value, range: &Value) {
    let mut requests = Map::new();
    let mut limits = Map::new();
    for limit in range.items(&["spec", "limits"]).iter().filter(|l| l.text(&["type"]) == "Container") {
        requests.extend(limit.map(&["defaultRequest"]).cloned().unwrap_or_default());
        limits.extend(limit.map(&["default"]).cloned().unwrap_or_default());
    }
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for list in ["containers", "initContainers"] {
        let what = if list == "containers" { "container" } else { "init container" };
        let mut all = pod.items(&["spec", list]).to_vec();
        for container in &mut all {
            let given = container.map(&["resources", "limits"]).cloned().unwrap_or_default();
            let own = given.iter().filter(|(name, _)| !requests.contains_key(*name));
            let mut wanted: Map<String, Value> = own.map(|(k, v)| (k.clone(), v.clone())).collect();
            wanted.extend(requests.clone());
            // A container that names a limit but no request means its request to be that limit.
            for (name, value) in &given {
                wanted.insert(name.clone(), value.clone());
            }
            let set = merge(container, "requests", &wanted);
            note(&mut notes, &set, "request", what, container.name_of());
            let set = merge(container, "limits", &limits);
            note(&mut notes, &set, "limit", what, container.name_of());
        }
        if !all.is_empty() {
            pod.set(&["spec", list], all);
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        let text = pod.annotation(NOTE).map_or(text.clone(), |old| format!("{old}; {text}"));
        pod.set_annotation(NOTE, &text);
    }
}

trait NameOf {
    fn name_of(&self) -> &str;
}

impl NameOf for Value {
    fn name_of(&self) -> &str {
        self.text(&["name"])
    }
}

fn note(notes: &mut Vec<String>, set: &[String], field: &str, what: &str, name: &str) {
    if !set.is_empty() {
        notes.push(format!("{} {field} for {what} {name}", set.join(", ")));
    }
}

/// Sets what is absent; returns its names.
fn merge(container: &mut Value, field: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let mut current = container.map(&["resources", field]).cloned().unwrap_or_default();
    let mut set = Vec::new();
    for (name, value) in defaults {
        if !current.contains_key(name) {
            current.insert(name.clone(), value.clone());
            set.push(name.clone());
        }
    }
    if !set.is_empty() {
        container.set(&["resources", field], current);
    }
    set
}

/// Requests and limits to hold against a range.
#[derive(Default)]
struct Amounts {
    requests: BTreeMap<String, Quantity>,
    limits: BTreeMap<String, Quantity>,
}

impl Amounts {
    fn of_container(container: &Value) -> Self {
        Self {
            requests: amounts(container, &["resources", "requests"]),
            limits: amounts(container, &["resources", "limits"]),
        }
    }

    /// The sum of the containers, or the largest init container where that is more. A name counts as
    /// limited only if every container limits it.
    fn of_pod(pod: &Value) -> Self {
        let all = |list| pod.items(&["spec", list]).iter().map(Self::of_container).collect::<Vec<_>>();
        let (main, init) = (all("containers"), all("initContainers"));
        let combine = |pick: fn(&Self) -> &BTreeMap<String, Quantity>, everywhere: bool| {
            let mut out: BTreeMap<String, Quantity> = BTreeMap::new();
            for amounts in main.iter().map(pick) {
                for (name, quantity) in amounts {
                    let sum = out.get(name).map_or(*quantity, |sum| sum.plus(quantity));
                    out.insert(name.clone(), sum);
                }
            }
            if everywhere {
                out.retain(|name, _| main.iter().all(|amounts| pick(amounts).contains_key(name)));
            }
            for amounts in init.iter().map(pick) {
                for (name, quantity) in amounts {
                    let most = out.get(name).map_or(*quantity, |most| (*most).max(*quantity));
                    if !everywhere || out.contains_key(name) {
                        out.insert(name.clone(), most);
                    }
                }
            }
            out
        };
        Self { requests: combine(|a| &a.requests, false), limits: combine(|a| &a.limits, true) }
    }
}

fn amounts(object: &Value, path: &[&str]) -> BTreeMap<String, Quantity> {
    let entries = object.map(path).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}

fn check(limit: &Value, what: &str, have: &Amounts, complaints: &mut Vec<String>) {
    for (name, min) in amounts(limit, &["min"]) {
        match (have.requests.get(&name), have.limits.get(&name)) {
            (None, None) => {
                complaints
                    .push(format!("minimum {name} usage per {what} is {min}.  No request is specified"));
            }
            (Some(request), _) if *request < min => {
                complaints
                    .push(format!("minimum {name} usage per {what} is {min}, but request is {request}"));
            }
            (_, Some(limit)) if *limit < min => {
                complaints.push(format!("minimum {name} usage per {what} is {min}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    for (name, max) in amounts(limit, &["max"]) {
        match (have.requests.get(&name), have.limits.get(&name)) {
            (_, None) => {
                complaints.push(format!("maximum {name} usage per {what} is {max}.  No limit is specified"));
            }
            (_, Some(limit)) if *limit > max => {
                complaints.push(format!("maximum {name} usage per {what} is {max}, but limit is {limit}"));
            }
            (Some(request), _) if *request > max => {
                complaints
                    .push(format!("maximum {name} usage per {what} is {max}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, ratio) in amounts(limit, &["maxLimitRequestRatio"]) {
        let both = have.requests.get(&name).zip(have.limits.get(&name));
        let Some((request, limit)) = both.filter(|(request, _)| !request.is_zero()) else {
            complaints.push(format!(
                "{name} max limit to request ratio per {what} is {ratio}, but no request is specified or request is 0"
            ));
            continue;
        };
        let provided = limit.milli_value() as f64 / request.milli_value().max(1) as f64;
        if provided > ratio.milli_value() as f64 / 1000.0 {
            complaints.push(format!(
                "{name} max limit to request ratio per {what} is {ratio}, but provided ratio is {provided:.6}"
            ));
        }
    }
}
