//! Joining a cluster with a bootstrap token: the cluster is recognized, certificates are asked for, kept
//! in files of their own, and asked for again before they end.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use jiff::Timestamp;
use skep_auth::bootstrap_token::Token;
use skep_auth::certificates::{NewKey, not_after, not_before, signer};
use skep_client::{Client, ClientConfig};
use tokio_util::sync::CancellationToken;

mod discover;
mod request;

pub(crate) use discover::ca_hash;

const CA: &str = "ca.crt";
const SERVER: &str = "server";
const CLIENT: &str = "kubelet-client";
const SERVING: &str = "kubelet";

/// A pause after something failed.
const AGAIN: Duration = Duration::from_secs(10);
/// Certificates are looked at so often.
const LOOK: Duration = Duration::from_secs(60);

/// A token as it was given; what is printed of the options does not show it.
#[derive(Clone)]
struct Given(String);

impl From<&str> for Given {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How to find and recognize the cluster to join.
#[derive(Args, Clone, Debug)]
pub(crate) struct Join {
    /// The API server, `https://HOST:PORT`.
    #[arg(long, env = "SKEP_SERVER", value_name = "URL", conflicts_with = "credentials")]
    pub(crate) server: Option<String>,
    /// A bootstrap token (`skep token create` on the server). Only the first start needs it.
    #[arg(long, env = "SKEP_TOKEN", value_name = "ID.SECRET", requires = "server", hide_env_values = true)]
    token: Option<Given>,
    /// A file that holds the token, so that no process list shows it.
    #[arg(long, value_name = "FILE", requires = "server", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The key of the cluster's authority must have this hash, `sha256:…`.
    #[arg(long, env = "SKEP_CA_HASH", value_name = "HASH", requires = "server")]
    ca_hash: Option<String>,
}

/// What a node has once it has joined.
pub(crate) struct Joined {
    folder: PathBuf,
    server: String,
    node: String,
    address: IpAddr,
}

/// A node's certificate, as files.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(folder: &Path, name: &str) -> Self {
        Self { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) }
    }

    /// When the certificate should be exchanged: after four fifths of its life; at once when there is
    /// none of use.
    fn due(&self) -> Timestamp {
        let read = || {
            fs::metadata(&self.key).ok()?;
            let pem = fs::read(&self.certificate).ok()?;
            let (from, to) = (not_before(&pem)?.as_second(), not_after(&pem)?.as_second());
            Timestamp::from_second(from + (to - from) / 5 * 4).ok()
        };
        read().unwrap_or(Timestamp::MIN)
    }

    fn ended(&self) -> bool {
        let end = fs::read(&self.certificate).ok().and_then(|pem| not_after(&pem));
        end.is_none_or(|end| end <= Timestamp::now()) || !self.key.exists()
    }

    /// The key first: a reader that sees a pair that does not fit keeps what it has.
    fn write(&self, certificate: &str, key: &NewKey) -> Result<()> {
        for (path, text) in [(&self.key, key.pem()), (&self.certificate, certificate)] {
            let beside = path.with_extension("new");
            crate::kubeconfig::write_secret(&beside, text)?;
            fs::rename(&beside, path).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

impl Join {
    fn token(&self) -> Result<Option<Token>> {
        let text = match &self.token_file {
            Some(path) => Some(
                fs::read_to_string(path)
                    .with_context(|| format!("reading the token in {}", path.display()))?,
            ),
            None => self.token.as_ref().map(|given| given.0.clone()),
        };
        text.map(|text| Token::parse(text.trim()).context("the token is not of the form ID.SECRET"))
            .transpose()
    }

    /// Joins, unless this node has joined before and its certificate is still good.
    pub(crate) async fn join(
        &self,
        server: &str,
        folder: &Path,
        node: &str,
        address: IpAddr,
    ) -> Result<Joined> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("making {}", folder.display()))?;
        let joined = Joined {
            folder: folder.to_owned(),
            server: server.trim_end_matches('/').to_owned(),
            node: node.to_owned(),
            address,
        };
        let files = Files::of(folder, CLIENT);
        let same = fs::read_to_string(folder.join(SERVER)).is_ok_and(|known| known.trim() == joined.server);
        if same && !files.ended() && folder.join(CA).exists() {
            return Ok(joined);
        }
        let Some(token) = self.token()? else {
            bail!(
                "this node has not joined {server} yet: give it a token (`skep token create` on the server)"
            );
        };
        let ca = discover::authority(&joined.server, &token, self.ca_hash.as_deref()).await?;
        let client = Client::new(ClientConfig {
            ca_pem: Some(ca.clone()),
            token: Some(token.text()),
            user_agent: "skep-agent".to_owned(),
            ..ClientConfig::new(&joined.server)
        })?;
        let key = NewKey::generate()?;
        let asked = request::Asked { signer: signer::KUBELET_CLIENT, node, names: &[], addresses: &[] };
        let certificate = request::certificate(&client, &asked, &key).await?;
        crate::kubeconfig::write_secret(&folder.join(CA), &ca)?;
        files.write(&certificate, &key)?;
        crate::kubeconfig::write_secret(&folder.join(SERVER), &joined.server)?;
        tracing::info!(node, server = joined.server, "joined");
        Ok(joined)
    }
}

