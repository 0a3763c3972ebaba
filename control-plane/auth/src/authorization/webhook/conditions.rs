//! Match conditions: expressions over a SubjectAccessReview's spec that must all hold for a webhook to be
//! asked.

use std::sync::LazyLock;

use skep_api::field::{Error, ErrorList, Path};
use skep_cel::{Budget, Env, Program, Type, Value, Variables};

use super::review;
use crate::authorization::Attributes;

/// No webhook has more conditions.
const CONDITIONS: usize = 64;

static ENV: LazyLock<Env> = LazyLock::new(|| {
    let texts = Type::list(Type::String);
    let object = |name: &str, fields: Vec<(&str, Type)>| Type::object(&format!("kubernetes.{name}"), fields);
    let requirement = object(
        "SelectorRequirement",
        vec![("key", Type::String), ("operator", Type::String), ("values", texts.clone())],
    );
    let selector = |name: &str| {
        let requirements = Type::list(requirement.clone());
        object(name, vec![("rawSelector", Type::String), ("requirements", requirements)])
    };
    let names = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
    let mut resource: Vec<(&str, Type)> = names.map(|name| (name, Type::String)).into();
    resource.push(("fieldSelector", selector("FieldSelectorAttributes")));
    resource.push(("labelSelector", selector("LabelSelectorAttributes")));
    let spec = object(
        "SubjectAccessReviewSpec",
        vec![
            ("resourceAttributes", object("ResourceAttributes", resource)),
            (
                "nonResourceAttributes",
                object("NonResourceAttributes", vec![("path", Type::String), ("verb", Type::String)]),
            ),
            ("user", Type::String),
            ("groups", texts.clone()),
            ("extra", Type::map(Type::String, texts)),
            ("uid", Type::String),
        ],
    );
    Env::new().with_variable("request", spec)
});

/// The compiled conditions of a webhook; none lets it be asked about everything.
#[derive(Clone, Debug, Default)]
pub struct MatchConditions(Vec<(String, Program)>);

impl MatchConditions {
    /// Compiles them, and says what is wrong with them. `path` is that of the list.
    pub fn compile(expressions: &[String], path: &Path, errors: &mut ErrorList) -> Self {
        if expressions.len() > CONDITIONS {
            errors.push(Error::too_many(path, expressions.len(), CONDITIONS));
            return Self::default();
        }
        let mut conditions = Vec::new();
        for (index, text) in expressions.iter().enumerate() {
            let path = path.index(index).child("expression");
            if text.trim().is_empty() {
                errors.push(Error::required(&path, ""));
                continue;
            }
            if expressions[..index].contains(text) {
                errors.push(Error::duplicate(&path, text.as_str()));
                continue;
            }
            match compile(text) {
                Ok(program) => conditions.push((text.clone(), program)),
                Err(why) => errors.push(Error::invalid(&path, text.as_str(), why)),
            }
        }
        Self(conditions)
    }

    /// Do all hold. One that does not settles it, also where another fails.
    pub(super) fn hold(&self, attributes: &Attributes<'_>) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let request = review::complete(attributes);
        let variables = Variables::new().with("request", Value::from_json(&request, None));
        let mut errors = Vec::new();
        for (text, program) in &self.0 {
            match program.eval(&variables, &mut Budget::new(u64::MAX)) {
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(error) => {
                    errors.push(format!(
                        "cel evaluation error: expression '{text}' resulted in error: {error}"
                    ));
                }
            }
        }
        if errors.is_empty() { Ok(true) } else { Err(errors.join(", ")) }
    }
}

fn compile(text: &str) -> Result<Program, String> {
    let program = ENV.compile(text).map_err(|errors| format!("compilation failed: {errors}"))?;
    match program.kind() {
        Type::Bool => Ok(program),
        kind => Err(format!("must evaluate to bool but got {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use skep_api::selector::FieldSelector;
    use skep_api::user::UserInfo;

    use super::*;

    fn conditions(texts: &[&str]) -> Result<MatchConditions, String> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let mut errors = ErrorList::new();
        let found = MatchConditions::compile(&texts, &Path::new("matchConditions"), &mut errors);
        if errors.is_empty() { Ok(found) } else { Err(errors.lines().join("; ")) }
    }

    #[test]
    fn what_is_wrong_is_said_as_upstream_says_it() {
        for (texts, why) in [
            (
                vec!["request.user"],
                "matchConditions[0].expression: Invalid value: \"request.user\": must evaluate to bool but got string",
            ),
            (vec!["true", "true"], "matchConditions[1].expression: Duplicate value: \"true\""),
            (vec![" "], "matchConditions[0].expression: Required value"),
            (vec!["request.nope == ''"], "compilation failed: ERROR: <input>:1:8: undefined field 'nope'"),
            (vec!["object.x == 1"], "undeclared reference to 'object'"),
        ] {
            let error = conditions(&texts).expect_err(why);
            assert!(error.contains(why), "{why}\nnot in {error}");
        }
        let many: Vec<String> = (0..65).map(|n| format!("{n} > 0")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(conditions(&many).expect_err("many").contains("must have at most 64 items"));
    }

    #[test]
    fn all_must_hold_and_one_that_does_not_wins_over_errors() {
        let user = UserInfo { name: "jane".into(), groups: vec!["dev".into()], ..UserInfo::default() };
        let fields = FieldSelector::equals("spec.nodeName", "n");
        let pods = Attributes {
            namespace: "kube-system",
            fields: fields.requirements(),
            ..Attributes::for_resource(&user, "list", "", "pods")
        };
        let path = Attributes::for_path(&user, "get", "/healthz");
        let error = "request.resourceAttributes.namespace == 'kube-system'";
        for (texts, on_pods, on_path) in [
            (vec![], Some(true), Some(true)),
            (vec!["has(request.resourceAttributes)"], Some(true), Some(false)),
            (vec![error], Some(true), None),
            (vec![error, "request.user == 'john'"], Some(false), Some(false)),
            (
                vec!["!('system:serviceaccounts' in request.groups) && request.uid == ''"],
                Some(true),
                Some(true),
            ),
            (vec!["request.?nonResourceAttributes.?path.orValue('') == '/healthz'"], Some(false), Some(true)),
            (
                vec![
                    "has(request.resourceAttributes) && request.resourceAttributes.fieldSelector.requirements.exists(r, r.key == 'spec.nodeName' && r.values == ['n'])",
                ],
                Some(true),
                Some(false),
            ),
        ] {
            let found = conditions(&texts).expect("conditions");
            assert_eq!(found.hold(&pods).ok(), on_pods, "{texts:?}");
            assert_eq!(found.hold(&path).ok(), on_path, "{texts:?}");
        }
    }
}
