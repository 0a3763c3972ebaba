//! How one served version of a custom resource sees what is stored.
//!
//! What is stored is never changed by looking: an object is copied, pruned and defaulted by the schema
//! of the version it was stored in, converted, and pruned by the schema of the version asked for. The
//! outcome is remembered on the stored object, so that it is made once for all readers of a version.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use tokio_util::sync::CancellationToken;

use super::convert::{self, Conversion, Webhooks};
use super::definition::{Definition, Version};
use super::meta::{self, Malformed};
use super::{defaults, prune};
use crate::cache::{Fields, Object};

/// A version's view. It outlives changes of the definition: watches hold it.
pub(crate) struct Lens {
    version: String,
    definition: ArcSwap<Definition>,
    caller: Arc<Webhooks>,
    closed: CancellationToken,
}

/// What could be made of an object without asking anybody.
enum Glance {
    Seen(Arc<Object>),
    /// To be converted by the webhook.
    Foreign(Value),
}

impl Lens {
    /// The view of a version.
    pub(crate) fn new(
        definition: Arc<Definition>,
        version: impl Into<String>,
        caller: Arc<Webhooks>,
    ) -> Self {
        Self {
            version: version.into(),
            definition: ArcSwap::new(definition),
            caller,
            closed: CancellationToken::new(),
        }
    }

    /// Looks through another definition from now on.
    pub(crate) fn swap(&self, definition: Arc<Definition>) {
        self.definition.store(definition);
    }

    /// The version is served no longer: its watches end.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Resolves when the version is served no longer.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Can every object be seen without asking a webhook?
    pub(crate) fn is_plain(&self) -> bool {
        self.definition.load().conversion == Conversion::None
    }

    /// An object in this version.
    pub(crate) async fn see(&self, raw: &Arc<Object>) -> Result<Arc<Object>, ApiError> {
        let mut seen = self.see_all(std::slice::from_ref(raw)).await?;
        seen.pop().ok_or_else(|| ApiError::internal("an object was lost in conversion"))
    }

    /// An object in this version, if no webhook is needed for it.
    pub(crate) fn see_now(&self, raw: &Arc<Object>) -> Option<Result<Arc<Object>, ApiError>> {
        match self.glance(&self.definition.load(), raw) {
            Ok(Glance::Seen(seen)) => Some(Ok(seen)),
            Ok(Glance::Foreign(_)) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Objects in this version; those a webhook must convert go there together.
    pub(crate) async fn see_all(&self, raws: &[Arc<Object>]) -> Result<Vec<Arc<Object>>, ApiError> {
        let definition = self.definition.load_full();
        let mut seen = Vec::with_capacity(raws.len());
        let mut foreign = Vec::new();
        for (index, raw) in raws.iter().enumerate() {
            match self.glance(&definition, raw)? {
                Glance::Seen(object) => seen.push(object),
                Glance::Foreign(value) => {
                    foreign.push((index, value));
                    // A place to put the converted one.
                    seen.push(raw.clone());
                }
            }
        }
        if foreign.is_empty() {
            return Ok(seen);
        }
        let (places, objects): (Vec<usize>, Vec<Value>) = foreign.into_iter().unzip();
        let converted = convert::by_webhook(&definition, &self.caller, objects, &self.version).await?;
        for (place, value) in places.into_iter().zip(converted) {
            seen[place] = self.finish(&definition, &raws[place], value)?;
        }
        Ok(seen)
    }

    fn glance(&self, definition: &Definition, raw: &Arc<Object>) -> Result<Glance, ApiError> {
        if let Some(seen) = raw.view(self.key(definition)) {
            return Ok(Glance::Seen(seen));
        }
        let stored = raw.value.text(&["apiVersion"]);
        let version = definition.version_of(stored).ok_or_else(|| {
            ApiError::internal(format!("request to convert CR from an invalid group/version: {stored}"))
        })?;
        let mut value = Value::clone(&raw.value);
        // Kept on error, so it can't fail.
        _ = meta::coerce(&mut value, &version.parsed, Malformed::Keep);
        prune::prune(&mut value, &version.parsed);
        defaults::apply(&mut value, &version.parsed);
        if version.name == self.version {
            return self.finish(definition, raw, value).map(Glance::Seen);
        }
        match definition.conversion {
            Conversion::None => {
                value.set(&["apiVersion"], definition.api_version(&self.version));
                self.finish(definition, raw, value).map(Glance::Seen)
            }
            Conversion::Webhook { .. } => Ok(Glance::Foreign(value)),
        }
    }

    /// Prunes what was converted and remembers it.
    fn finish(
        &self,
        definition: &Definition,
        raw: &Arc<Object>,
        mut value: Value,
    ) -> Result<Arc<Object>, ApiError> {
        let version = self.own(definition)?;
        prune::prune(&mut value, &version.parsed);
        let seen = if value == *raw.value && version.selectable.is_empty() {
            raw.clone()
        } else {
            let fields = fields(definition, version, &value);
            Arc::new(Object::new(value, raw.revision, fields))
        };
        raw.remember_view(self.key(definition), &seen);
        Ok(seen)
    }

    fn own<'d>(&self, definition: &'d Definition) -> Result<&'d Version, ApiError> {
        definition.version(&self.version).ok_or_else(|| {
            let version = definition.api_version(&self.version);
            ApiError::internal(format!("request to convert CR to an invalid group/version: {version}"))
        })
    }

