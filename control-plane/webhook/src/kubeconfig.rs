//! The kubeconfig files that configure webhooks of the server itself (authentication, authorization,
//! audit): the cluster is the webhook, the user is what the server presents to it.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::{Credentials, Endpoint, Error, Trust};

/// No such file is longer.
const MAX_FILE: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Default, Deserialize)]
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
    username: Option<String>,
    password: Option<String>,
}

/// Reads the endpoint that a kubeconfig file names, with its credentials.
pub fn read(path: &Path) -> Result<Endpoint, Error> {
    let content = text(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&content, folder).map_err(|error| Error::Config(format!("{}: {error}", path.display())))
}

pub(crate) fn parse(text: &str, folder: &Path) -> Result<Endpoint, Error> {
    let missing = |what: &str, name: &str| Error::Config(format!("no {what} {name:?}"));
    let file: File = serde_yaml::from_str(text).map_err(|error| Error::Config(error.to_string()))?;
    let context = file.contexts.into_iter().find(|context| context.name == file.current_context);
    let context = context.ok_or_else(|| missing("context", &file.current_context))?.context;
    let cluster = file.clusters.into_iter().find(|cluster| cluster.name == context.cluster);
    let cluster = cluster.ok_or_else(|| missing("cluster", &context.cluster))?.cluster;
    let user = match context.user.as_str() {
        "" => User::default(),
        name => {
            let user = file.users.into_iter().find(|user| user.name == name);
            user.ok_or_else(|| missing("user", name))?.user
        }
    };
    let mut endpoint = Endpoint::url(&cluster.server)?;
    let authority =
        pem(folder, cluster.certificate_authority_data.as_ref(), cluster.certificate_authority.as_ref())?;
    if cluster.insecure_skip_tls_verify {
        endpoint = endpoint.with_trust(Trust::Unverified);
    } else if let Some(authority) = authority {
        endpoint = endpoint.with_trust(Trust::Bundle(authority.into_bytes().into()));
    }
    if let Some(name) = cluster.tls_server_name.filter(|name| !name.is_empty()) {
        endpoint = endpoint.with_server_name(&name);
    }
    let cert = pem(folder, user.client_certificate_data.as_ref(), user.client_certificate.as_ref())?;
    let key = pem(folder, user.client_key_data.as_ref(), user.client_key.as_ref())?;
    let certificate = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(Error::Config("a client certificate needs its key, and the reverse".to_owned())),
    };
    Ok(endpoint.with_credentials(Arc::new(Credentials {
        certificate,
        token: user.token.filter(|token| !token.is_empty()),
        token_file: user.token_file.filter(|file| !file.is_empty()).map(|file| folder.join(file)),
        basic: user.username.zip(user.password),
        ..Credentials::default()
    })))
}

fn pem(folder: &Path, data: Option<&String>, file: Option<&String>) -> Result<Option<String>, Error> {
    // Inline data wins over a file, as in other clients.
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let bad = |error: &dyn std::fmt::Display| Error::Config(format!("inline data: {error}"));
        let bytes = STANDARD.decode(data.trim()).map_err(|error| bad(&error))?;
        return String::from_utf8(bytes).map(Some).map_err(|error| bad(&error));
    }
    file.filter(|file| !file.is_empty()).map(|file| text(&folder.join(file))).transpose()
}

fn text(path: &Path) -> Result<String, Error> {
    let fail = |error: &dyn std::fmt::Display| Error::Config(format!("{}: {error}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| fail(&error))?.len();
    if size > MAX_FILE {
        return Err(fail(&format!("{size} bytes are too many")));
    }
    std::fs::read_to_string(path).map_err(|error| fail(&error))
}
