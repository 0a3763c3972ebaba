//! Kubeconfig files: reading the parts a client needs, and writing one for a single cluster.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use crate::config::ClientConfig;
use crate::error::{Error, Result};

const MAX_FILE: u64 = 4 << 20;

/// A kubeconfig file.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    /// Relative files are relative to this folder.
    #[serde(skip)]
    folder: PathBuf,
}

#[derive(Clone, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Clone, Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Clone, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
}

#[derive(Clone, Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    // The format spells this one in camel case.
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
}

impl Kubeconfig {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_limited(path)?;
        let mut config = Self::parse(&text).map_err(|e| Error::Config(format!("{}: {e}", path.display())))?;
        config.folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(config)
    }

    /// Parses the text of a file.
    pub fn parse(text: &str) -> Result<Self> {
        serde_yaml::from_str(text).map_err(|e| Error::Config(e.to_string()))
    }

    /// The names of the contexts.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.contexts.iter().map(|c| c.name.as_str())
    }

    /// The client configuration of a context, the current one by default.
    pub fn client_config(&self, context: Option<&str>) -> Result<ClientConfig> {
        let missing = |what: &str, name: &str| Error::Config(format!("kubeconfig has no {what} {name:?}"));
        let name = context.unwrap_or(&self.current_context);
        let context =
            &self.contexts.iter().find(|c| c.name == name).ok_or_else(|| missing("context", name))?.context;
        let cluster = self.clusters.iter().find(|c| c.name == context.cluster);
        let cluster = &cluster.ok_or_else(|| missing("cluster", &context.cluster))?.cluster;
        let user = match context.user.as_str() {
            "" => User::default(),
            name => {
                let user = self.users.iter().find(|u| u.name == name);
                user.ok_or_else(|| missing("user", name))?.user.clone()
            }
        };
        Ok(ClientConfig {
            server: cluster.server.clone(),
            ca_pem: self
                .pem(cluster.certificate_authority_data.as_ref(), cluster.certificate_authority.as_ref())?,
            client_cert_pem: self
                .pem(user.client_certificate_data.as_ref(), user.client_certificate.as_ref())?,
            client_key_pem: self.pem(user.client_key_data.as_ref(), user.client_key.as_ref())?,
            token: user.token.filter(|t| !t.is_empty()),
            token_file: user.token_file.map(|f| self.folder.join(f)),
            tls_server_name: cluster.tls_server_name.clone(),
            ..ClientConfig::default()
        })
    }

    /// The authority of the first cluster (PEM): what a file says that names no user.
    pub fn authority(&self) -> Result<Option<String>> {
        let Some(cluster) = self.clusters.first().map(|named| &named.cluster) else { return Ok(None) };
        self.pem(cluster.certificate_authority_data.as_ref(), cluster.certificate_authority.as_ref())
    }

    fn pem(&self, data: Option<&String>, file: Option<&String>) -> Result<Option<String>> {
        // Inline data wins over a file, as in other clients.
        if let Some(data) = data.filter(|d| !d.is_empty()) {
            let bytes =
                STANDARD.decode(data.trim()).map_err(|e| Error::Config(format!("inline data: {e}")))?;
            let text = String::from_utf8(bytes).map_err(|e| Error::Config(format!("inline data: {e}")))?;
            return Ok(Some(text));
        }
        file.filter(|f| !f.is_empty()).map(|f| read_limited(&self.folder.join(f))).transpose()
    }
}

fn read_limited(path: &Path) -> Result<String> {
    let fail = |e: &dyn std::fmt::Display| Error::Config(format!("{}: {e}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| fail(&e))?.len();
    if size > MAX_FILE {
        return Err(fail(&format!("{size} bytes are too many")));
    }
    std::fs::read_to_string(path).map_err(|e| fail(&e))
}

/// Writes a kubeconfig for one cluster and one user with a client certificate. The file is readable
/// by its owner only and appears whole or not at all.
pub fn write(path: &Path, server: &str, ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<()> {
    let fail = |e: &dyn std::fmt::Display| Error::Config(format!("{}: {e}", path.display()));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "skep",
        "contexts": [{"name": "skep", "context": {"cluster": "skep", "user": "skep"}}],
        "clusters": [{"name": "skep", "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(ca_pem),
        }}],
        "users": [{"name": "skep", "user": {
            "client-certificate-data": STANDARD.encode(cert_pem),
            "client-key-data": STANDARD.encode(key_pem),
        }}],
    });
    let text = serde_yaml::to_string(&config).map_err(|e| fail(&e))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| fail(&e))?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().map_err(|e| fail(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_choose_cluster_and_user() {
        let text = r"
current-context: b
contexts:
- {name: a, context: {cluster: one, user: u}}
- {name: b, context: {cluster: two, user: u, namespace: x}}
clusters:
- {name: one, cluster: {server: https://one:1}}
- {name: two, cluster: {server: https://two:2, certificate-authority-data: Q0E=, tls-server-name: n}}
users:
- {name: u, user: {token: secret}}
";
        let config = Kubeconfig::parse(text).expect("parses");
        let two = config.client_config(None).expect("current");
        assert_eq!(two.server, "https://two:2");
        assert_eq!(two.ca_pem.as_deref(), Some("CA"));
        assert_eq!(two.tls_server_name.as_deref(), Some("n"));
        assert_eq!(two.token.as_deref(), Some("secret"));
        assert!(!format!("{two:?}").contains("secret"));
        assert_eq!(config.client_config(Some("a")).expect("named").server, "https://one:1");
        assert!(config.client_config(Some("c")).is_err());
    }
}