    fn key(&self, definition: &Definition) -> (u64, usize) {
        let place = definition.versions.iter().position(|version| version.name == self.version);
        (definition.id, place.unwrap_or(usize::MAX))
    }

    /// An object that was sent in another version, in this one.
    pub(crate) async fn receive(&self, mut object: Value) -> Result<Value, ApiError> {
        let definition = self.definition.load_full();
        let version = self.own(&definition)?;
        match definition.conversion {
            Conversion::None => object.set(&["apiVersion"], definition.api_version(&self.version)),
            Conversion::Webhook { .. } => {
                let mut converted =
                    convert::by_webhook(&definition, &self.caller, vec![object], &self.version).await?;
                object = converted.pop().ok_or_else(|| ApiError::internal("nothing was converted"))?;
            }
        }
        prune::prune(&mut object, &version.parsed);
        Ok(object)
    }

    /// Objects of any versions in the one of a name (`group/version`); a webhook is asked once for all of them.
    pub(crate) async fn convert(
        &self,
        objects: Vec<Value>,
        api_version: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let definition = self.definition.load_full();
        let version = definition.version_of(api_version).ok_or_else(|| {
            ApiError::internal(format!("request to convert CR to an invalid group/version: {api_version}"))
        })?;
        let mut converted = convert::by_webhook(&definition, &self.caller, objects, &version.name).await?;
        for object in &mut converted {
            prune::prune(object, &version.parsed);
        }
        Ok(converted)
    }

    /// An object of this version as it is to be stored.
    pub(crate) async fn to_stored(&self, mut object: Value) -> Result<Value, ApiError> {
        let definition = self.definition.load_full();
        let storage =
            definition.storage().ok_or_else(|| ApiError::internal("there is no storage version"))?;
        if storage.name != self.version {
            match definition.conversion {
                Conversion::None => object.set(&["apiVersion"], definition.api_version(&storage.name)),
                Conversion::Webhook { .. } => {
                    let mut converted =
                        convert::by_webhook(&definition, &self.caller, vec![object], &storage.name).await?;
                    object = converted.pop().ok_or_else(|| ApiError::internal("nothing was converted"))?;
                }
            }
            prune::prune(&mut object, &storage.parsed);
        }
        Ok(object)
    }
}

/// What field selectors see of an object in a version.
fn fields(definition: &Definition, version: &Version, object: &Value) -> Fields {
    let mut fields = meta_fields(object, definition.namespaced);
    for (name, path) in &version.selectable {
        let value = match path.find(object).first() {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        };
        fields.push((name.clone().into(), value));
    }
    fields
}

/// What field selectors see of every object.
pub(crate) fn meta_fields(object: &Value, namespaced: bool) -> Fields {
    let mut fields: Fields = vec![("metadata.name".into(), object.name().to_owned())];
    if namespaced {
        fields.push(("metadata.namespace".into(), object.namespace().to_owned()));
    }
    fields
}
