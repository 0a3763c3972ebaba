//! ResourceQuota: a namespace holds no more than its quotas say.
//!
//! Usage is counted from what is stored when a request comes, so a quota holds at once and does not
//! wait for a controller to fill its status. Requests of one namespace that are counted at the same
//! moment may pass together; the quota's own status shows it and the next request is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;
use skep_api::resource::GroupVersionResource;

use super::{core, forbidden};
use crate::{Attributes, Operation, Plugin, Reader};

use skep_api::quota::{self, Usage, in_scope, usage};

/// The plug-in.
pub struct ResourceQuota {
    reader: Arc<dyn Reader>,
}

impl ResourceQuota {
    /// Reads quotas and what they count through `reader`.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }

    async fn used(&self, attributes: &Attributes, quota: &Value) -> Result<Usage, ApiError> {
        let mut used = Usage::new();
        for object in self.reader.list(&attributes.gvr, Some(&attributes.namespace)).await? {
            // The object itself counts with its new numbers.
            let same = !attributes.name.is_empty() && object.name() == attributes.name;
            if !same && in_scope(quota, &attributes.gvr, &object) {
                add(&mut used, &usage(&attributes.gvr, &object));
            }
        }
        Ok(used)
    }
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        // Events are many and limited by rate; counting them would cost more than they do.
        let events =
            gvr.resource == "events" || gvr.resource == "resourcequotas" && operation == Operation::Update;
        subresource.is_empty() && !events && matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(object) = &attributes.object else { return Ok(()) };
        if attributes.namespace.is_empty() {
            return Ok(());
        }
        let quotas = self.reader.list(&core("resourcequotas"), Some(&attributes.namespace)).await?;
        if quotas.is_empty() {
            return Ok(());
        }
        let wanted = usage(&attributes.gvr, object);
        let before =
            attributes.old_object.as_ref().map(|old| usage(&attributes.gvr, old)).unwrap_or_default();
        for quota in &quotas {
            if !in_scope(quota, &attributes.gvr, object) {
                continue;
            }
            let hard = hard(quota);
            let missing: Vec<&str> = if attributes.is("", "pods") && attributes.operation == Operation::Create
            {
                quota::unstated(object, hard.keys().map(String::as_str))
            } else {
                Vec::new()
            };
            if !missing.is_empty() {
                let why = format!("failed quota: {}: must specify {}", quota.name(), missing.join(","));
                return Err(forbidden(attributes, why));
            }
            // What does not grow can't exceed: a namespace over its quota may still be changed.
            let grows = |name: &String| wanted.get(name) > before.get(name);
            let concerned: Vec<&String> = hard.keys().filter(|name| grows(name)).collect();
            if concerned.is_empty() {
                continue;
            }
            let used = self.used(attributes, quota).await?;
            let zero = Quantity::default();
            let of = |from: &Usage, name: &String| *from.get(name).unwrap_or(&zero);
            let over: Vec<&String> = concerned
                .into_iter()
                .filter(|name| of(&used, name).plus(&of(&wanted, name)) > of(&hard, name))
                .collect();
            if !over.is_empty() {
                let show = |from: &Usage| {
                    over.iter().map(|name| format!("{name}={}", of(from, name))).collect::<Vec<_>>().join(",")
                };
                let why = format!(
                    "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                    quota.name(),
                    show(&wanted),
                    show(&used),
                    show(&hard)
                );
                return Err(forbidden(attributes, why));
            }
        }
        Ok(())
    }
}

fn hard(quota: &Value) -> Usage {
    let entries = quota.map(&["spec", "hard"]).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}

fn add(to: &mut BTreeMap<String, Quantity>, more: &Usage) {
    for (name, quantity) in more {
        let sum = to.get(name).map_or(*quantity, |sum| sum.plus(quantity));
        to.insert(name.clone(), sum);
    }
}
