//! The audit policy (`audit.k8s.io/v1`): how much of which request is written down.

use serde::Deserialize;

use crate::authorization::Attributes;

/// How much is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when, and how it ended.
    Metadata,
    /// That, and what was sent.
    Request,
    /// That, and what was answered.
    RequestResponse,
}

impl Level {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// The request is there, and its user known.
    RequestReceived,
    /// The headers of a stream's answer are sent.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The server failed.
    Panic,
}

impl Stage {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// What is wrong with a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It can't be read.
    #[error("the audit policy can't be read: {0}")]
    Read(#[from] serde_yaml::Error),
    /// It says something that can't be.
    #[error("the audit policy: {0}")]
    Content(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Option<serde_yaml::Value>,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rule {
    level: Option<Level>,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What a policy says about a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much.
    pub level: Level,
    /// Not at these stages.
    pub omit_stages: Vec<Stage>,
    /// Without `managedFields` in objects.
    pub omit_managed_fields: bool,
}

/// A policy.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

impl Policy {
    /// Reads YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File = serde_yaml::from_str(text)?;
        let wrong = |why: String| Err(PolicyError::Content(why));
        if file.kind != "Policy" || file.api_version != "audit.k8s.io/v1" {
            let (kind, version) = (file.kind, file.api_version);
            return wrong(format!("it is a {kind} of {version}, not a Policy of audit.k8s.io/v1"));
        }
        if file.rules.is_empty() {
            return wrong("it has no rules".into());
        }
        for (index, rule) in file.rules.iter().enumerate() {
            if rule.level.is_none() {
                return wrong(format!("rules[{index}].level: Required value"));
            }
            let resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if resources && !rule.non_resource_urls.is_empty() {
                return wrong(format!(
                    "rules[{index}]: rules cannot apply to both regular resources and non-resource URLs"
                ));
            }
            if let Some(url) = rule.non_resource_urls.iter().find(|url| !is_pattern(url)) {
                return wrong(format!(
                    "rules[{index}].nonResourceURLs: {url:?} is not \"*\" and does not begin with \"/\", or has a \
                     star before its end"
                ));
            }
        }
        Ok(Self {
            rules: file.rules,
            omit_stages: file.omit_stages,
            omit_managed_fields: file.omit_managed_fields,
        })
    }

    /// What to write down of a request: the first rule that fits says it.
    pub fn judge(&self, attributes: &Attributes<'_>) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(attributes)) else {
            return Verdict::default();
        };
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(rule.omit_stages.iter().filter(|stage| !self.omit_stages.contains(stage)));
        Verdict {
            level: rule.level.unwrap_or_default(),
            omit_stages,
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

fn is_pattern(url: &str) -> bool {
    let stem = url.strip_suffix('*').unwrap_or(url);
    url == "*" || (url.starts_with('/') && !stem.contains('*'))
}

impl Rule {
    fn fits(&self, attributes: &Attributes<'_>) -> bool {
        let lists = |list: &[String], item: &str| list.iter().any(|listed| listed == item);
        if !self.users.is_empty() && !lists(&self.users, &attributes.user.name) {
            return false;
        }
        let groups = &attributes.user.groups;
        if !self.user_groups.is_empty() && !groups.iter().any(|group| lists(&self.user_groups, group)) {
            return false;
        }
        if !self.verbs.is_empty() && !lists(&self.verbs, attributes.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return attributes.is_resource
                && (self.namespaces.is_empty() || lists(&self.namespaces, attributes.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|part| part.fits(attributes)));
        }
        if !self.non_resource_urls.is_empty() {
            return !attributes.is_resource
                && self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                    Some(prefix) => attributes.path.starts_with(prefix),
                    None => url == attributes.path,
                });
        }
        true
    }
}

impl GroupResources {
    fn fits(&self, attributes: &Attributes<'_>) -> bool {
        if self.group != attributes.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|name| name == attributes.name)
        {
            return false;
        }
        self.resources.iter().any(|pattern| match pattern.split_once('/') {
            None => pattern == "*" || (pattern == attributes.resource && attributes.subresource.is_empty()),
            Some(("*", sub)) => sub == attributes.subresource,
            // All subresources, and the resource itself.
            Some((main, "*")) => main == attributes.resource,
            Some((main, sub)) => main == attributes.resource && sub == attributes.subresource,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skep_api::user::UserInfo;

    use super::*;

    const TEXT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
- level: None
  nonResourceURLs: ['/healthz*', /version]
- level: Metadata
  resources:
  - {group: '', resources: [secrets, configmaps, tokenreviews]}
- level: Request
  userGroups: [dev]
  namespaces: [team]
  omitStages: [ResponseStarted]
- level: RequestResponse
  resources:
  - {group: '', resources: [pods/*]}
  - {group: apps, resources: ['*/scale']}
  - {group: batch, resourceNames: [one], resources: [jobs]}
  omitManagedFields: true
- level: Metadata
";

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::parse(TEXT).expect("a policy");
        let proxy = UserInfo::new("system:kube-proxy", [""; 0]);
        let dev = UserInfo::new("jane", ["dev"]);
        let level = |attributes: Attributes<'_>| policy.judge(&attributes).level;
        let on = Attributes::for_resource;
        assert_eq!(level(on(&proxy, "watch", "", "services")), Level::None);
        assert_eq!(level(on(&proxy, "list", "", "services")), Level::Metadata);
        assert_eq!(level(Attributes::for_path(&dev, "get", "/healthz/etcd")), Level::None);
        assert_eq!(level(Attributes::for_path(&dev, "get", "/version/x")), Level::Metadata);
        assert_eq!(level(on(&dev, "get", "", "secrets")), Level::Metadata);
        let here = Attributes { namespace: "team", ..on(&dev, "create", "", "pods") };
        let verdict = policy.judge(&here);
        assert_eq!(verdict.level, Level::Request);
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert_eq!(level(on(&dev, "get", "", "pods")), Level::RequestResponse);
        let log = Attributes { subresource: "log", ..on(&dev, "get", "", "pods") };
        assert_eq!(level(log), Level::RequestResponse);
        let scale = Attributes { subresource: "scale", ..on(&dev, "get", "apps", "x") };
        assert_eq!(level(scale), Level::RequestResponse);
        assert_eq!(level(on(&dev, "get", "apps", "x")), Level::Metadata);
        let job = |name| Attributes { name, ..on(&dev, "get", "batch", "jobs") };
        assert_eq!(level(job("one")), Level::RequestResponse);
        assert_eq!(level(job("two")), Level::Metadata);
        assert!(policy.judge(&on(&dev, "get", "", "pods")).omit_managed_fields);
    }

    #[test]
    fn policies_that_say_nothing_good_are_refused() {
        let header = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        for rest in [
            "rules: []",
            "rules: [{}]",
            "rules: [{level: Everything}]",
            "rules: [{level: Metadata, nonResourceURLs: ['/a*b']}]",
            "rules: [{level: Metadata, nonResourceURLs: ['a']}]",
            "rules: [{level: Metadata, nonResourceURLs: ['/a'], namespaces: [x]}]",
            "rules: [{level: Metadata, unknown: 1}]",
        ] {
            assert!(Policy::parse(&format!("{header}{rest}")).is_err(), "{rest}");
        }
    }

    proptest! {
        /// Whatever is asked, a rule without conditions catches it, and rules behind that say nothing.
        #[test]
        fn a_rule_without_conditions_catches_all(
            verb in "[a-z]{1,8}", resource in "[a-z]{1,8}", path in "/[a-z/]{0,12}", is_resource: bool,
            namespace in "[a-z]{0,4}",
        ) {
            let text = "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Request}, {level: None}]}";
            let policy = Policy::parse(text).expect("a policy");
            let user = UserInfo::new("u", [""; 0]);
            let attributes = Attributes {
                is_resource,
                path: &path,
                namespace: &namespace,
                ..Attributes::for_resource(&user, &verb, "", &resource)
            };
            prop_assert_eq!(policy.judge(&attributes).level, Level::Request);
        }
    }
}
