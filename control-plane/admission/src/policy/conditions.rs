//! Match conditions: expressions that must all hold for a webhook or a policy to be asked.

use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_cel::admission::Setting;
use skep_cel::authorizer::Decisions;
use skep_cel::{Budget, Env, MATCH_CONDITIONS_BUDGET};

use super::expression::{Expression, Variables, Wanted};
use super::input::{Input, Seen, Stop, decide};
use crate::matching::Match;
use crate::{Access, Attributes, Reader};

/// The compiled `matchConditions` of a webhook or a policy.
#[derive(Clone, Debug)]
pub struct MatchConditions {
    conditions: Vec<Expression>,
    ignores: bool,
}

impl MatchConditions {
    /// Of one webhook of a configuration. An expression that does not compile fails when it is evaluated.
    pub fn of_webhook(webhook: &Value) -> Self {
        let setting = Setting { has_authorizer: true, ..Setting::default() };
        Self::compile(webhook, &setting.env())
    }

    /// Of a policy's spec.
    pub(super) fn compile(object: &Value, env: &Env) -> Self {
        let conditions = object.items(&["matchConditions"]).iter();
        Self {
            conditions: conditions
                .map(|one| Expression::compile(env, one.text(&["expression"]), Wanted::Bool))
                .collect(),
            ignores: object.text(&["failurePolicy"]) == "Ignore",
        }
    }

    /// There are none: everything matches.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Do all hold for a request as a webhook sees it. One that is false settles it; otherwise, when one
    /// fails, the failure policy: no match under `Ignore`, else the error, which refuses the request.
    pub async fn matches(
        &self,
        attributes: &Attributes,
        seen: &Match,
        reader: &dyn Reader,
        access: &dyn Access,
    ) -> Result<bool, ApiError> {
        if self.is_empty() {
            return Ok(true);
        }
        let objects = Seen::new(attributes, seen, reader).await?;
        let decisions = Decisions::default();
        let outcome = decide(attributes, access, &decisions, |decisions| {
            self.hold(&Input::new(attributes, &objects, decisions))
        });
        match outcome.await.and_then(|held| held) {
            Ok(held) => Ok(held),
            Err(_) if self.ignores => Ok(false),
            Err(error) => Err(ApiError::forbidden(&attributes.gvr, &attributes.name, error)),
        }
    }

    /// The same for a policy, with its parameters and variables.
    pub(super) fn hold_with(
        &self,
        attributes: &Attributes,
        objects: &Seen,
        decisions: &Decisions,
        params: Option<&Value>,
        variables: &Variables,
    ) -> Result<Result<bool, String>, Stop> {
        let input = Input::new(attributes, objects, decisions).with_params(params).with_variables(variables);
        let held = match self.hold(&input) {
            // Under `Ignore` also a budget that is used up means no match.
            Err(Stop::Budget(error)) => Err(error),
            other => other?,
        };
        Ok(match held {
            Err(_) if self.ignores => Ok(false),
            held => held,
        })
    }

    fn hold(&self, input: &Input<'_>) -> Result<Result<bool, String>, Stop> {
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        let mut errors: Vec<String> = Vec::new();
        for condition in &self.conditions {
            match condition.eval(input, &mut budget)? {
                Ok(skep_cel::Value::Bool(false)) => return Ok(Ok(false)),
                Ok(_) => {}
                Err(error) if errors.contains(&error) => {}
                Err(error) => errors.push(error),
            }
        }
        Ok(match errors.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        })
    }
}
