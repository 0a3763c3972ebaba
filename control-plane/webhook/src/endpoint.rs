//! Where a call goes and whom it trusts.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use serde_json::Value;
use skep_api::object::ObjectExt;

use crate::{Credentials, Error};

/// Which certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The platform's authorities.
    #[default]
    System,
    /// These authorities, PEM.
    Bundle(Arc<[u8]>),
    /// Any certificate: only where the configuration asks for it by name.
    Unverified,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Host { tls: bool, host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

/// The other side of a call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) place: Place,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) trust: Trust,
    pub(crate) credentials: Option<Arc<Credentials>>,
    pub(crate) server_name: Option<String>,
}

impl Endpoint {
    /// A service of the cluster, over HTTPS.
    pub fn service(namespace: &str, name: &str, port: u16, path: &str) -> Self {
        let place = Place::Service { namespace: namespace.to_owned(), name: name.to_owned(), port };
        Self::at(place, path)
    }

    /// A URL, `https://…` or `http://…`.
    pub fn url(url: &str) -> Result<Self, Error> {
        let bad = |why: &dyn std::fmt::Display| Error::Config(format!("invalid URL {url:?}: {why}"));
        let uri: Uri = url.parse().map_err(|error| bad(&error))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad(&"must begin with https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad(&"no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self::at(Place::Host { tls, host, port }, path))
    }

    /// The `clientConfig` of a webhook: `url`, or `service`, and `caBundle`.
    pub fn from_client_config(config: &Value) -> Result<Self, Error> {
        let bundle = match config.text(&["caBundle"]) {
            "" => None,
            text => {
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|error| Error::Config(format!("caBundle is not base64: {error}")))?;
                Some(bytes)
            }
        };
        let endpoint = match config.at(&["service"]).filter(|service| !service.is_null()) {
            Some(service) => {
                let port = match service.int(&["port"]) {
                    None => 443,
                    Some(port) => u16::try_from(port)
                        .map_err(|_| Error::Config(format!("port {port} is out of range")))?,
                };
                let path = match service.text(&["path"]) {
                    path if path.starts_with('/') => path.to_owned(),
                    path => format!("/{path}"),
                };
                Self::service(service.text(&["namespace"]), service.text(&["name"]), port, &path)
            }
            None => match config.text(&["url"]) {
                "" => {
                    let text = "webhook configuration must have either service or URL";
                    return Err(Error::Config(text.to_owned()));
                }
                url => Self::url(url)?,
            },
        };
        Ok(match bundle {
            Some(bundle) => endpoint.with_trust(Trust::Bundle(bundle.into())),
            None => endpoint,
        })
    }

    fn at(place: Place, path: &str) -> Self {
        Self { place, path: path.to_owned(), trust: Trust::System, credentials: None, server_name: None }
    }

    /// The same, trusting these authorities.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// The same, with credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Arc<Credentials>) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// The same, with this name looked for in the server's certificate.
    #[must_use]
    pub fn with_server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// The same, at another path and query.
    #[must_use]
    pub fn with_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The same, with `name=value` added to the query. The text must be fit for a URL.
    #[must_use]
    pub fn with_query(mut self, pair: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(pair);
        self
    }

    /// Is TLS spoken?
    pub(crate) fn tls(&self) -> bool {
        !matches!(self.place, Place::Host { tls: false, .. })
    }

    /// The `Host` header: `NAME.NAMESPACE.svc:PORT` for a service.
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Host { host, port, tls } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                // The usual port is not written, as in the URL it came from.
                if *port == (if *tls { 443 } else { 80 }) { host } else { format!("{host}:{port}") }
            }
            Place::Service { namespace, name, port } => format!("{name}.{namespace}.svc:{port}"),
        }
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The whole URL, as error messages show it.
    pub fn to_url(&self) -> String {
        let scheme = if self.tls() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// The name the server's certificate must be for.
    pub(crate) fn name(&self) -> String {
        if let Some(name) = &self.server_name {
            return name.clone();
        }
        match &self.place {
            Place::Host { host, .. } => host.clone(),
            Place::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }
}
