//! The objects behind priority and fairness: the ones each cluster begins with are kept as this server
//! ships them, every change takes effect at once, and each schema is told whether its level exists.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_api::user::UserInfo;
use skep_flow_control::bootstrap::{self, AUTO_UPDATE};
use skep_flow_control::config::{Level, Schema};
use skep_flow_control::gate::Gate;
use skep_registry::cache::{Filter, Object, WatchOptions};
use skep_registry::strategy::check::same;
use skep_registry::{DeleteOptions, Patch, Registry, Target, WriteOptions};
use tokio_util::sync::CancellationToken;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const API: &str = "flowcontrol.apiserver.k8s.io/v1";

/// How often the objects are put right.
const KEEP: Duration = Duration::from_secs(60);

/// Pause before a broken watch is opened again.
const PAUSE: Duration = Duration::from_millis(200);

/// Tries of one repair when others write at the same time.
const TRIES: usize = 5;

fn target(plural: &str, name: &str) -> Target {
    Target::new(GroupVersionResource::new(GROUP, "v1", plural), "", name)
}

const LEVELS: &str = "prioritylevelconfigurations";
const SCHEMAS: &str = "flowschemas";

fn options(part: &str) -> WriteOptions {
    WriteOptions {
        user: UserInfo::new("system:apiserver", ["system:masters"]),
        field_manager: format!("api-priority-and-fairness-config-{part}-v1"),
        force: true,
        ..WriteOptions::default()
    }
}

