//! PodSecurity: the Pod Security Standards, as the labels of a namespace choose them.
//!
//! `policy` reads the labels; `checks` are the controls of the standards, pure functions of a pod; this
//! is the plug-in. Enforcing judges pods only; auditing and warning also judge what makes pods, so that
//! the author of a Deployment learns of a refusal before its pods do.

mod checks;
mod config;
mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};

use super::{core, forbidden};
use crate::{Attributes, Operation, Plugin, Reader};
use checks::{Pod, Violations};
pub use config::{Config, ConfigError};
use policy::{Level, Policy, Standard};

/// At most so many pods of a namespace are looked at when its labels change.
const MOST_PODS: usize = 3000;

/// Below these a pod is not changed in a way that matters.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// The plug-in.
pub struct PodSecurity {
    reader: Arc<dyn Reader>,
    config: Config,
}

impl PodSecurity {
    /// Reads namespaces and pods through `reader`.
    pub fn new(reader: Arc<dyn Reader>, config: Config) -> Self {
        Self { reader, config }
    }

    async fn namespace(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(new) = &attributes.object else { return Ok(()) };
        let (policy, errors) = Policy::of_labels(new.labels(), &self.config.defaults);
        let exempt = self.config.exempts_namespace(&attributes.name);
        let Some(old) = &attributes.old_object else {
            refuse(&attributes.name, errors)?;
            if exempt {
                self.warn_exempt(attributes, &policy, new);
            }
            return Ok(());
        };
        let (before, old_errors) = Policy::of_labels(old.labels(), &self.config.defaults);
        if errors != old_errors {
            refuse(&attributes.name, errors)?;
        }
        let (wanted, had) = (policy.enforce, before.enforce);
        let relaxed = wanted.version == had.version && wanted.level <= had.level;
        if wanted == had || wanted.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if exempt {
            self.warn_exempt(attributes, &policy, new);
            return Ok(());
        }
        for warning in self.existing_pods(&attributes.name, wanted).await? {
            attributes.notes.warn(warning);
        }
        Ok(())
    }

    fn warn_exempt(&self, attributes: &Attributes, policy: &Policy, namespace: &Value) {
        if let Some(ignored) = policy.ignored(&self.config.defaults, namespace.labels()) {
            let name = &attributes.name;
            attributes.notes.warn(format!(
                "namespace {name:?} is exempt from Pod Security, and the policy ({ignored}) will be ignored"
            ));
        }
    }

    /// What the pods that are there would be refused for; one controller's pods are alike, so one of
    /// each comes first.
    async fn existing_pods(&self, namespace: &str, standard: Standard) -> Result<Vec<String>, ApiError> {
        let pods = self.reader.list(&core("pods"), Some(namespace)).await?;
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        let mut seen = std::collections::HashSet::new();
        for pod in pods.iter().filter(|pod| !self.config.exempts_runtime(pod)) {
            let controller = pod.owner_references().into_iter().find(|owner| owner.controller == Some(true));
            let again = controller.is_some_and(|owner| !seen.insert(owner.uid));
            if again { rest.push(pod) } else { first.push(pod) }
        }
        let all: Vec<_> = first.into_iter().chain(rest).collect();
        let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for pod in all.iter().take(MOST_PODS) {
            let violations = checks::evaluate(standard, &Pod::new(pod));
            if !violations.is_empty() {
                found.entry(violations.reasons()).or_default().push(pod.name());
            }
        }
        let mut warnings = Vec::new();
        if all.len() > MOST_PODS {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {MOST_PODS} of {} existing pods",
                all.len()
            ));
        }
        if !found.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
            ));
        }
        let mut lines: Vec<String> = found
            .into_iter()
            .map(|(reasons, mut names)| {
                names.sort_unstable();
                let others = match names.len() {
                    1 => String::new(),
                    2 => " (and 1 other pod)".to_owned(),
                    many => format!(" (and {} other pods)", many - 1),
                };
                format!("{}{others}: {reasons}", names[0])
            })
            .collect();
        lines.sort_unstable();
        warnings.extend(lines);
        Ok(warnings)
    }

    /// A pod, or something that makes pods.
    async fn workload(&self, attributes: &Attributes, enforce: bool) -> Result<(), ApiError> {
        let notes = &attributes.notes;
        let exempt = |what: &str| notes.annotate("pod-security.kubernetes.io/exempt", what);
        if self.config.exempts_namespace(&attributes.namespace) {
            exempt("namespace");
            return Ok(());
        }
        if self.config.exempts_user(&attributes.user.name) {
            exempt("user");
            return Ok(());
        }
        let namespace = self.reader.get(&core("namespaces"), None, &attributes.namespace).await?;
        let Some(namespace) = namespace else {
            let why = format!("failed to lookup namespace {:?}", attributes.namespace);
            // What makes pods is let through: its pods are judged themselves.
            return if enforce { Err(ApiError::internal(why)) } else { Ok(()) };
        };
        let (policy, errors) = Policy::of_labels(namespace.labels(), &self.config.defaults);
        let silent = policy.audit.level == Level::Privileged && policy.warn.level == Level::Privileged;
        if errors.is_empty() && silent && (!enforce || policy.enforce.level == Level::Privileged) {
            return Ok(());
        }
        let Some(object) = &attributes.object else { return Ok(()) };
        if let (true, Some(old)) = (enforce, &attributes.old_object)
            && !is_significant(object, old)
        {
            return Ok(());
        }
        let Some(template) = template(&attributes.gvr.resource, object) else { return Ok(()) };
        if self.config.exempts_runtime(template) {
            exempt("runtimeClass");
            return Ok(());
        }
        if !errors.is_empty() {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            notes.annotate(
                "pod-security.kubernetes.io/error",
                format!("Failed to parse policy: {}", super::join(&texts)),
            );
        }
        judge(attributes, &policy, template, enforce)
    }
}

