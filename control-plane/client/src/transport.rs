//! One request, one response: over the network or into a service of this process.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::TryFutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use skep_api::user::UserInfo;
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::client::Body;
use crate::config::ClientConfig;
use crate::error::{BoxError, Error, Result};
use crate::tls::{Connector, connector};

const TOKEN_REREAD: Duration = Duration::from_secs(60);

/// Where requests go.
pub(crate) enum Transport {
    /// A server over the network.
    Network(Box<Network>),
    /// A service of this process; the user travels as an extension.
    InProcess {
        /// The service.
        service: BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>,
        /// Who asks.
        user: UserInfo,
    },
}

/// A bearer token that others rotate, and when we last read it.
struct TokenFile {
    path: PathBuf,
    cached: Mutex<Option<(Instant, HeaderValue)>>,
}

/// A certificate that others rotate: what is needed to connect with it, what it was, and when we last
/// looked.
struct Identity {
    config: ClientConfig,
    cert: PathBuf,
    key: PathBuf,
    known: Mutex<(Instant, String)>,
}

/// A server over the network.
pub(crate) struct Network {
    /// Held for a clone or a replacement only.
    hyper: Mutex<Hyper<Connector, Body>>,
    identity: Option<Identity>,
    scheme: http::uri::Scheme,
    authority: http::uri::Authority,
    prefix: String,
    token: Option<HeaderValue>,
    token_file: Option<TokenFile>,
}

impl Network {
    pub(crate) fn new(mut config: ClientConfig) -> Result<Self> {
        let identity = Identity::read(&mut config)?;
        let uri: Uri =
            config.server.parse().map_err(|e| Error::Config(format!("server {}: {e}", config.server)))?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(Error::Config(format!("server {}: want https://HOST:PORT", config.server)));
        };
        let prefix = parts.path_and_query.map(|p| p.path().trim_end_matches('/').to_owned());
        let hyper = Mutex::new(connections(&config)?);
        let token = config.token.as_deref().map(bearer).transpose()?;
        Ok(Self {
            hyper,
            identity,
            scheme,
            authority,
            prefix: prefix.unwrap_or_default(),
            token,
            token_file: config.token_file.map(|path| TokenFile { path, cached: Mutex::new(None) }),
        })
    }

    /// The connections; new ones when the certificate has changed. Open requests end on the old ones.
    async fn hyper(&self) -> Hyper<Connector, Body> {
        if let Some(identity) = &self.identity {
            match identity.changed().await {
                Ok(None) => {}
                Ok(Some(hyper)) => {
                    tracing::info!("connecting with a new certificate");
                    *self.hyper.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = hyper;
                }
                // Half a pair, perhaps: what we have goes on.
                Err(error) => tracing::warn!(%error, "the client certificate could not be read again"),
            }
        }
        self.hyper.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>> {
        let Some(TokenFile { path, cached }) = &self.token_file else { return Ok(self.token.clone()) };
        {
            let cached = cached.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some((read_at, value)) = &*cached
                && read_at.elapsed() < TOKEN_REREAD
            {
                return Ok(Some(value.clone()));
            }
        }
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|e| Error::Config(format!("token file {}: {e}", path.display())))?;
        let value = bearer(text.trim())?;
        *cached.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some((Instant::now(), value.clone()));
        Ok(Some(value))
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, SendError> {
        let target = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{target}", self.prefix))
            .build()
            .map_err(|e| SendError::refused(Error::Config(e.to_string())))?;
        *request.uri_mut() = uri;
        if let Some(value) = self.authorization().await.map_err(SendError::refused)? {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let hyper = self.hyper().await;
        match hyper.request(request).await {
            Ok(response) => Ok(response.map(|b| Body::new(b.map_err(Into::into)))),
            Err(e) => Err(SendError { unsent: e.is_connect(), error: Error::Transport(Box::new(e)) }),
        }
    }
}

fn connections(config: &ClientConfig) -> Result<Hyper<Connector, Body>> {
    Ok(Hyper::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(90))
        // A dead peer must not leave watches hanging for the kernel's many minutes.
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(15))
        .http2_keep_alive_while_idle(true)
        .http2_initial_stream_window_size(1 << 20)
        .http2_initial_connection_window_size(8 << 20)
        .build(connector(config)?))
}

impl Identity {
    /// Reads the files, if the configuration names any, into it.
    fn read(config: &mut ClientConfig) -> Result<Option<Self>> {
        let (Some(cert), Some(key)) = (config.client_cert_file.clone(), config.client_key_file.clone())
        else {
            return Ok(None);
        };
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path);
            text.map_err(|e| Error::Config(format!("{}: {e}", path.display())))
        };
        let (cert_pem, key_pem) = (read(&cert)?, read(&key)?);
        let known = Mutex::new((Instant::now(), cert_pem.clone()));
        config.client_cert_pem = Some(cert_pem);
        config.client_key_pem = Some(key_pem);
        Ok(Some(Self { config: config.clone(), cert, key, known }))
    }

    /// Connections with the certificate of now, if it is another one.
    async fn changed(&self) -> Result<Option<Hyper<Connector, Body>>> {
        {
            let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if known.0.elapsed() < TOKEN_REREAD {
                return Ok(None);
            }
            known.0 = Instant::now();
        }
        let fail = |path: &PathBuf, e: std::io::Error| Error::Config(format!("{}: {e}", path.display()));
        let cert_pem = tokio::fs::read_to_string(&self.cert).await.map_err(|e| fail(&self.cert, e))?;
        {
            let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if known.1 == cert_pem {
                return Ok(None);
            }
        }
        let key_pem = tokio::fs::read_to_string(&self.key).await.map_err(|e| fail(&self.key, e))?;
        let config = ClientConfig {
            client_cert_pem: Some(cert_pem.clone()),
            client_key_pem: Some(key_pem),
            ..self.config.clone()
        };
        let hyper = connections(&config)?;
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1 = cert_pem;
        Ok(Some(hyper))
    }
}

fn bearer(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Error::Config("the token holds characters a header cannot".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A request that got no response.
pub(crate) struct SendError {
    /// The server certainly did not see it.
    pub(crate) unsent: bool,
    /// Why.
    pub(crate) error: Error,
}

impl SendError {
    fn refused(error: Error) -> Self {
        Self { unsent: false, error }
    }
}

impl Transport {
    pub(crate) fn in_process<S, B>(service: S, user: UserInfo) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = service.map_response(|r: Response<B>| r.map(|b| Body::new(b.map_err(Into::into))));
        Self::InProcess { service: BoxCloneSyncService::new(service), user }
    }

    /// Boxed: callers' futures stay small and the compiler need not look into two transports.
    pub(crate) fn send(
        &self,
        mut request: Request<Body>,
    ) -> BoxFuture<'_, Result<Response<Body>, SendError>> {
        match self {
            Self::Network(network) => Box::pin(network.send(request)),
            Self::InProcess { service, user } => {
                request.extensions_mut().insert(user.clone());
                // A combinator: an async block here trips over a limit of auto-trait inference.
                Box::pin(service.clone().oneshot(request).map_err(|never| match never {}))
            }
        }
    }
}
