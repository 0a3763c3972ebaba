//! One connection: resolve, dial, handshake.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::endpoint::Place;
use crate::{Error, ServiceResolver, tls};

/// One address gets so long before the next is tried; the last one gets what the deadline leaves.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most a connection may take, deadline or not.
const LONGEST: Duration = Duration::from_secs(30);

/// Connects to `place`; `name` is looked for in the certificate.
pub(crate) async fn connect(
    resolver: &dyn ServiceResolver,
    place: &Place,
    name: &str,
    config: Option<Arc<ClientConfig>>,
) -> Result<Stream, Error> {
    let addresses = match place {
        Place::Service { namespace, name, port } => resolver.resolve(namespace, name, *port).await?,
        Place::Host { host, port, .. } => lookup(host, *port).await?,
    };
    let tcp = dial(&addresses).await?;
    let Some(config) = config else { return Ok(Stream::Plain(tcp)) };
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| Error::Tls(format!("{name:?} is no name for a server")))?;
    let handshake = TlsConnector::from(config).connect(server, tcp);
    match tokio::time::timeout(LONGEST, handshake).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(tls::describe(&error, name)),
        Err(_) => Err(Error::Tls("net/http: TLS handshake timeout".to_owned())),
    }
}

/// The addresses of a host.
pub(crate) async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let missing = || Error::Resolve(format!("dial tcp: lookup {host}: no such host"));
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((host, port)).await.map_err(|_| missing())?.collect();
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    let mut failure = Error::Resolve("there is no address to connect to".to_owned());
    for (at, address) in addresses.iter().enumerate() {
        let patience = if at + 1 == addresses.len() { LONGEST } else { PATIENCE };
        let refused = |error: io::Error| Error::Dial { address: *address, source: Arc::new(error) };
        match tokio::time::timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(refused)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = refused(error),
            Err(_) => failure = refused(io::ErrorKind::TimedOut.into()),
        }
    }
    Err(failure)
}

/// A connection to the other side.
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Stream::Plain",
            Self::Tls(_) => "Stream::Tls",
        })
    }
}

// `TokioIo<T>` is a `Connection` when `T` is one.
impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
