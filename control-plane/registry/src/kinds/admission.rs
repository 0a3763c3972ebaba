//! What admission reads: webhook configurations, and policies with their bindings.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_admission::policy::{check_match_conditions, check_policy};
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::{cluster, status};
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, default_to, items_mut};

const GROUP: &str = "admissionregistration.k8s.io";

/// MutatingWebhookConfiguration.
pub(super) static MUTATING: KindRow = KindRow {
    categories: &["api-extensions"],
    generation: &["webhooks"],
    ..cluster(
        GROUP,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        &Webhooks { mutating: true },
    )
};
/// ValidatingWebhookConfiguration.
pub(super) static VALIDATING: KindRow = KindRow {
    categories: &["api-extensions"],
    generation: &["webhooks"],
    ..cluster(
        GROUP,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        &Webhooks { mutating: false },
    )
};
/// ValidatingAdmissionPolicy.
pub(super) static VALIDATING_POLICY: KindRow = KindRow {
    categories: &["api-extensions"],
    generation: &["spec"],
    subresources: &[status(GROUP, "v1", "ValidatingAdmissionPolicy")],
    ..cluster(
        GROUP,
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        &Policy { rules: "validations", column: POLICY_COLUMNS },
    )
};
/// MutatingAdmissionPolicy.
pub(super) static MUTATING_POLICY: KindRow = KindRow {
    categories: &["api-extensions"],
    generation: &["spec"],
    ..cluster(
        GROUP,
        "v1",
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
        &Policy { rules: "mutations", column: MUTATION_COLUMNS },
    )
};
/// ValidatingAdmissionPolicyBinding.
pub(super) static VALIDATING_BINDING: KindRow = KindRow {
    categories: &["api-extensions"],
    generation: &["spec"],
    ..cluster(
        GROUP,
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        &Binding { actions: true },
    )
};
/// MutatingAdmissionPolicyBinding.
pub(super) static MUTATING_BINDING: KindRow = KindRow {
    categories: &["api-extensions"],
    generation: &["spec"],
    ..cluster(
        GROUP,
        "v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        &Binding { actions: false },
    )
};

static POLICY_COLUMNS: &[Column] =
    &[printer::NAME, printer::integer("Validations"), printer::text("ParamKind"), printer::AGE];
static MUTATION_COLUMNS: &[Column] =
    &[printer::NAME, printer::integer("Mutations"), printer::text("ParamKind"), printer::AGE];

struct Webhooks {
    mutating: bool,
}

fn fully_qualified(name: &At<'_>) {
    if !name.require() {
        return;
    }
    let errors = names::dns1123_subdomain(name.text());
    if !errors.is_empty() {
        name.invalid(errors.join(","));
    } else if name.text().split('.').count() < 3 {
        name.invalid("should be a domain with at least three segments separated by dots");
    }
}

fn client(config: &At<'_>) {
    let (url, service) = (config.child("url"), config.child("service"));
    match (url.is_set(), service.is_set()) {
        (true, true) | (false, false) => config.required("exactly one of url or service is required"),
        (true, false) => {
            let rest = url.text().strip_prefix("https://");
            if rest.is_none_or(|r| r.is_empty() || r.starts_with('/')) {
                url.invalid("'https' is the only allowed URL scheme; desired format: https://host[/path]");
            }
        }
        (false, true) => {
            service.child("name").require_with("service name is required");
            service.child("namespace").require_with("service namespace is required");
            service.child("port").within(1, 65535);
            let path = service.child("path");
            if !path.is_empty() && !path.text().starts_with('/') {
                path.invalid("must start with a '/'");
            }
        }
    }
}

