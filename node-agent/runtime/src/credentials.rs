//! Registry credentials as pull secrets carry them.

use std::collections::BTreeMap;

use base64::Engine as _;

/// A user and a password, or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// An identity token, which replaces the password at a token service.
    pub identity_token: Option<String>,
}

// Written by hand: a derived one would print the password into a log.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credential {
    pub(crate) fn basic(&self) -> String {
        let pair = format!("{}:{}", self.username, self.password);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }
}

/// The credentials a pod may pull with, by registry and path prefix.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    entries: Vec<(String, Credential)>,
}

#[derive(serde::Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Auth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
}

impl Keyring {
    /// Adds a `.dockerconfigjson` document (or the old `.dockercfg`, which is only its inner map).
    pub fn add_docker_config(&mut self, document: &[u8]) -> Result<(), serde_json::Error> {
        let config = match serde_json::from_slice::<DockerConfig>(document) {
            Ok(config) if !config.auths.is_empty() => config.auths,
            _ => serde_json::from_slice::<BTreeMap<String, Auth>>(document)?,
        };
        for (registry, auth) in config {
            if let Some(credential) = auth.credential() {
                self.entries.push((normalise(&registry), credential));
            }
        }
        Ok(())
    }

    /// The credentials that fit `host/repository`, the longest prefix first.
    #[must_use]
    pub fn lookup(&self, host: &str, repository: &str) -> Vec<&Credential> {
        let target = format!("{host}/{repository}");
        let mut found: Vec<_> = self.entries.iter().filter(|(key, _)| matches(key, &target)).collect();
        found.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
        found.into_iter().map(|(_, credential)| credential).collect()
    }
}

impl Auth {
    fn credential(self) -> Option<Credential> {
        let decoded = self.auth.and_then(|auth| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            text.split_once(':').map(|(u, p)| (u.to_owned(), p.trim_end_matches('\0').to_owned()))
        });
        let (username, password) = decoded
            .or_else(|| self.username.zip(self.password))
            .or_else(|| self.identitytoken.is_some().then(Default::default))?;
        Some(Credential { username, password, identity_token: self.identitytoken })
    }
}

fn normalise(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// A key is a host, optionally with a path prefix; `*` stands for one label of the host.
fn matches(key: &str, target: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = target.split_once('/').unwrap_or((target, ""));
    let (key_labels, labels): (Vec<_>, Vec<_>) = (key_host.split('.').collect(), host.split('.').collect());
    key_labels.len() == labels.len()
        && key_labels.iter().zip(&labels).all(|(k, l)| *k == "*" || k == l)
        && (key_path.is_empty()
            || path == key_path
            || path.strip_prefix(key_path).is_some_and(|r| r.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_and_wildcards_match_one_label() {
        let mut keyring = Keyring::default();
        let auth = base64::engine::general_purpose::STANDARD.encode("u:p:q");
        let document = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": auth},
            "r.example.com/team": {"username": "team", "password": "x"},
            "*.example.com": {"username": "any", "password": "x"},
        }});
        keyring.add_docker_config(document.to_string().as_bytes()).unwrap();
        let names =
            |host, repo| keyring.lookup(host, repo).iter().map(|c| c.username.clone()).collect::<Vec<_>>();
        assert_eq!(names("docker.io", "library/x"), ["u"]);
        assert_eq!(keyring.lookup("docker.io", "library/x")[0].password, "p:q");
        assert_eq!(names("r.example.com", "team/app"), ["team", "any"]);
        assert_eq!(names("r.example.com", "teams/app"), ["any"]);
        assert!(names("a.r.example.com", "x").is_empty());
    }

    #[test]
    fn a_password_is_never_printed() {
        let c = Credential { username: "u".into(), password: "hunter2".into(), identity_token: None };
        assert!(!format!("{c:?}").contains("hunter2"));
    }
}
