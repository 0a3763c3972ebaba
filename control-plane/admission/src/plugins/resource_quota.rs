//! ResourceQuota: a namespace holds no more than its quotas say.
//!
//! The status of a quota is the account: a request is charged there, by compare-and-swap, before its
//! object is stored, so that requests at the same time, also at other servers, can't pass together. A
//! controller brings the account in line with what there is when objects go. What the account does not
//! know yet, because the quota is new, is counted here and entered. Requests of one namespace at one
//! server queue up, so that they do not race each other for the account.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;
use skep_api::quota::{self, Usage, in_scope, usage};
use skep_api::resource::GroupVersionResource;
use tokio::sync::Mutex;

use super::{core, forbidden};
use crate::{Attributes, Operation, Plugin, Reader};

/// How often a charge is tried when other servers charge the same quota.
const TRIES: usize = 16;

/// Namespaces queue in so many lines.
const LINES: usize = 64;

/// Where quotas are charged.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Stores a quota with a new status, if it still is at the resource version it has; tells whether
    /// it was.
    async fn charge(&self, quota: &Value) -> Result<bool, ApiError>;
}

/// The plug-in.
pub struct ResourceQuota {
    reader: Arc<dyn Reader>,
    ledger: Arc<dyn Ledger>,
    lines: Vec<Mutex<()>>,
    hasher: RandomState,
}

/// What a request would add to one quota.
struct Charge {
    quota: Arc<Value>,
    delta: Usage,
}

impl ResourceQuota {
    /// Reads quotas and what they count through `reader`, charges them through `ledger`.
    pub fn new(reader: Arc<dyn Reader>, ledger: Arc<dyn Ledger>) -> Self {
        let lines = (0..LINES).map(|_| Mutex::default()).collect();
        Self { reader, ledger, lines, hasher: RandomState::new() }
    }

    async fn quotas(&self, attributes: &Attributes) -> Result<Vec<Arc<Value>>, ApiError> {
        self.reader.list(&core("resourcequotas"), Some(&attributes.namespace)).await
    }

    /// What there is of the object's kind in the quota's scope, the object itself left out.
    async fn count(&self, attributes: &Attributes, quota: &Value) -> Result<Usage, ApiError> {
        let mut used = Usage::new();
        for object in self.reader.list(&attributes.gvr, Some(&attributes.namespace)).await? {
            if in_scope(quota, &attributes.gvr, &object) {
                add(&mut used, &usage(&attributes.gvr, &object));
            }
        }
        Ok(used)
    }

    /// The quota's account of these names: what its status says, and what is counted where it says
    /// nothing.
    async fn account(
        &self,
        attributes: &Attributes,
        quota: &Value,
        names: &BTreeSet<&String>,
    ) -> Result<Usage, ApiError> {
        let known = amounts(quota, &["status", "used"]);
        if names.iter().all(|name| known.contains_key(*name)) {
            return Ok(known);
        }
        let mut account = self.count(attributes, quota).await?;
        for name in names {
            account.entry((*name).clone()).or_default();
        }
        account.retain(|name, _| names.contains(name));
        account.extend(known);
        Ok(account)
    }

