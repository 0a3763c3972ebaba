//! Calling mutators a second time when a later one changed what an earlier one has seen.
//!
//! One [`Reinvocation`] belongs to one request. The chain runs all mutators once; if a webhook or policy
//! changed the object, it runs them once more, and never a third time. In the second round:
//! - built-in plug-ins run again as they are;
//! - a webhook or policy with `reinvocationPolicy: IfNeeded` is called again if somebody changed the
//!   object after it was called in the first round;
//! - one that was not called in the first round is not called at all.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// How far the mutation of a request has come.
#[derive(Clone, Debug, Default)]
pub struct Reinvocation {
    second: bool,
    wanted: bool,
    plugins: BTreeMap<&'static str, State>,
}

/// What one plug-in remembers between the rounds.
#[derive(Clone, Debug, Default)]
struct State {
    /// The object as the plug-in left it.
    output: Option<Value>,
    /// Called so far, with a policy that allows a second call, and not overtaken yet.
    called: BTreeSet<String>,
    /// To be called again.
    again: BTreeSet<String>,
}

impl State {
    fn overtaken(&mut self) {
        self.again.append(&mut self.called);
    }
}

impl Reinvocation {
    /// The number of the round, 0 or 1.
    pub fn round(&self) -> u8 {
        u8::from(self.second)
    }

    /// Begins the second round, if there is to be one.
    pub(crate) fn again(&mut self) -> bool {
        let again = self.wanted && !self.second;
        self.second |= again;
        again
    }

    /// A plug-in begins with this object.
    pub fn begin(&mut self, plugin: &'static str, object: Option<&Value>) {
        let second = self.second;
        let state = self.plugins.entry(plugin).or_default();
        if second && state.output.as_ref() != object {
            // Somebody between the rounds changed it: everybody who may is asked again.
            state.overtaken();
        }
    }

    /// Is this webhook or policy of the plug-in to be called in this round?
    pub fn is_due(&self, plugin: &'static str, id: &str) -> bool {
        !self.second || self.plugins.get(plugin).is_some_and(|state| state.again.contains(id))
    }

    /// A webhook or policy was called; `again` is whether its policy allows a second call.
    pub fn called(&mut self, plugin: &'static str, id: &str, changed: bool, again: bool) {
        let state = self.plugins.entry(plugin).or_default();
        if changed {
            state.overtaken();
            self.wanted = true;
        }
        if again {
            state.called.insert(id.to_owned());
        }
    }

    /// A plug-in ends with this object.
    pub fn end(&mut self, plugin: &'static str, object: Option<&Value>) {
        self.plugins.entry(plugin).or_default().output = object.cloned();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLUGIN: &str = "Hooks";

    #[test]
    fn one_that_was_overtaken_is_called_again_and_only_then() {
        let (before, after) = (json!(1), json!(2));
        let mut state = Reinvocation::default();
        state.begin(PLUGIN, Some(&before));
        assert!(state.is_due(PLUGIN, "a") && state.is_due(PLUGIN, "b"));
        state.called(PLUGIN, "a", false, true);
        state.called(PLUGIN, "never", false, false);
        state.called(PLUGIN, "b", true, true);
        state.end(PLUGIN, Some(&after));
        assert!(state.again());
        assert_eq!(state.round(), 1);
        state.begin(PLUGIN, Some(&after));
        assert!(state.is_due(PLUGIN, "a"), "b changed the object after a");
        assert!(!state.is_due(PLUGIN, "b"), "nobody changed it after b");
        assert!(!state.is_due(PLUGIN, "never"));
        assert!(!state.is_due(PLUGIN, "new"));
        state.end(PLUGIN, Some(&after));
        assert!(!state.again(), "there is no third round");
    }

    #[test]
    fn a_change_between_the_rounds_calls_all_again() {
        let mut state = Reinvocation::default();
        state.begin(PLUGIN, Some(&json!(1)));
        state.called(PLUGIN, "a", true, true);
        state.end(PLUGIN, Some(&json!(2)));
        assert!(state.again());
        state.begin(PLUGIN, Some(&json!(3)));
        assert!(state.is_due(PLUGIN, "a"));
    }

    #[test]
    fn nothing_changed_needs_no_second_round() {
        let mut state = Reinvocation::default();
        state.begin(PLUGIN, None);
        state.called(PLUGIN, "a", false, true);
        state.end(PLUGIN, None);
        assert!(!state.again());
    }
}
