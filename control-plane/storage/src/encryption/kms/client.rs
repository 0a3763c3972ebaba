//! Calls of a KMS plug-in: `v2.KeyManagementService` over gRPC on a Unix socket, with a time for each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::OnceCell;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::super::envelope::EncryptedObject;

/// No answer is longer, in bytes: annotations and a ciphertext have smaller limits.
const LONGEST: usize = 64 * 1024;

/// Where a plug-in listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A socket of the file system.
    Path(PathBuf),
    /// A name without a file.
    Abstract(String),
}

impl Endpoint {
    /// Reads `unix:///path` and `unix:///@name`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("invalid endpoint for kms provider, error: {text:?} is no URL"));
        };
        if scheme != "unix" {
            return Err(format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported"));
        }
        match rest.strip_prefix("/@") {
            Some(name) if !name.is_empty() => Ok(Self::Abstract(name.to_owned())),
            None if Path::new(rest).is_absolute() => Ok(Self::Path(rest.into())),
            _ => Err(format!("invalid endpoint for kms provider, error: {text:?} names no socket")),
        }
    }

    async fn connect(self) -> std::io::Result<TokioIo<UnixStream>> {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixStream as Blocking};
        let stream = match self {
            Self::Path(path) => UnixStream::connect(path).await?,
            Self::Abstract(name) => {
                // Connecting to a socket of this machine does not wait.
                let stream = Blocking::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream)?
            }
        };
        Ok(TokioIo::new(stream))
    }
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

/// How the plug-in is, and which key is in use.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(string, tag = "2")]
    pub(super) healthz: String,
    #[prost(string, tag = "3")]
    pub(super) key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

/// An encrypted seed, and by which key.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Encrypted {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
}

/// A plug-in. Connects when it is first called, and anew when it went away.
pub(super) struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    channel: OnceCell<Channel>,
}

/// For the plug-in's log: which call is which.
fn uid() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Client {
    pub(super) fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        Self { endpoint, timeout, channel: OnceCell::new() }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) async fn status(&self) -> Result<Status, String> {
        self.call("Status", StatusRequest {}).await
    }

    pub(super) async fn encrypt(&self, seed: &[u8]) -> Result<Encrypted, String> {
        self.call("Encrypt", EncryptRequest { plaintext: seed.to_vec(), uid: uid() }).await
    }

    pub(super) async fn decrypt(&self, object: &EncryptedObject) -> Result<Vec<u8>, String> {
        let request = DecryptRequest {
            ciphertext: object.source.clone(),
            uid: uid(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        };
        let response: DecryptResponse = self.call("Decrypt", request).await?;
        Ok(response.plaintext)
    }

    async fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, String>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let work = async {
            let channel = self.channel().await.clone();
            let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(LONGEST);
            client.ready().await.map_err(|error| describe(&error))?;
            let path = PathAndQuery::try_from(format!("/v2.KeyManagementService/{method}"));
            let path = path.map_err(|error| error.to_string())?;
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            let answer = client.unary(tonic::Request::new(request), path, codec).await;
            answer.map(tonic::Response::into_inner).map_err(|status| describe(&status))
        };
        match tokio::time::timeout(self.timeout, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("{method} took longer than {:?}", self.timeout)),
        }
    }

    async fn channel(&self) -> &Channel {
        let connect = async || {
            let endpoint = self.endpoint.clone();
            // The name stands for the socket; nobody looks it up.
            tonic::transport::Endpoint::from_static("http://kms.invalid")
                .connect_with_connector_lazy(service_fn(move |_| endpoint.clone().connect()))
        };
        self.channel.get_or_init(connect).await
    }
}

/// An error with what caused it: the outer one says little.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets_of_this_machine() {
        assert_eq!(Endpoint::parse("unix:///run/kms.sock"), Ok(Endpoint::Path("/run/kms.sock".into())));
        assert_eq!(Endpoint::parse("unix:///@kms"), Ok(Endpoint::Abstract("kms".into())));
        for (bad, why) in [
            ("tcp://127.0.0.1:1", "unsupported scheme \"tcp\" for KMS provider, only unix is supported"),
            ("/run/kms.sock", "invalid endpoint for kms provider"),
            ("unix://run", "names no socket"),
            ("unix:///@", "names no socket"),
        ] {
            let error = Endpoint::parse(bad).expect_err(bad);
            assert!(error.contains(why), "{error}");
        }
    }
}
