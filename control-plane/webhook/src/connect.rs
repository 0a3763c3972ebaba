//! One connection: resolve, dial, handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::endpoint::Place;
use crate::{Error, ServiceResolver, tls};

/// One address gets so long before the next is tried; the last one gets what the deadline leaves.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most a connection may take, deadline or not.
const LONGEST: Duration = Duration::from_secs(30);

/// A connection to the other side, with or without TLS.
pub type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

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
    let Some(config) = config else { return Ok(Stream::Http(TokioIo::new(tcp))) };
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| Error::Tls(format!("{name:?} is no name for a server")))?;
    let handshake = TlsConnector::from(config).connect(server, TokioIo::new(TokioIo::new(tcp)));
    match tokio::time::timeout(LONGEST, handshake).await {
        Ok(Ok(stream)) => Ok(stream.into()),
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
