//! `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::cipher::{self, Key};
use super::kms::{Endpoint, Kms, Needed, Opening};

/// What is wrong with a configuration. Keys never show.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("the encryption configuration can't be read: {0}")]
    Read(#[from] serde_yaml::Error),
    /// It says something that can't be done.
    #[error("the encryption configuration: {0}")]
    Content(String),
}

/// A plug-in answers within this unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderEntry {
    identity: Option<Empty>,
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    kms: Option<KmsEntry>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct KmsEntry {
    api_version: String,
    name: String,
    endpoint: String,
    timeout: Option<String>,
    cachesize: Option<serde_yaml::Value>,
}

#[derive(Deserialize)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: Vec<NamedKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedKey {
    name: String,
    secret: String,
}

/// The ways of one group of resources. Flat: the keys of all providers in order.
pub(super) struct Providers(Vec<Provider>);

enum Provider {
    Identity,
    Key(Key),
    Kms(Arc<Kms>),
}

/// What reading a value came to.
pub(super) enum Found {
    /// It is in the clear (`None`: stored as it is), and whether another than the first had written it.
    Value(Option<Vec<u8>>, bool),
    /// A KMS plug-in must be asked first.
    Needs(Box<Needed>),
}

impl Providers {
    /// Encrypts with the first; `None`: it is stored as it is.
    pub(super) fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Option<Vec<u8>>, String> {
        match self.0.first() {
            None | Some(Provider::Identity) => Ok(None),
            Some(Provider::Key(key)) => {
                key.seal(plain, context).map(Some).ok_or_else(|| format!("{} does not encrypt", key.prefix()))
            }
            Some(Provider::Kms(kms)) => kms.seal(plain, context).map(Some),
        }
    }

    /// Decrypts.
    pub(super) fn open(&self, value: &[u8], context: &[u8]) -> Result<Found, String> {
        let mut tried = None;
        for (index, provider) in self.0.iter().enumerate() {
            match provider {
                Provider::Identity if !cipher::is_sealed(value) => return Ok(Found::Value(None, index > 0)),
                Provider::Identity => {}
                Provider::Key(key) => {
                    let Some(sealed) = key.strip(value) else { continue };
                    match key.open(sealed, context) {
                        Some(plain) => return Ok(Found::Value(Some(plain), index > 0)),
                        None => tried = Some(key.prefix()),
                    }
                }
                Provider::Kms(kms) => {
                    let Some(sealed) = kms.strip(value) else { continue };
                    return kms.open(sealed, context).map_err(|why| format!("{}: {why}", kms.prefix())).map(
                        |opening| match opening {
                            Opening::Open(plain, stale) => Found::Value(Some(plain), stale || index > 0),
                            Opening::Needs(needed) => Found::Needs(needed),
                        },
                    );
                }
            }
        }
        Err(match tried {
            Some(prefix) => format!("the key {prefix} does not open it: it is another key of that name"),
            None if cipher::is_sealed(value) => {
                let name: Vec<&str> =
                    std::str::from_utf8(value.get(..value.len().min(256)).unwrap_or_default())
                        .unwrap_or_else(|error| {
                            std::str::from_utf8(value.get(..error.valid_up_to()).unwrap_or_default())
                                .unwrap_or_default()
                        })
                        .splitn(6, ':')
                        .take(5)
                        .collect();
                format!("it was written with {}, which is not configured", name.join(":"))
            }
            None => "it is not encrypted, and the identity provider is not configured".to_owned(),
        })
    }
}

struct Rule {
    resources: Vec<String>,
    providers: Providers,
}

impl Rule {
    fn covers(&self, group: &str, resource: &str) -> bool {
        self.resources.iter().any(|pattern| {
            let (name, of) = pattern.split_once('.').unwrap_or((pattern, ""));
            (name == "*" || name == resource) && ((name == "*" && of == "*") || of == group)
        })
    }
}

/// A configuration.
pub struct Config {
    rules: Vec<Rule>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("rules", &self.rules.len()).finish()
    }
}

