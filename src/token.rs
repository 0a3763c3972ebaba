//! `skep token`: bootstrap tokens, by which machines join.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use skep_auth::bootstrap_token::{SECRET_PREFIX, SECRET_TYPE, Stored, Token, is_bootstrap_group};
use skep_client::{Client, ClientConfig, DeleteParams, ListParams};

use crate::folders::Folders;
use crate::join::ca_hash;
use crate::runtime;

/// The group of tokens that make nodes, as kubeadm names it.
const NODES: &str = "system:bootstrappers:kubeadm:default-node-token";

/// `skep token`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    folders: Folders,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make a token, and print the command that joins a machine with it.
    Create {
        /// The token to make, `ID.SECRET`; a new one by default.
        token: Option<String>,
        /// How long it is good; 0 is for ever.
        #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = duration)]
        ttl: Duration,
        /// What it is for.
        #[arg(long, default_value = "", value_name = "TEXT")]
        description: String,
        /// Further groups of its holder, `system:bootstrappers:…`.
        #[arg(long, value_delimiter = ',', default_value = NODES, value_name = "GROUP")]
        groups: Vec<String>,
        /// Print the token only.
        #[arg(long)]
        quiet: bool,
    },
    /// Show the tokens there are, without their secret halves.
    List,
    /// Delete a token, by its id or whole.
    Delete {
        /// `ID` or `ID.SECRET`.
        token: String,
    },
}

/// Reads `24h`, `0`.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    skep_api::duration::parse(text).ok_or_else(|| "a duration is written like 24h or 90m".to_owned())
}

/// `skep token`.
pub(crate) fn main(options: &Options) -> Result<()> {
    runtime::run(async |_| {
        let path = options.folders.admin_kubeconfig();
        if !path.exists() {
            bail!("{} is not there: run this where the server runs", path.display());
        }
        let config = ClientConfig::from_kubeconfig(&path)?;
        let client = Client::new(config.clone())?;
        match &options.command {
            Command::Create { token, ttl, description, groups, quiet } => {
                let token = match token {
                    Some(text) => Token::parse(text).context("the token is not of the form ID.SECRET")?,
                    None => Token::generate(),
                };
                if let Some(group) = groups.iter().find(|group| !is_bootstrap_group(group)) {
                    bail!("the group {group} does not begin with system:bootstrappers:");
                }
                let end = if ttl.is_zero() {
                    String::new()
                } else {
                    (Timestamp::now() + *ttl).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
                };
                let secret: Secret = serde_json::from_value(token.to_secret(description, &end, groups))?;
                client.namespaced::<Secret>("kube-system").create(&secret).await?;
                if *quiet {
                    println!("{}", token.text());
                } else {
                    let ca = config.ca_pem.as_deref().context("the kubeconfig names no authority")?;
                    let server = reachable(&client, &config).await;
                    println!(
                        "skep agent --server {server} --token {} --ca-hash {}",
                        token.text(),
                        ca_hash(ca)?
                    );
                }
                Ok(())
            }
            Command::List => list(&client).await,
            Command::Delete { token } => {
                let id = token.split('.').next().unwrap_or_default();
                let name = format!("{SECRET_PREFIX}{id}");
                client.namespaced::<Secret>("kube-system").delete(&name, &DeleteParams::default()).await?;
                println!("token {id} deleted");
                Ok(())
            }
        }
    })
}

/// The server's address as other machines reach it: what the cluster says of itself.
async fn reachable(client: &Client, config: &ClientConfig) -> String {
    let info = client
        .namespaced::<k8s_openapi::api::core::v1::ConfigMap>("kube-public")
        .get_opt("cluster-info")
        .await;
    let text = info.ok().flatten().and_then(|map| map.data?.remove("kubeconfig"));
    let line =
        text.as_deref().and_then(|text| text.lines().find_map(|line| line.trim().strip_prefix("server: ")));
    line.map_or_else(|| config.server.clone(), str::to_owned)
}

async fn list(client: &Client) -> Result<()> {
    let of_type = ListParams::fields(format!("type={SECRET_TYPE}"));
    let secrets = client.namespaced::<Secret>("kube-system").list(&of_type).await?;
    println!("{:<8} {:<22} {:<24} DESCRIPTION", "ID", "EXPIRES", "USAGES");
    for secret in secrets.items {
        let Some(stored) = Stored::read(&serde_json::to_value(&secret)?) else { continue };
        let end = stored
            .expiration
            .map_or_else(|| "never".to_owned(), |end| end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let usages = [(stored.authentication, "authentication"), (stored.signing, "signing")];
        let usages: Vec<&str> = usages.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        println!("{:<8} {end:<22} {:<24} {}", stored.token.id, usages.join(","), stored.description);
    }
    Ok(())
}
