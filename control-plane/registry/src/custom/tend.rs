//! What definitions go through: names are accepted, the resource is established, and when a definition
//! is to go its objects go first.
//!
//! One task a server. Servers that share a store do the same things; whoever is second meets a conflict
//! and looks again.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::field::Path;
use skep_api::object::ObjectExt;
use skep_api::user::UserInfo;

use super::definition::is_true;
use super::names::{self, CLEANUP, Condition};
use super::structural;
use super::table::definitions;
use crate::cache::{Filter, Object, WatchOptions};
use crate::store::{DeleteOptions, Registry, Resource, Target, WriteOptions, now};

/// How often a definition whose objects are going is looked at, and what failed tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Objects deleted before other definitions get their turn.
const SOME: usize = 500;

/// Deletions at the same time.
const AT_ONCE: usize = 16;

/// Tends all definitions.
pub(crate) async fn tend(registry: Arc<Registry>) {
    loop {
        let Ok(source) = registry.resource(&definitions()) else { return };
        let Ok(mut watch) = source.cache().watch(&WatchOptions::default()) else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        loop {
            let done = step(&registry, &source.cache().snapshot(&Filter::default())).await;
            let next = watch.next();
            let more = if done {
                next.await.is_some()
            } else {
                // Cancel safe: an item is taken and returned in one step.
                tokio::time::timeout(AGAIN, next).await.map_or(true, |item| item.is_some())
            };
            if !more {
                break;
            }
            while watch.try_next().is_some() {}
        }
    }
}

/// Looks at all definitions. `false`: something is left to be done without being told.
async fn step(registry: &Registry, definitions: &[Arc<Object>]) -> bool {
    let mut done = true;
    // The oldest first: of two that want a name the older one gets it.
    let mut ordered: Vec<&Arc<Object>> = definitions.iter().collect();
    ordered.sort_by_key(|object| {
        (object.value.creation_timestamp().unwrap_or_default().to_owned(), &object.name)
    });
    let mut current: Vec<Arc<Value>> = ordered.iter().map(|object| object.value.clone()).collect();
    for at in 0..current.len() {
        let before = current[at].clone();
        let outcome = if before.deletion_timestamp().is_some() && before.finalizers().contains(&CLEANUP) {
            clear(registry, &before).await
        } else {
            let named = named(&before, &current);
            advance(registry, &before, named).await
        };
        match outcome {
            Ok(Step::Nothing) => {}
            Ok(Step::Written(new)) => current[at] = Arc::new(new),
            Ok(Step::Wait) => done = false,
            // Changed or gone meanwhile: that is told.
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            Err(error) => {
                tracing::warn!(%error, name = before.name(), "a definition could not be tended");
                done = false;
            }
        }
    }
    done
}

enum Step {
    Nothing,
    Written(Value),
    Wait,
}

fn options() -> WriteOptions {
    WriteOptions {
        user: UserInfo::new("system:apiserver", ["system:masters"]),
        field_manager: "kube-apiserver".to_owned(),
        ..WriteOptions::default()
    }
}

async fn write(registry: &Registry, definition: Value) -> Result<Value, ApiError> {
    let target = Target::new(definitions(), "", definition.name()).below("status");
    Ok(registry.update(&target, definition, &options()).await?.object)
}

/// The definition with the names it gets.
fn named(definition: &Value, all: &[Arc<Value>]) -> Value {
    let all: Vec<&Value> = all.iter().map(|object| &**object).collect();
    names::accept(definition, &all, &now()).unwrap_or_else(|| definition.clone())
}

/// Other conditions, and when the names are accepted and the table has the resource: established.
async fn advance(registry: &Registry, definition: &Value, mut new: Value) -> Result<Step, ApiError> {
    let now = now();
    if let Some(condition) = names::approval_condition(&new) {
        set(&mut new, &condition, &now);
    }
    match non_structural(&new) {
        Some(condition) => set(&mut new, &condition, &now),
        None => {
            let stale =
                new.items(&["status", "conditions"]).iter().any(|c| c.text(&["type"]) == NON_STRUCTURAL);
            if stale {
                names::remove_condition(&mut new, NON_STRUCTURAL);
            }
        }
    }
    if new != *definition {
        return write(registry, new).await.map(Step::Written);
    }
    if is_true(&new, "NamesAccepted") && !is_true(&new, "Established") {
        // It must be served before it is told to be.
        registry.definitions_settled().await?;
        let condition = Condition::new(
            "Established",
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        );
        set(&mut new, &condition, &now);
        return write(registry, new).await.map(Step::Written);
    }
    Ok(Step::Nothing)
}

