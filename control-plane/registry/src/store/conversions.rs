//! What the fields of managers are compared with where a webhook converts.
//!
//! Comparing is pure, and only it knows which object it wants to see in which version. So it is tried; what it missed
//! is asked for, all at once, and it is tried again, until it misses nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use skep_api::error::ApiError;

use super::Resource;

/// More tries than any write takes: each manager's version is one step at most.
const MOST_ASKED: usize = 32;

/// An object as text, and the version (`group/version`) it is wanted in.
type Wanted = (String, String);

/// The conversions made for one write.
#[derive(Debug, Default)]
pub(crate) struct Conversions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    made: HashMap<Wanted, Value>,
    missing: Vec<(Wanted, Value)>,
    asked: usize,
}

impl Conversions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object in another version; noted as missing when it was not converted yet.
    pub(crate) fn find(&self, object: &Value, api_version: &str) -> Option<Value> {
        let wanted = (object.to_string(), api_version.to_owned());
        let mut state = self.state();
        let found = state.made.get(&wanted).cloned();
        if found.is_none() && !state.missing.iter().any(|(missing, _)| *missing == wanted) {
            state.missing.push((wanted, object.clone()));
        }
        found
    }

    /// Asks for what the last try missed; `false`: it missed nothing, its outcome counts.
    pub(crate) async fn resolve(&self, resource: &Resource) -> Result<bool, ApiError> {
        let missing = {
            let mut state = self.state();
            state.asked += 1;
            std::mem::take(&mut state.missing)
        };
        if missing.is_empty() {
            return Ok(false);
        }
        if self.state().asked > MOST_ASKED {
            return Err(ApiError::internal("the managers' versions are converted again and again"));
        }
        let lens =
            resource.lens().ok_or_else(|| ApiError::internal("only custom resources are converted"))?;
        let mut by_version: HashMap<String, Vec<(String, Value)>> = HashMap::new();
        for ((text, version), object) in missing {
            by_version.entry(version).or_default().push((text, object));
        }
        for (version, wanted) in by_version {
            let (texts, objects): (Vec<String>, Vec<Value>) = wanted.into_iter().unzip();
            let converted = lens.convert(objects, &version).await?;
            let keys = texts.into_iter().map(|text| (text, version.clone()));
            self.state().made.extend(keys.zip(converted));
        }
        Ok(true)
    }
}