/// Makes and repairs the objects every cluster begins with.
pub(crate) async fn ensure(registry: &Registry) -> Result<(), ApiError> {
    for (plural, kind, mandatory, suggested) in [
        (LEVELS, "level", bootstrap::mandatory_levels(), bootstrap::suggested_levels()),
        (SCHEMAS, "schema", bootstrap::mandatory_schemas(), bootstrap::suggested_schemas()),
    ] {
        for (objects, fixed) in [(&mandatory, true), (&suggested, false)] {
            for wanted in objects {
                if let Err(error) = ensure_one(registry, plural, wanted, fixed).await {
                    tracing::warn!(%error, name = wanted.name(), "a flow control {kind} is not as it should be");
                    return Err(error);
                }
            }
        }
        // What an older server shipped, and nobody has taken over.
        for object in registry.list_all(&target(plural, ""), &Filter::default()).await? {
            let known = mandatory.iter().chain(&suggested).any(|wanted| wanted.name() == object.name);
            if !known && object.value.annotation(AUTO_UPDATE) == Some("true") {
                let target = target(plural, &object.name);
                match registry.delete(&target, &DeleteOptions::default(), &options("producer")).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// Whether the server may set the spec of a suggested object: by the annotation, or while nobody has
/// ever changed the object.
fn ours(stored: &Value) -> bool {
    match stored.annotation(AUTO_UPDATE) {
        Some("true") => true,
        Some("false") => false,
        _ => stored.generation() == 1,
    }
}

async fn ensure_one(registry: &Registry, plural: &str, wanted: &Value, fixed: bool) -> Result<(), ApiError> {
    let target = target(plural, wanted.name());
    for _ in 0..TRIES {
        let stored = match registry.get(&target, None).await {
            Ok(stored) => stored,
            Err(error) if error.is_not_found() => {
                match registry.create(&target, wanted.clone(), &options("producer")).await {
                    // Another server was faster.
                    Err(error) if error.is_already_exists() => continue,
                    other => return other.map(drop),
                }
            }
            Err(error) => return Err(error),
        };
        let update = fixed || ours(&stored.value);
        let mut object = Value::clone(&stored.value);
        let annotation = if update { "true" } else { "false" };
        object.set_annotation(AUTO_UPDATE, annotation);
        if update {
            object.set(&["spec"], spec(wanted, &stored.value, fixed));
        }
        if same(&object, &stored.value) {
            return Ok(());
        }
        match registry.update(&target, object, &options("producer")).await {
            Err(error) if error.is_conflict() => {}
            other => return other.map(drop),
        }
    }
    Ok(())
}

/// The spec an object should have; the numbers of the exempt level are the administrator's.
fn spec(wanted: &Value, stored: &Value, fixed: bool) -> Value {
    let mut spec = wanted.get("spec").cloned().unwrap_or_default();
    if let Some(exempt) = stored.at(&["spec", "exempt"]).filter(|_| fixed) {
        spec["exempt"] = exempt.clone();
    }
    spec
}

/// Keeps the objects and follows them, until cancelled.
pub(crate) async fn run(registry: Arc<Registry>, gate: Arc<Gate>, cancel: CancellationToken) {
    let keep = async {
        loop {
            tokio::time::sleep(KEEP).await;
            if let Err(error) = ensure(&registry).await {
                tracing::warn!(%error, "flow control objects could not be looked after");
            }
        }
    };
    let follow = async {
        loop {
            if let Err(error) = follow(&registry, &gate).await {
                tracing::warn!(%error, "flow control objects can't be followed");
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = keep => {}
        () = follow => {}
        () = gate.run() => {}
        () = cancel.cancelled() => {}
    }
}

/// Follows until a watch ends. The watches begin before the objects are read, so nothing between is missed.
async fn follow(registry: &Registry, gate: &Gate) -> Result<(), ApiError> {
    let watch = WatchOptions { initial_events: Some(false), ..WatchOptions::default() };
    let mut levels = registry.watch(&target(LEVELS, ""), &watch).await?;
    let mut schemas = registry.watch(&target(SCHEMAS, ""), &watch).await?;
    loop {
        take_effect(registry, gate).await?;
        // Cancel safe: each takes its item in one step.
        let item = tokio::select! {
            item = levels.next() => item,
            item = schemas.next() => item,
        };
        if item.is_none() {
            return Ok(());
        }
        while levels.try_next().is_some() || schemas.try_next().is_some() {}
    }
}

/// Reads every object and configures the gate.
async fn take_effect(registry: &Registry, gate: &Gate) -> Result<(), ApiError> {
    let levels = registry.list_all(&target(LEVELS, ""), &Filter::default()).await?;
    let schemas = registry.list_all(&target(SCHEMAS, ""), &Filter::default()).await?;
    let read: Vec<Level> = levels.iter().filter_map(|object| Level::from_object(&object.value)).collect();
    let names: Vec<String> = read.iter().map(|level| level.name.clone()).collect();
    gate.configure(read, schemas.iter().filter_map(|object| Schema::from_object(&object.value)).collect());
    for schema in &schemas {
        if let Err(error) = tell(registry, schema, &names).await {
            tracing::warn!(%error, name = schema.name, "the status of a flow schema could not be written");
        }
    }
    Ok(())
}

/// Writes the `Dangling` condition of a schema where it is not true.
async fn tell(registry: &Registry, schema: &Object, levels: &[String]) -> Result<(), ApiError> {
    let level = schema.value.text(&["spec", "priorityLevelConfiguration", "name"]);
    let names = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if levels.iter().any(|name| name == level) {
        ("False", "Found", format!("{names} and it exists"))
    } else {
        ("True", "NotFound", format!("{names} but there is no such object"))
    };
    let conditions = schema.value.items(&["status", "conditions"]);
    let told = conditions.iter().find(|condition| condition.text(&["type"]) == "Dangling");
    let told = told.map(|c| (c.text(&["status"]), c.text(&["reason"]), c.text(&["message"])));
    if told == Some((status, reason, message.as_str())) {
        return Ok(());
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let patch = json!({
        "apiVersion": API,
        "kind": "FlowSchema",
        "metadata": {"name": schema.name},
        "status": {"conditions": [{
            "type": "Dangling",
            "status": status,
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }]},
    });
    let target = target(SCHEMAS, &schema.name).below("status");
    match registry.patch(&target, &Patch::Apply(patch), &options("consumer")).await {
        // Deleted meanwhile: there is nothing to tell.
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