impl Joined {
    /// The authority of the cluster.
    pub(crate) fn ca_pem(&self) -> Result<String> {
        let path = self.folder.join(CA);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// The client configuration: it follows the files.
    pub(crate) fn client(&self) -> Result<ClientConfig> {
        let files = Files::of(&self.folder, CLIENT);
        Ok(ClientConfig {
            ca_pem: Some(self.ca_pem()?),
            client_cert_file: Some(files.certificate),
            client_key_file: Some(files.key),
            user_agent: "skep-agent".to_owned(),
            ..ClientConfig::new(&self.server)
        })
    }

    /// The files of the serving certificate. Until the cluster has signed one, a certificate of the
    /// node's own is in them, which nobody trusts.
    pub(crate) fn serving(&self) -> Result<(PathBuf, PathBuf)> {
        let files = Files::of(&self.folder, SERVING);
        if files.ended() {
            let key = NewKey::generate()?;
            files.write(&key.self_signed(&self.node)?, &key)?;
        }
        Ok((files.certificate, files.key))
    }

    /// Exchanges certificates before they end, until cancelled.
    pub(crate) async fn keep(self, client: Client, cancel: CancellationToken) {
        let mut pause = Duration::ZERO;
        // Cancel safe: what is written is written whole; a request that is left is asked again.
        while cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let work = self.renew(&client);
            match cancel.run_until_cancelled(work).await {
                Some(Ok(())) => pause = LOOK,
                Some(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "a certificate could not be renewed");
                    pause = AGAIN;
                }
                None => return,
            }
        }
    }

    async fn renew(&self, client: &Client) -> Result<()> {
        let now = Timestamp::now();
        let own = Files::of(&self.folder, CLIENT);
        if own.due() <= now {
            let asked = request::Asked {
                signer: signer::KUBELET_CLIENT,
                node: &self.node,
                names: &[],
                addresses: &[],
            };
            let key = NewKey::generate()?;
            let certificate = request::certificate(client, &asked, &key).await?;
            own.write(&certificate, &key)?;
            tracing::info!("the node's client certificate was renewed");
        }
        let serving = Files::of(&self.folder, SERVING);
        if serving.due() <= now || request::is_own(&serving.certificate) {
            let names = [self.node.clone()];
            let asked = request::Asked {
                signer: signer::KUBELET_SERVING,
                node: &self.node,
                names: &names,
                addresses: &[self.address],
            };
            let key = NewKey::generate()?;
            let certificate = request::certificate(client, &asked, &key).await?;
            serving.write(&certificate, &key)?;
            tracing::info!("the node has a new serving certificate");
        }
        Ok(())
    }
}
