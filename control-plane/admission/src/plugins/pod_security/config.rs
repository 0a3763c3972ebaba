//! `PodSecurityConfiguration`: what applies without labels, and who is exempt.

use std::path::{Path, PathBuf};

use serde_json::Value;
use skep_api::object::ObjectExt;
use skep_machinery::codec::{self, Format};

use super::policy::{Level, Policy, Standard, Version};

/// What the plug-in is told.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) defaults: Policy,
    namespaces: Vec<String>,
    users: Vec<String>,
    runtime_classes: Vec<String>,
}

/// No such file is longer.
const MOST_BYTES: u64 = 4 << 20;

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that is not allowed.
    #[error("PodSecurityConfiguration: {field}: {value:?} is not allowed")]
    Value {
        /// Where.
        field: String,
        /// What is there.
        value: String,
    },
    /// A file that can't be read, or is no YAML.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        let none = Standard::PRIVILEGED;
        Self {
            defaults: Policy { enforce: none, audit: none, warn: none },
            namespaces: Vec::new(),
            users: Vec::new(),
            runtime_classes: Vec::new(),
        }
    }
}

impl Config {
    /// Reads what an `AdmissionConfiguration` says of this plug-in; nothing said is the default. The
    /// configuration may be inside of the file or in another that it names.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let file = yaml(path)?;
        let plugins = file.items(&["plugins"]);
        let (own, others): (Vec<&Value>, Vec<&Value>) =
            plugins.iter().partition(|plugin| plugin.text(&["name"]) == "PodSecurity");
        if let Some(other) = others.first() {
            let why = format!("{:?} is no plug-in that is configured", other.text(&["name"]));
            return Err(ConfigError::File { path: path.to_owned(), why });
        }
        let Some(plugin) = own.first() else { return Ok(Self::default()) };
        match plugin.text(&["path"]) {
            "" => Self::from_object(plugin.at(&["configuration"]).unwrap_or(&Value::Null)),
            named => Self::from_object(&yaml(&path.parent().unwrap_or(Path::new("")).join(named))?),
        }
    }

    /// Reads a `PodSecurityConfiguration` of `pod-security.admission.config.k8s.io`.
    pub fn from_object(object: &Value) -> Result<Self, ConfigError> {
        let bad = |field: &str, value: &str| ConfigError::Value {
            field: field.to_owned(),
            value: value.to_owned(),
        };
        if object.text(&["kind"]) != "PodSecurityConfiguration" {
            return Err(bad("kind", object.text(&["kind"])));
        }
        let standard = |mode: &str| {
            let version_field = format!("{mode}-version");
            let (level, version) =
                (object.text(&["defaults", mode]), object.text(&["defaults", version_field.as_str()]));
            let mut standard = Standard::PRIVILEGED;
            if !level.is_empty() {
                standard.level = Level::parse(level).ok_or_else(|| bad(mode, level))?;
            }
            if !version.is_empty() {
                standard.version = Version::parse(version).ok_or_else(|| bad(&version_field, version))?;
            }
            Ok(standard)
        };
        let list = |field: &str| {
            let items = object.items(&["exemptions", field]).iter();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Ok(Self {
            defaults: Policy {
                enforce: standard("enforce")?,
                audit: standard("audit")?,
                warn: standard("warn")?,
            },
            namespaces: list("namespaces"),
            users: list("usernames"),
            runtime_classes: list("runtimeClasses"),
        })
    }

    pub(super) fn exempts_namespace(&self, name: &str) -> bool {
        self.namespaces.iter().any(|exempt| exempt == name)
    }

    pub(super) fn exempts_user(&self, name: &str) -> bool {
        self.users.iter().any(|exempt| exempt == name)
    }

    pub(super) fn exempts_runtime(&self, pod: &Value) -> bool {
        let class = pod.text(&["spec", "runtimeClassName"]);
        !class.is_empty() && self.runtime_classes.iter().any(|exempt| exempt == class)
    }
}

fn yaml(path: &Path) -> Result<Value, ConfigError> {
    let fail =
        |why: &dyn std::fmt::Display| ConfigError::File { path: path.to_owned(), why: why.to_string() };
    if std::fs::metadata(path).map_err(|error| fail(&error))?.len() > MOST_BYTES {
        return Err(fail(&"too long"));
    }
    let text = std::fs::read(path).map_err(|error| fail(&error))?;
    codec::parse_untyped(Format::Yaml, &text).map_err(|error| fail(&error))
}