const NON_STRUCTURAL: &str = "NonStructuralSchema";

/// Sets a condition unless it says so already.
fn set(definition: &mut Value, condition: &Condition, now: &str) {
    let same = definition.items(&["status", "conditions"]).iter().any(|old| {
        old.text(&["type"]) == condition.kind
            && old.text(&["status"]) == condition.status
            && old.text(&["reason"]) == condition.reason
            && old.text(&["message"]) == condition.message
    });
    if !same {
        names::set_condition(definition, condition, now);
    }
}

/// Schemas stored before there were rules may break them.
fn non_structural(definition: &Value) -> Option<Condition> {
    let mut lines = Vec::new();
    for (index, version) in definition.items(&["spec", "versions"]).iter().enumerate() {
        let Some(schema) = version.at(&["schema", "openAPIV3Schema"]) else { continue };
        let path = Path::new("spec").child("versions").index(index).child("schema").child("openAPIV3Schema");
        lines.extend(structural::validate(schema, &path).lines());
    }
    match lines.as_slice() {
        [] => None,
        [one] => Some(Condition::new(NON_STRUCTURAL, "True", "Violations", one.clone())),
        more => Some(Condition::new(NON_STRUCTURAL, "True", "Violations", format!("[{}]", more.join(", ")))),
    }
}

/// Deletes what the definition's resource holds; when nothing is left, lets the definition go.
async fn clear(registry: &Registry, definition: &Value) -> Result<Step, ApiError> {
    let now = now();
    let mut new = definition.clone();
    let condition = if is_true(definition, "Established") {
        let progress = "CustomResource deletion is in progress";
        let under_way = Condition::new("Terminating", "True", "InstanceDeletionInProgress", progress);
        set(&mut new, &under_way, &now);
        if new != *definition {
            return write(registry, new).await.map(|_| Step::Wait);
        }
        // Nothing may be created any more before the last look.
        registry.consistent().await?;
        registry.definitions_settled().await?;
        let Some(resource) = registry.table().stored(definition.name(), definition.uid()).cloned() else {
            return Ok(Step::Wait);
        };
        let objects = resource.cache().snapshot(&Filter::default());
        if !objects.is_empty() {
            if let Err(error) = delete_some(registry, &resource, &objects).await {
                let message = format!("could not issue all deletes: {error}");
                set(
                    &mut new,
                    &Condition::new("Terminating", "True", "InstanceDeletionFailed", message),
                    &now,
                );
                if new != *definition {
                    write(registry, new).await?;
                }
            }
            return Ok(Step::Wait);
        }
        Condition::new("Terminating", "False", "InstanceDeletionCompleted", "removed all instances")
    } else {
        Condition::new("Terminating", "False", "NeverEstablished", "resource was never established")
    };
    set(&mut new, &condition, &now);
    let kept: Vec<String> =
        new.finalizers().into_iter().filter(|name| *name != CLEANUP).map(str::to_owned).collect();
    new.set(&["metadata", "finalizers"], kept);
    let target = Target::new(definitions(), "", definition.name());
    registry.finish_definition(&target, new, &options()).await?;
    Ok(Step::Nothing)
}

/// Deletes some of the objects that are not going yet.
async fn delete_some(
    registry: &Registry,
    resource: &Arc<Resource>,
    objects: &[Arc<Object>],
) -> Result<(), ApiError> {
    let mut left: Vec<Arc<Object>> = objects
        .iter()
        .filter(|object| object.value.deletion_timestamp().is_none())
        .take(SOME)
        .cloned()
        .collect();
    let mut running = FuturesUnordered::new();
    let mut outcome = Ok(());
    loop {
        while running.len() < AT_ONCE
            && let Some(object) = left.pop()
        {
            running.push(delete(registry, resource, object));
        }
        match running.next().await {
            Some(Err(error)) => outcome = Err(error),
            Some(Ok(())) => {}
            None => return outcome,
        }
    }
}

async fn delete(registry: &Registry, resource: &Resource, object: Arc<Object>) -> Result<(), ApiError> {
    let target = Target::new(resource.gvr().clone(), &*object.namespace, &*object.name);
    match registry.delete_from(resource, &target, &DeleteOptions::default(), &options()).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