    /// Charges one quota; `false` when it changed meanwhile.
    async fn charge(&self, attributes: &Attributes, charge: &Charge) -> Result<bool, ApiError> {
        let Charge { quota, delta } = charge;
        let hard = amounts(quota, &["spec", "hard"]);
        let names: BTreeSet<&String> = delta.keys().collect();
        let mut account = self.account(attributes, quota, &names).await?;
        let of = |from: &Usage, name: &String| from.get(name).copied().unwrap_or_default();
        let over: Vec<&String> = delta
            .iter()
            .filter(|(name, more)| of(&account, name).plus(more) > of(&hard, name))
            .map(|(name, _)| name)
            .collect();
        if !over.is_empty() {
            let show = |from: &Usage| {
                over.iter().map(|name| format!("{name}={}", of(from, name))).collect::<Vec<_>>().join(",")
            };
            let why = format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.name(),
                show(delta),
                show(&account),
                show(&hard)
            );
            return Err(forbidden(attributes, why));
        }
        if attributes.dry_run {
            return Ok(true);
        }
        add(&mut account, delta);
        let mut charged = Value::clone(quota);
        charged.set(&["status", "hard"], quota.at(&["spec", "hard"]).cloned().unwrap_or_else(|| json!({})));
        let used: Map<String, Value> = account
            .into_iter()
            .filter(|(name, _)| hard.contains_key(name))
            .map(|(name, amount)| (name, json!(amount.to_string())))
            .collect();
        charged.set(&["status", "used"], used);
        self.ledger.charge(&charged).await
    }

    /// What the request adds to each quota it concerns.
    fn charges(
        attributes: &Attributes,
        object: &Value,
        quotas: &[Arc<Value>],
    ) -> Result<Vec<Charge>, ApiError> {
        let gvr = &attributes.gvr;
        let wanted = usage(gvr, object);
        if let Some((name, _)) = wanted.iter().find(|(_, amount)| amount.sign() < 0) {
            return Err(forbidden(attributes, format!("quota usage is negative for resource(s): {name}")));
        }
        let mut charges = Vec::new();
        for quota in quotas.iter().filter(|quota| in_scope(quota, gvr, object)) {
            let hard = amounts(quota, &["spec", "hard"]);
            let create = attributes.operation == Operation::Create;
            if create && gvr.group.is_empty() && gvr.resource == "pods" {
                let missing = quota::unstated(object, hard.keys().map(String::as_str));
                if !missing.is_empty() {
                    let missing = missing.join(",");
                    let why = format!("failed quota: {}: must specify {missing}", quota.name());
                    return Err(forbidden(attributes, why));
                }
            }
            // One that comes into the scope by the change counts as a whole.
            let old = attributes.old_object.as_ref().filter(|old| in_scope(quota, gvr, old));
            let before = old.map(|old| usage(gvr, old)).unwrap_or_default();
            let grown = |(name, amount): (&String, &Quantity)| {
                let more = amount.minus(&before.get(name).copied().unwrap_or_default());
                (hard.contains_key(name) && more.sign() > 0).then(|| (name.clone(), more))
            };
            // What does not grow can't exceed: a namespace over its quota may still be changed.
            let delta: Usage = wanted.iter().filter_map(grown).collect();
            if !delta.is_empty() {
                charges.push(Charge { quota: quota.clone(), delta });
            }
        }
        Ok(charges)
    }

    fn line(&self, namespace: &str) -> &Mutex<()> {
        let at = usize::try_from(self.hasher.hash_one(namespace) % LINES as u64).unwrap_or_default();
        &self.lines[at]
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
        let resize = operation == Operation::Update && gvr.resource == "pods" && subresource == "resize";
        (subresource.is_empty() || resize)
            && !events
            && matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(object) = &attributes.object else { return Ok(()) };
        if attributes.namespace.is_empty() {
            return Ok(());
        }
        if self.quotas(attributes).await?.is_empty() {
            return Ok(());
        }
        let _place = self.line(&attributes.namespace).lock().await;
        let mut done: BTreeSet<String> = BTreeSet::new();
        for _ in 0..TRIES {
            let quotas = self.quotas(attributes).await?;
            let charges = Self::charges(attributes, object, &quotas)?;
            let open: Vec<&Charge> =
                charges.iter().filter(|charge| !done.contains(charge.quota.name())).collect();
            if open.is_empty() {
                return Ok(());
            }
            // An object that is there already will be refused as such; it must not be charged again.
            if attributes.operation == Operation::Create
                && !attributes.name.is_empty()
                && self.exists(attributes).await?
            {
                return Ok(());
            }
            for charge in open {
                if self.charge(attributes, charge).await? {
                    done.insert(charge.quota.name().to_owned());
                }
            }
            if charges.iter().all(|charge| done.contains(charge.quota.name())) {
                return Ok(());
            }
        }
        Err(ApiError::conflict(
            &core("resourcequotas"),
            "",
            "the quota is being changed too often, try again",
        ))
    }
}

impl ResourceQuota {
    async fn exists(&self, attributes: &Attributes) -> Result<bool, ApiError> {
        let (gvr, namespace) = (&attributes.gvr, Some(attributes.namespace.as_str()));
        Ok(self.reader.get(gvr, namespace, &attributes.name).await?.is_some())
    }
}

fn amounts(quota: &Value, path: &[&str]) -> Usage {
    let entries = quota.map(path).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}

fn add(to: &mut BTreeMap<String, Quantity>, more: &Usage) {
    for (name, quantity) in more {
        let sum = to.get(name).map_or(*quantity, |sum| sum.plus(quantity));
        to.insert(name.clone(), sum);
    }
}
