//! Expressions over the claims of a token and over the user made of them.

use std::sync::LazyLock;

use serde_json::json;
use skep_api::user::UserInfo;
use skep_cel::{Budget, Env, Program, Schema, Type, Value, Variables};

/// The variable that holds the claims.
const CLAIMS: &str = "claims";
/// The variable that holds the user.
const USER: &str = "user";

static JSON: LazyLock<Schema> = LazyLock::new(Schema::claims);

static CLAIMS_ENV: LazyLock<Env> =
    LazyLock::new(|| Env::new().with_variable(CLAIMS, Type::map(Type::String, Type::Dyn)));

static USER_ENV: LazyLock<Env> = LazyLock::new(|| {
    let texts = Type::list(Type::String);
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", texts.clone()),
            ("extra", Type::map(Type::String, texts)),
        ],
    );
    Env::new().with_variable(USER, user)
});

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    program: Program,
}

impl Expression {
    fn compile(env: &Env, text: &str) -> Result<Self, String> {
        let program = env.compile(text).map_err(|errors| format!("compilation failed: {errors}"))?;
        Ok(Self { text: text.to_owned(), program })
    }

    fn condition(self) -> Result<Self, String> {
        // Claims are of no known type, so that what is made of them may be none either: that is no condition.
        if self.program.kind() == &Type::Bool { Ok(self) } else { Err("must evaluate to bool".to_owned()) }
    }

    /// Makes something of `claims`. The error is what upstream says about it.
    pub fn over_claims(text: &str) -> Result<Self, String> {
        Self::compile(&CLAIMS_ENV, text)
    }

    /// A condition on `claims`.
    pub fn on_claims(text: &str) -> Result<Self, String> {
        Self::over_claims(text)?.condition()
    }

    /// A condition on `user`.
    pub fn on_user(text: &str) -> Result<Self, String> {
        Self::compile(&USER_ENV, text)?.condition()
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Does it look at this claim.
    pub fn selects_claim(&self, claim: &str) -> bool {
        self.program.selects(CLAIMS, claim)
    }

    /// Its value over the claims of a token.
    pub(super) fn of_claims<'a>(&self, claims: &'a serde_json::Value) -> Result<Value<'a>, String> {
        self.eval(CLAIMS, claims)
    }

    /// Does it hold of a user, as the claims made it.
    pub(super) fn holds_of_user(&self, user: &UserInfo) -> Result<bool, String> {
        let user = json!({
            "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        });
        self.eval(USER, &user).and_then(|value| is_true(&value))
    }

    fn eval<'a>(&self, name: &str, json: &'a serde_json::Value) -> Result<Value<'a>, String> {
        let variables = Variables::new().with(name, Value::from_json(json, Some(&JSON)));
        let outcome = self.program.eval(&variables, &mut Budget::new(u64::MAX));
        outcome.map_err(|error| format!("expression '{}' resulted in error: {error}", self.text))
    }
}

/// The value of a condition.
pub(super) fn is_true(value: &Value<'_>) -> Result<bool, String> {
    match value {
        Value::Bool(held) => Ok(*held),
        _ => Err("validation expression must return a boolean".to_owned()),
    }
}
