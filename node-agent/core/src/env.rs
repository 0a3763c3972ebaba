//! The environment and the command line of a container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Secret};

/// Why an environment cannot be built yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A ConfigMap or Secret is not there.
    #[error("{kind} \"{name}\" not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It is there, without the key.
    #[error("couldn't find key {key} in {kind} {name}")]
    MissingKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace and name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field reference that cannot be answered.
    #[error("{0}")]
    Field(String),
}

/// The objects the environment refers to, by name; the caller fetched them.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps of the pod's namespace.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets of the pod's namespace.
    pub secrets: BTreeMap<String, Secret>,
}

impl Sources {
    fn config_value(&self, name: &str, key: &str) -> Option<Option<String>> {
        let map = self.config_maps.get(name)?;
        Some(map.data.as_ref().and_then(|d| d.get(key)).cloned())
    }

    fn secret_value(&self, name: &str, key: &str) -> Option<Option<String>> {
        let secret = self.secrets.get(name)?;
        let bytes = secret.data.as_ref().and_then(|d| d.get(key));
        Some(bytes.map(|b| String::from_utf8_lossy(&b.0).into_owned()))
    }
}

/// The names of (ConfigMaps, Secrets) that a container's environment refers to.
#[must_use]
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    for list in [&mut maps, &mut secrets] {
        list.sort();
        list.dedup();
    }
    (maps, secrets)
}

/// A reference of an `env` entry that only the node can answer.
#[derive(Clone, Copy, Debug)]
pub enum Reference<'a> {
    /// `fieldRef`.
    Field(&'a str),
    /// `resourceFieldRef`.
    Resource(&'a k8s_openapi::api::core::v1::ResourceFieldSelector),
}

/// Builds the environment: services first, then `envFrom`, then `env`, each overriding what came before;
/// `$(NAME)` in a value refers to what stands before it.
pub fn build(
    container: &Container,
    services: &BTreeMap<String, String>,
    sources: &Sources,
    mut lookup: impl FnMut(Reference<'_>) -> Result<String, String>,
) -> Result<BTreeMap<String, String>, EnvError> {
    let missing = |kind, name: &str| EnvError::Missing { kind, name: name.to_owned() };
    let mut out = services.clone();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match sources.config_maps.get(&reference.name) {
                Some(map) => {
                    out.extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone())));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(missing("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match sources.secrets.get(&reference.name) {
                Some(secret) => {
                    out.extend(
                        secret.data.iter().flatten().map(|(k, v)| {
                            (format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())
                        }),
                    );
                }
                None if reference.optional == Some(true) => {}
                None => return Err(missing("secret", &reference.name)),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let Some(source) = &variable.value_from else {
            let value = expand(variable.value.as_deref().unwrap_or_default(), &out);
            out.insert(variable.name.clone(), value);
            continue;
        };
        let keyed = |found: Option<Option<String>>,
                     optional: Option<bool>,
                     kinds: (&'static str, &'static str),
                     name: &str,
                     key: &str| {
            match found {
                Some(Some(value)) => Ok(Some(value)),
                _ if optional == Some(true) => Ok(None),
                Some(None) => {
                    Err(EnvError::MissingKey { kind: kinds.1, name: name.to_owned(), key: key.to_owned() })
                }
                None => Err(missing(kinds.0, name)),
            }
        };
        let value = if let Some(r) = &source.config_map_key_ref {
            keyed(
                sources.config_value(&r.name, &r.key),
                r.optional,
                ("configmap", "ConfigMap"),
                &r.name,
                &r.key,
            )?
        } else if let Some(r) = &source.secret_key_ref {
            keyed(sources.secret_value(&r.name, &r.key), r.optional, ("secret", "Secret"), &r.name, &r.key)?
        } else if let Some(r) = &source.field_ref {
            Some(lookup(Reference::Field(&r.field_path)).map_err(EnvError::Field)?)
        } else if let Some(r) = &source.resource_field_ref {
            Some(lookup(Reference::Resource(r)).map_err(EnvError::Field)?)
        } else {
            None
        };
        if let Some(value) = value {
            out.insert(variable.name.clone(), value);
        }
    }
    Ok(out)
}

/// Replaces `$(NAME)`; `$$` is a dollar sign, and a reference that leads nowhere stays as it is.
#[must_use]
pub fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        if let Some((name, after)) = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')')) {
            match values.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
            continue;
        }
        out.push('$');
        rest = &rest[1..];
    }
    out.push_str(rest);
    out
}