/// Judges by all three modes.
fn judge(attributes: &Attributes, policy: &Policy, template: &Value, enforce: bool) -> Result<(), ApiError> {
    let pod = Pod::new(template);
    let mut known: Vec<(Standard, Violations)> = Vec::new();
    let mut of = |standard: Standard| match known.iter().find(|(other, _)| *other == standard) {
        Some((_, violations)) => violations.clone(),
        None => {
            let violations = checks::evaluate(standard, &pod);
            known.push((standard, violations.clone()));
            violations
        }
    };
    let mut refused = None;
    if enforce {
        let standard = policy.enforce;
        attributes.notes.annotate("pod-security.kubernetes.io/enforce-policy", standard.to_string());
        let violations = of(standard);
        if !violations.is_empty() {
            let why = format!("violates PodSecurity \"{standard}\": {}", violations.details());
            refused = Some(forbidden(attributes, why));
        }
    }
    let would = |standard: Standard, violations: &Violations| {
        format!("would violate PodSecurity \"{standard}\": {}", violations.details())
    };
    let audited = of(policy.audit);
    if !audited.is_empty() {
        let text = would(policy.audit, &audited);
        attributes.notes.annotate("pod-security.kubernetes.io/audit-violations", text);
    }
    if let Some(error) = refused {
        return Err(error);
    }
    let warned = of(policy.warn);
    if !warned.is_empty() {
        attributes.notes.warn(would(policy.warn, &warned));
    }
    Ok(())
}

fn refuse(name: &str, errors: Vec<policy::Problem>) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let labels = Path::new("metadata").child("labels");
    let problem = |problem: policy::Problem| {
        Error::invalid(&labels.key(problem.label), problem.value.as_str(), problem.why)
    };
    let errors: Vec<Error> = errors.into_iter().map(problem).collect();
    Err(ApiError::invalid(&GroupVersionKind::new("", "v1", "Namespace"), name, &ErrorList::from(errors)))
}

/// Does an update bring an image that was not judged yet?
fn is_significant(new: &Value, old: &Value) -> bool {
    let image = |container: &Value| container.text(&["image"]).to_owned();
    let lists = ["initContainers", "containers"].iter().any(|list| {
        let images = |pod: &Value| pod.items(&["spec", list]).iter().map(image).collect::<Vec<_>>();
        images(new) != images(old)
    });
    let before = old.items(&["spec", "ephemeralContainers"]);
    lists
        || new.items(&["spec", "ephemeralContainers"]).iter().any(|container| {
            let same = before.iter().find(|other| other.text(&["name"]) == container.text(&["name"]));
            same.is_none_or(|same| image(same) != image(container))
        })
}

/// The pod, or the template of one, in an object.
fn template<'a>(resource: &str, object: &'a Value) -> Option<&'a Value> {
    match resource {
        "pods" => Some(object),
        "podtemplates" => object.at(&["template"]),
        "cronjobs" => object.at(&["spec", "jobTemplate", "spec", "template"]),
        _ => object.at(&["spec", "template"]),
    }
    .filter(|template| template.is_object())
}

fn makes_pods(gvr: &GroupVersionResource) -> bool {
    matches!(
        (gvr.group.as_str(), gvr.resource.as_str()),
        ("", "replicationcontrollers" | "podtemplates")
            | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
            | ("batch", "jobs" | "cronjobs")
    )
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        let core = gvr.group.is_empty();
        matches!(operation, Operation::Create | Operation::Update)
            && match gvr.resource.as_str() {
                "pods" => core && !IGNORED.contains(&subresource),
                "namespaces" => core && subresource.is_empty(),
                _ => subresource.is_empty() && makes_pods(gvr),
            }
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        match attributes.gvr.resource.as_str() {
            "namespaces" => self.namespace(attributes).await,
            "pods" => self.workload(attributes, true).await,
            _ => self.workload(attributes, false).await,
        }
    }
}
