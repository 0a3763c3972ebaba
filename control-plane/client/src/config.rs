//! Where the server is and who we are. Secrets do not show in `Debug`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Result;

/// How to reach an API server over the network.
#[derive(Clone)]
pub struct ClientConfig {
    /// `https://HOST:PORT`, or `http://` for the insecure loopback port.
    pub server: String,
    /// The authority that signed the server's certificate.
    pub ca_pem: Option<String>,
    /// Our certificate chain.
    pub client_cert_pem: Option<String>,
    /// Our key.
    pub client_key_pem: Option<String>,
    /// Our certificate chain, read again from this file from time to time (nodes' certificates rotate).
    pub client_cert_file: Option<PathBuf>,
    /// Our key, read with it.
    pub client_key_file: Option<PathBuf>,
    /// Believe any server: only to read what is checked by other means. Never with credentials.
    pub insecure_skip_tls_verify: bool,
    /// Bearer token.
    pub token: Option<String>,
    /// Bearer token read again from this file from time to time (projected tokens rotate).
    pub token_file: Option<PathBuf>,
    /// The name to check in the server's certificate instead of the host.
    pub tls_server_name: Option<String>,
    /// `User-Agent`; its first word before a slash becomes the default field manager.
    pub user_agent: String,
    /// How long a request other than a watch may take.
    pub timeout: Duration,
}

impl ClientConfig {
    /// The default configuration for this server.
    pub fn new(server: impl Into<String>) -> Self {
        Self { server: server.into(), ..Self::default() }
    }

    /// Reads the current context of a kubeconfig file.
    pub fn from_kubeconfig(path: impl AsRef<Path>) -> Result<Self> {
        crate::kubeconfig::Kubeconfig::read(path.as_ref())?.client_config(None)
    }

    /// Reads a named context of a kubeconfig file.
    pub fn from_kubeconfig_context(path: impl AsRef<Path>, context: &str) -> Result<Self> {
        crate::kubeconfig::Kubeconfig::read(path.as_ref())?.client_config(Some(context))
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            server: "https://127.0.0.1:6443".into(),
            ca_pem: None,
            client_cert_pem: None,
            client_key_pem: None,
            client_cert_file: None,
            client_key_file: None,
            insecure_skip_tls_verify: false,
            token: None,
            token_file: None,
            tls_server_name: None,
            user_agent: "skep".into(),
            timeout: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("server", &self.server)
            .field("user_agent", &self.user_agent)
            .field("has_client_key", &(self.client_key_pem.is_some() || self.client_key_file.is_some()))
            .field("has_token", &(self.token.is_some() || self.token_file.is_some()))
            .finish_non_exhaustive()
    }
}