fn rule(rule: &At<'_>) {
    let operations = rule.child("operations");
    operations.require();
    operations.items().iter().for_each(|o| o.one_of(&["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]));
    for field in ["apiGroups", "apiVersions", "resources"] {
        rule.child(field).require();
    }
    rule.child("scope").one_of(&["*", "Cluster", "Namespaced"]);
}

fn webhook(hook: &At<'_>) {
    fully_qualified(&hook.child("name"));
    hook.child("rules").items().iter().for_each(rule);
    hook.child("failurePolicy").one_of(&["Fail", "Ignore"]);
    hook.child("matchPolicy").one_of(&["Equivalent", "Exact"]);
    hook.child("reinvocationPolicy").one_of(&["IfNeeded", "Never"]);
    hook.child("sideEffects").require_one_of(&["None", "NoneOnDryRun"]);
    let seconds = hook.child("timeoutSeconds");
    if seconds.int().is_some_and(|s| !(1..=30).contains(&s)) {
        seconds.invalid("the timeout value must be between 1 and 30 seconds");
    }
    hook.child("namespaceSelector").selector();
    hook.child("objectSelector").selector();
    let versions = hook.child("admissionReviewVersions");
    if versions.require_with("must specify one of v1, v1beta1")
        && !versions.items().iter().any(|v| ["v1", "v1beta1"].contains(&v.text()))
    {
        versions.invalid("must include at least one of v1, v1beta1");
    }
    client(&hook.child("clientConfig"));
    let conditions = hook.child("matchConditions");
    hook.errors(check_match_conditions(
        conditions.value().as_array().map_or(&[], Vec::as_slice),
        conditions.path(),
        false,
    ));
}

/// `matchConstraints` of a policy and `matchResources` of a binding.
fn match_resources(resources: &At<'_>) {
    resources.child("matchPolicy").one_of(&["Equivalent", "Exact"]);
    resources.child("namespaceSelector").selector();
    resources.child("objectSelector").selector();
    for list in ["resourceRules", "excludeResourceRules"] {
        for item in resources.child(list).items() {
            let mut taken = Vec::new();
            for name in item.child("resourceNames").items() {
                name.invalid_all(names::path_segment(name.text()));
                if taken.contains(&name.text()) {
                    name.duplicate();
                }
                taken.push(name.text());
            }
            rule(&item);
        }
    }
}

fn default_match_resources(object: &mut Value, field: &str) {
    if object.at(&["spec", field]).is_none() {
        return;
    }
    default_text(object, &["spec", field, "matchPolicy"], "Equivalent");
    for selector in ["namespaceSelector", "objectSelector"] {
        default_to(object, &["spec", field, selector], json!({}));
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in items_mut(object, &["spec", field, list]) {
            default_text(rule, &["scope"], "*");
        }
    }
}

fn param_kind(kind: &At<'_>) {
    let version = kind.child("apiVersion");
    if version.require() {
        let (group, name) = version.text().split_once('/').unwrap_or(("", version.text()));
        if name.contains('/') {
            version.invalid(format!("unexpected GroupVersion string: {}", version.text()));
        } else {
            if !group.is_empty() {
                version.invalid_all(names::dns1123_subdomain(group));
            }
            if name.is_empty() {
                version.invalid("version must be specified");
            } else {
                version.invalid_all(names::dns1035_label(name));
            }
        }
    }
    let name = kind.child("kind");
    if name.require() {
        let complaints = names::dns1035_label(&name.text().to_ascii_lowercase());
        if !complaints.is_empty() {
            let text = complaints.join(",");
            name.invalid(format!("may have mixed case, but should otherwise match: {text}"));
        }
    }
}

fn param_ref(reference: &At<'_>) {
    let (name, selector) = (reference.child("name"), reference.child("selector"));
    if !name.is_empty() {
        name.invalid_all(names::path_segment(name.text()));
    }
    if !name.is_empty() && selector.is_set() {
        name.forbidden("name and selector are mutually exclusive");
        selector.forbidden("name and selector are mutually exclusive");
    }
    selector.selector();
    if name.is_empty() && !selector.is_set() {
        reference.required("one of name or selector must be specified");
    }
    reference.child("parameterNotFoundAction").require_one_of(&["Deny", "Allow"]);
}

/// Names with this end are for what is in files beside the server.
const RESERVED: &str = ".static.k8s.io";

fn reserved(object: &Value) -> Vec<String> {
    if !object.name().ends_with(RESERVED) {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: names ending with {RESERVED:?} are reserved for static manifest-based configurations and cannot be managed via the API"
    )]
}

impl Strategy for Webhooks {
    fn default(&self, object: &mut Value) {
        for hook in items_mut(object, &["webhooks"]) {
            default_text(hook, &["failurePolicy"], "Fail");
            default_text(hook, &["matchPolicy"], "Equivalent");
            for selector in ["namespaceSelector", "objectSelector"] {
                default_to(hook, &[selector], json!({}));
            }
            default_to(hook, &["timeoutSeconds"], 10);
            if self.mutating {
                default_text(hook, &["reinvocationPolicy"], "Never");
            }
            for rule in items_mut(hook, &["rules"]) {
                default_text(rule, &["scope"], "*");
            }
            if hook.at(&["clientConfig", "service"]).is_some() {
                default_to(hook, &["clientConfig", "service", "port"], 443);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let mut taken = Vec::new();
            for hook in root.child("webhooks").items() {
                webhook(&hook);
                let name = hook.child("name");
                if taken.contains(&name.text()) {
                    name.duplicate();
                }
                taken.push(name.text());
            }
        })
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        reserved(object)
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::integer("Webhooks"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.items(&["webhooks"]).len().into(), printer::age(object, now)]
    }
}

struct Policy {
    rules: &'static str,
    column: &'static [Column],
}

fn kind_of(reference: Option<&Value>) -> String {
    reference.map_or_else(
        || "<unset>".to_owned(),
        |r| format!("{}/{}", r.text(&["apiVersion"]), r.text(&["kind"])),
    )
}

impl Strategy for Policy {
    fn default(&self, object: &mut Value) {
        if object.at(&["spec"]).is_none() {
            return;
        }
        default_text(object, &["spec", "failurePolicy"], "Fail");
        default_match_resources(object, "matchConstraints");
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            let constraints = spec.child("matchConstraints");
            if constraints.require() {
                match_resources(&constraints);
                constraints.child("resourceRules").require();
            }
            let rules = spec.child(self.rules);
            let annotations = spec.child("auditAnnotations");
            if self.rules == "validations" && rules.is_empty() && annotations.is_empty() {
                let complaint = "validations or auditAnnotations must contain at least one item";
                rules.required(complaint);
                annotations.required(complaint);
            } else if self.rules == "mutations" {
                rules.require_with("mutations must contain at least one item");
                spec.child("reinvocationPolicy").require_one_of(&["Never", "IfNeeded"]);
            }
            spec.child("failurePolicy").one_of(&["Fail", "Ignore"]);
            if spec.child("paramKind").is_set() {
                param_kind(&spec.child("paramKind"));
            }
            root.errors(check_policy(object));
        })
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        reserved(object)
    }

    fn columns(&self) -> &'static [Column] {
        self.column
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.items(&["spec", self.rules]).len().into(),
            kind_of(object.at(&["spec", "paramKind"])).into(),
            printer::age(object, now),
        ]
    }
}