/// The command line: the container's command and arguments over the image's.
#[must_use]
pub fn command(
    container: &Container,
    entrypoint: &[String],
    cmd: &[String],
    values: &BTreeMap<String, String>,
) -> Vec<String> {
    let expanded = |list: &[String]| list.iter().map(|a| expand(a, values)).collect::<Vec<_>>();
    let command = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    match (command.is_empty(), args.is_empty()) {
        (false, _) => [expanded(command), expanded(args)].concat(),
        (true, false) => [entrypoint.to_vec(), expanded(args)].concat(),
        (true, true) => [entrypoint, cmd].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn expansion() {
        let values = values(&[("A", "x"), ("B", "$(A)")]);
        for (text, expected) in [
            ("$(A)-$(B)", "x-$(A)"),
            ("$$(A)", "$(A)"),
            ("$(C) $(", "$(C) $("),
            ("$A $", "$A $"),
            ("$$$(A)$$", "$x$"),
        ] {
            assert_eq!(expand(text, &values), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_without_dollars_is_untouched(text in "[^$]*") {
            proptest::prop_assert_eq!(expand(&text, &BTreeMap::new()), text);
        }

        #[test]
        fn any_text_is_survived(text in "[$()A-C]*") {
            let out = expand(&text, &values(&[("A", "$(B)"), ("B", "")]));
            proptest::prop_assert!(out.len() <= text.len() * 4);
        }
    }

    #[test]
    fn sources_are_joined_in_order() {
        let container: Container = serde_json::from_value(json!({ "name": "c",
            "envFrom": [{ "prefix": "p.", "configMapRef": { "name": "m" } }, { "secretRef": { "name": "gone", "optional": true } }],
            "env": [
                { "name": "S", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
                { "name": "B", "value": "$(S)/$(p.a)/$(X_SERVICE_HOST)" },
                { "name": "N", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "O", "valueFrom": { "configMapKeyRef": { "name": "m", "key": "zz", "optional": true } } },
            ] }))
        .unwrap();
        assert_eq!(references(&container), (vec!["m".to_owned()], vec!["gone".to_owned(), "s".to_owned()]));
        let mut sources = Sources::default();
        sources
            .config_maps
            .insert("m".into(), serde_json::from_value(json!({ "data": { "a": "1" } })).unwrap());
        let services = values(&[("X_SERVICE_HOST", "h")]);
        let error = build(&container, &services, &sources, |_| Ok(String::new())).unwrap_err();
        assert_eq!(error.to_string(), "secret \"s\" not found");
        sources
            .secrets
            .insert("s".into(), serde_json::from_value(json!({ "data": { "k": "dg==" } })).unwrap());
        let env = build(&container, &services, &sources, |r| match r {
            Reference::Field(path) => Ok(path.to_owned()),
            Reference::Resource(_) => Err("no".to_owned()),
        })
        .unwrap();
        assert_eq!(env["B"], "v/1/h");
        assert_eq!(env["N"], "metadata.name");
        assert!(!env.contains_key("O"));
    }

    #[test]
    fn command_lines() {
        let image = (["ep".to_owned()], ["cmd".to_owned()]);
        let line = |spec: serde_json::Value| {
            let container: Container = serde_json::from_value(spec).unwrap();
            command(&container, &image.0, &image.1, &values(&[("A", "x")])).join(" ")
        };
        assert_eq!(line(json!({ "name": "c" })), "ep cmd");
        assert_eq!(line(json!({ "name": "c", "args": ["$(A)"] })), "ep x");
        assert_eq!(line(json!({ "name": "c", "command": ["own"] })), "own");
        assert_eq!(line(json!({ "name": "c", "command": ["own"], "args": ["y"] })), "own y");
    }
}
