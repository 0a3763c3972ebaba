//! What probes and lifecycle hooks do: run a command, ask over HTTP, connect, sleep.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use skep_runtime::{ExecRequest, Runtime};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time};

/// The most of a command's output or an answer that is kept for the event.
const MAX_OUTPUT: usize = 1024;
const MAX_ANSWER: usize = 10 << 10;

/// Whom a handler acts upon.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub runtime: Runtime,
    pub container_id: String,
    pub container: Container,
    pub ip: Option<IpAddr>,
}

/// What is done.
#[derive(Clone, Debug)]
pub(super) enum Handler {
    Exec(ExecAction),
    Http(HTTPGetAction),
    Tcp(TCPSocketAction),
    Grpc { port: u16, service: String },
    Sleep(u64),
    Nothing,
}

impl From<&Probe> for Handler {
    fn from(probe: &Probe) -> Self {
        if let Some(exec) = &probe.exec {
            Self::Exec(exec.clone())
        } else if let Some(get) = &probe.http_get {
            Self::Http(get.clone())
        } else if let Some(socket) = &probe.tcp_socket {
            Self::Tcp(socket.clone())
        } else if let Some(grpc) = &probe.grpc {
            Self::Grpc {
                port: u16::try_from(grpc.port).unwrap_or(0),
                service: grpc.service.clone().unwrap_or_default(),
            }
        } else {
            Self::Nothing
        }
    }
}

impl From<&LifecycleHandler> for Handler {
    fn from(hook: &LifecycleHandler) -> Self {
        if let Some(exec) = &hook.exec {
            Self::Exec(exec.clone())
        } else if let Some(get) = &hook.http_get {
            Self::Http(get.clone())
        } else if let Some(socket) = &hook.tcp_socket {
            Self::Tcp(socket.clone())
        } else if let Some(sleep) = &hook.sleep {
            Self::Sleep(u64::try_from(sleep.seconds).unwrap_or(0))
        } else {
            Self::Nothing
        }
    }
}

impl Handler {
    /// Does it, once. The error is for the event.
    pub(super) async fn run(&self, target: &Target, timeout: Duration) -> Result<(), String> {
        let run = async {
            match self {
                Self::Exec(exec) => command(target, exec, timeout).await,
                Self::Http(get) => http_get(target, get).await,
                Self::Tcp(socket) => {
                    let host = host(target, socket.host.as_deref())?;
                    connect(&host, port(&target.container, &socket.port)?).await.map(drop)
                }
                Self::Grpc { port, service } => {
                    super::probing::grpc(&host(target, None)?, *port, service).await
                }
                Self::Sleep(seconds) => {
                    time::sleep(Duration::from_secs(*seconds)).await;
                    Ok(())
                }
                Self::Nothing => Ok(()),
            }
        };
        // A command is given its own limit, so that its process can be ended.
        let limit = if matches!(self, Self::Exec(_)) { timeout + Duration::from_secs(5) } else { timeout };
        time::timeout(limit, run).await.map_err(|_| format!("timed out after {}s", timeout.as_secs()))?
    }
}

fn host(target: &Target, given: Option<&str>) -> Result<String, String> {
    match given.filter(|h| !h.is_empty()) {
        Some(host) => Ok(host.to_owned()),
        None => target.ip.map(|ip| ip.to_string()).ok_or_else(|| "the pod has no address".to_owned()),
    }
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => match name.parse::<i32>() {
            Ok(number) => Some(number),
            Err(_) => container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref() == Some(name.as_str()))
                .map(|p| p.container_port),
        },
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("invalid port {port:?}"))
}

pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|e| format!("dial tcp {host}:{port}: {e}"))
}

async fn command(target: &Target, exec: &ExecAction, timeout: Duration) -> Result<(), String> {
    let command = exec.command.clone().unwrap_or_default();
    let request = ExecRequest { command, stdin: false, tty: false };
    let mut session = target.runtime.exec(&target.container_id, &request).await.map_err(|e| e.to_string())?;
    let (out, err) = (session.stdout.take(), session.stderr.take());
    let ended = async {
        let (out, err) = tokio::join!(output(out), output(err));
        let code = session.wait().await.map_err(|e| e.to_string())?;
        Ok::<_, String>((code, out + &err))
    };
    let result = time::timeout(timeout, ended).await;
    // Also ends a process that still runs.
    session.finish().await.map_err(|e| e.to_string())?;
    match result {
        Err(_) => Err(format!("command timed out after {}s", timeout.as_secs())),
        Ok(Err(error)) => Err(error),
        Ok(Ok((0, _))) => Ok(()),
        Ok(Ok((code, text))) => Err(format!("command exited with {code}: {}", text.trim_end())),
    }
}

async fn output(pipe: Option<tokio::net::unix::pipe::Receiver>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let (mut kept, mut block) = (Vec::new(), vec![0; 4096]);
    // All is read, or the process would block; only the beginning is kept.
    while let Ok(n @ 1..) = pipe.read(&mut block).await {
        let room = MAX_OUTPUT.saturating_sub(kept.len());
        kept.extend_from_slice(&block[..n.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

async fn http_get(target: &Target, get: &HTTPGetAction) -> Result<(), String> {
    let (host, port) = (host(target, get.host.as_deref())?, port(&target.container, &get.port)?);
    let path = get.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let mut request = Request::get(path).header("accept", "*/*").header("connection", "close");
    let mut named = false;
    let mut agent = false;
    for header in get.http_headers.iter().flatten() {
        named |= header.name.eq_ignore_ascii_case("host");
        agent |= header.name.eq_ignore_ascii_case("user-agent");
        request = request.header(&header.name, &header.value);
    }
    if !named {
        request = request.header("host", format!("{bracketed}:{port}"));
    }
    if !agent {
        request = request.header("user-agent", "kube-probe/1.36");
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let stream = connect(&host, port).await?;
    let (status, body) = if get.scheme.as_deref() == Some("HTTPS") {
        let name = rustls::pki_types::ServerName::try_from(host.clone()).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting()?));
        let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
        exchange(TokioIo::new(stream), request).await?
    } else {
        exchange(TokioIo::new(stream), request).await?
    };
    match status {
        200..400 => Ok(()),
        _ => Err(format!("HTTP probe failed with statuscode: {status}: {body}")),
    }
}

async fn exchange<S>(io: S, request: Request<Empty<Bytes>>) -> Result<(u16, String), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        // A body that is too long or breaks off does not change the verdict.
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        Ok((status, text))
    };
    tokio::pin!(talk, connection);
    // The connection is driven beside the exchange; its own end alone is no answer.
    tokio::select! {
        result = &mut talk => result,
        ended = &mut connection => {
            if let Err(error) = ended {
                return Err(error.to_string());
            }
            talk.await
        }
    }
}

/// Probes do not check certificates: the pod's own are rarely signed by anyone.
fn trusting() -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