struct Binding {
    actions: bool,
}

impl Strategy for Binding {
    fn default(&self, object: &mut Value) {
        default_match_resources(object, "matchResources");
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            spec.child("policyName").require_named(names::dns1123_subdomain);
            if spec.child("paramRef").is_set() {
                param_ref(&spec.child("paramRef"));
            }
            if spec.child("matchResources").is_set() {
                match_resources(&spec.child("matchResources"));
            }
            let actions = spec.child("validationActions");
            if !self.actions {
                return;
            }
            if actions.require_with("at least one validation action is required") {
                let mut taken = Vec::new();
                for action in actions.items() {
                    action.one_of(&["Audit", "Deny", "Warn"]);
                    if taken.contains(&action.text()) {
                        action.duplicate();
                    }
                    taken.push(action.text());
                }
                let has = |name: &str| actions.items().iter().any(|a| a.text() == name);
                if has("Deny") && has("Warn") {
                    actions.error(Error::invalid(
                        actions.path(),
                        actions.value().clone(),
                        "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
                    ));
                }
            }
        })
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        reserved(object)
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] =
            &[printer::NAME, printer::text("PolicyName"), printer::text("ParamRef"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let reference = object.at(&["spec", "paramRef"]);
        let parameters = reference.map_or_else(
            || "<unset>".to_owned(),
            |r| {
                let name = printer::or(r.text(&["name"]), "*");
                match r.text(&["namespace"]) {
                    "" => name.to_owned(),
                    namespace => format!("{namespace}/{name}"),
                }
            },
        );
        vec![
            object.name().into(),
            object.text(&["spec", "policyName"]).into(),
            parameters.into(),
            printer::age(object, now),
        ]
    }
}