impl Config {
    /// Reads YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: File = serde_yaml::from_str(text)?;
        let wrong = |why: String| ConfigError::Content(why);
        if file.kind != "EncryptionConfiguration" || file.api_version != "apiserver.config.k8s.io/v1" {
            return Err(wrong(format!(
                "it is a {} of {}, not an EncryptionConfiguration of apiserver.config.k8s.io/v1",
                file.kind, file.api_version
            )));
        }
        let mut rules = Vec::new();
        let mut plugins: Vec<String> = Vec::new();
        for (index, entry) in file.resources.into_iter().enumerate() {
            let at = |what: String| wrong(format!("resources[{index}]: {what}"));
            if entry.resources.is_empty() || entry.providers.is_empty() {
                return Err(at("it names no resource or no provider".into()));
            }
            for pattern in &entry.resources {
                check(pattern).map_err(at)?;
            }
            let mut providers = Vec::new();
            for provider in entry.providers {
                if let Some(kms) = &provider.kms {
                    if plugins.contains(&kms.name) {
                        let name = &kms.name;
                        return Err(at(format!("duplicate KMS provider name {name}, names must be unique")));
                    }
                    plugins.push(kms.name.clone());
                }
                providers.extend(read(provider).map_err(at)?);
            }
            rules.push(Rule { resources: entry.resources, providers: Providers(providers) });
        }
        Ok(Self { rules })
    }

    /// The KMS plug-ins.
    pub(super) fn plugins(&self) -> impl Iterator<Item = &Arc<Kms>> {
        self.rules.iter().flat_map(|rule| &rule.providers.0).filter_map(|provider| match provider {
            Provider::Kms(kms) => Some(kms),
            _ => None,
        })
    }

    /// Goes on with the plug-ins of another configuration, with all they have decrypted, where they are the
    /// same.
    pub(super) fn adopt(&mut self, other: &Self) {
        for provider in self.rules.iter_mut().flat_map(|rule| &mut rule.providers.0) {
            if let Provider::Kms(kms) = provider
                && let Some(known) = other.plugins().find(|known| known.is_like(kms))
            {
                *kms = Arc::clone(known);
            }
        }
    }

    /// The first rule that covers a resource counts.
    pub(super) fn providers(&self, group: &str, resource: &str) -> Option<&Providers> {
        self.rules.iter().find(|rule| rule.covers(group, resource)).map(|rule| &rule.providers)
    }
}

fn check(pattern: &str) -> Result<(), String> {
    let known = !pattern.is_empty() && (pattern != "*") && !pattern.contains('/');
    let starred = pattern.starts_with("*.") || !pattern.contains('*');
    if known && starred { Ok(()) } else { Err(format!("{pattern:?} names no resource")) }
}

fn read(entry: ProviderEntry) -> Result<Vec<Provider>, String> {
    let keyed = [("aesgcm", entry.aesgcm), ("aescbc", entry.aescbc), ("secretbox", entry.secretbox)];
    let mut given: Vec<(&str, Keys)> =
        keyed.into_iter().filter_map(|(name, keys)| Some((name, keys?))).collect();
    match (given.pop(), given.is_empty(), entry.identity, entry.kms) {
        (None, _, Some(_), None) => Ok(vec![Provider::Identity]),
        (None, _, None, Some(kms)) => Ok(vec![Provider::Kms(Arc::new(kms.read()?))]),
        (Some((provider, keys)), true, None, None) => {
            if keys.keys.is_empty() {
                return Err(format!("{provider} has no keys"));
            }
            let mut out = Vec::new();
            let mut names: Vec<String> = Vec::new();
            for NamedKey { name, secret } in keys.keys {
                if name.is_empty() || name.contains(':') || names.contains(&name) {
                    return Err(format!(
                        "{provider}: the name {name:?} of a key is empty, holds a colon or is twice there"
                    ));
                }
                let secret = STANDARD
                    .decode(secret.trim())
                    .map_err(|_| format!("{provider}: the secret of {name:?} is not base64"))?;
                out.push(Provider::Key(Key::new(provider, &name, &secret)?));
                names.push(name);
            }
            Ok(out)
        }
        _ => Err("each entry of providers names exactly one".into()),
    }
}

impl KmsEntry {
    fn read(self) -> Result<Kms, String> {
        match self.api_version.as_str() {
            "v2" => {}
            // Who does not say which version means the first, as upstream has it.
            "" | "v1" => {
                return Err("KMSv1 is deprecated and will only receive security updates going forward. Use \
                            KMSv2 instead: set apiVersion: v2"
                    .to_owned());
            }
            _ => {
                return Err(
                    "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported"
                        .to_owned(),
                );
            }
        }
        if self.name.is_empty() {
            return Err("kms: name is a mandatory field for a provider".to_owned());
        }
        if self.name.contains(':') {
            return Err(format!("invalid KMS provider name {}, must not contain ':'", self.name));
        }
        if self.cachesize.is_some() {
            return Err("kms: cachesize is not supported in v2".to_owned());
        }
        if self.endpoint.is_empty() {
            return Err("endpoint is a mandatory field for a kms".to_owned());
        }
        let timeout = match &self.timeout {
            None => TIMEOUT,
            Some(text) => text
                .parse::<jiff::SignedDuration>()
                .ok()
                .and_then(|timeout| Duration::try_from(timeout).ok())
                .filter(|timeout| !timeout.is_zero())
                .ok_or("kms: timeout should be a positive value")?,
        };
        Ok(Kms::new(&self.name, Endpoint::parse(&self.endpoint)?, timeout))
    }
}
