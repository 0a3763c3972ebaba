//! Calls against real TLS servers on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::{
    Client, Credentials, Destination, Endpoint, Error, ServiceResolver, Trust, destination, kubeconfig,
};

const SECOND: Duration = Duration::from_secs(1);

struct Server {
    address: SocketAddr,
    ca: Trust,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Echoes JSON with what it saw; some paths misbehave.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let path = request.uri().to_string();
    let token = request.headers().get("authorization").map(|value| value.to_str().unwrap_or("").to_owned());
    let bytes =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let reply = |code: u16, text: Vec<u8>| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
        Ok(response)
    };
    match path.rsplit('/').next().unwrap_or_default() {
        "slow" => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            reply(200, Vec::new())
        }
        "long" => reply(200, vec![b' '; crate::DEFAULT_LIMIT + 1]),
        "broken" => reply(200, b"{".to_vec()),
        "angry" => reply(500, b"boom".to_vec()),
        _ => {
            let got: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            reply(200, json!({"got": got, "path": path, "token": token}).to_string().into_bytes())
        }
    }
}

async fn server(name: &str) -> Server {
    let key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&key).expect("a CA");
    let issuer = Issuer::new(ca, key);
    let leaf = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let cert = params.signed_by(&leaf, &issuer).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let task = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), count.clone());
            tasks.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                count.fetch_add(1, Ordering::SeqCst);
                let builder = auto::Builder::new(TokioExecutor::new());
                let served = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                drop(served);
            });
        }
    });
    let ca = Trust::Bundle(root.pem().into_bytes().into());
    Server { address, ca, connections, task }
}

struct Fixed(Vec<SocketAddr>);

#[async_trait]
impl ServiceResolver for Fixed {
    async fn resolve(&self, _: &str, _: &str, _: u16) -> Result<Vec<SocketAddr>, Error> {
        Ok(self.0.clone())
    }
}

#[tokio::test]
async fn a_service_is_called_by_its_name_whatever_its_address() {
    let server = server("hook.ns.svc").await;
    // The first address refuses: the next one is tried.
    let refusing = "127.0.0.1:1".parse().expect("an address");
    let client = Client::new(Arc::new(Fixed(vec![refusing, server.address])));
    let endpoint = Endpoint::service("ns", "hook", 443, "/mutate")
        .with_trust(server.ca.clone())
        .with_credentials(Arc::new(Credentials::token("secret")))
        .with_query("timeout=1s");
    for _ in 0..3 {
        let answer = client.call(&endpoint, &json!({"a": 1}), 10 * SECOND).await.expect("an answer");
        assert_eq!(answer["got"], json!({"a": 1}));
        assert!(answer["path"].as_str().is_some_and(|path| path.ends_with("/mutate?timeout=1s")), "{answer}");
        assert_eq!(answer["token"], "Bearer secret");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "connections are kept");
    client.connect(&endpoint, 5 * SECOND).await.expect("a raw connection");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let server = server("hook.ns.svc").await;
    let client = Client::new(Arc::new(Fixed(vec![server.address])));
    let good = Endpoint::service("ns", "hook", 443, "/").with_trust(server.ca.clone());
    let other = server_ca_of_somebody_else();
    let cases = [
        (good.clone().with_path("/slow"), "timeout", "context deadline exceeded"),
        (good.clone().with_path("/long"), "size", "longer than"),
        (good.clone().with_path("/broken"), "decode", "json"),
        (good.clone().with_path("/angry"), "status", r#"an error on the server ("boom") has prevented"#),
        (Endpoint::service("ns", "hook", 443, "/").with_trust(other), "tls", "signed by unknown authority"),
        (Endpoint::service("ns", "hook", 443, "/"), "tls", "signed by unknown authority"),
        (
            Endpoint::service("ns", "other", 443, "/").with_trust(server.ca.clone()),
            "tls",
            "certificate is valid for hook.ns.svc, not other.ns.svc",
        ),
        (
            Endpoint::service("ns", "hook", 443, "/").with_trust(Trust::Bundle(Arc::from(&b"nonsense"[..]))),
            "tls",
            "unable to load root certificates: unable to parse bytes as PEM block",
        ),
        (Endpoint::url("https://127.0.0.1:1/x").expect("a URL"), "dial", "connect: connection refused"),
    ];
    for (endpoint, kind, text) in cases {
        let error = client.call(&endpoint, &json!({}), SECOND / 2).await.expect_err(kind);
        // Without the platform's list nothing can be dialled either.
        let kind_ok = error.kind() == kind || kind == "dial" && error.kind() == "tls";
        assert!(kind_ok, "{kind}: {error:?}");
        if error.kind() == kind {
            assert!(error.to_string().contains(text), "{kind}: {error}");
        }
    }
    let unverified = Endpoint::service("ns", "other", 443, "/").with_trust(Trust::Unverified);
    client.call(&unverified, &json!({}), 5 * SECOND).await.expect("anything goes");
}

fn server_ca_of_somebody_else() -> Trust {
    let key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Trust::Bundle(ca.self_signed(&key).expect("a CA").pem().into_bytes().into())
}

#[test]
fn client_configs() {
    let service = json!({"service": {"namespace": "n", "name": "s", "path": "/p", "port": 8443}});
    let endpoint = Endpoint::from_client_config(&service).expect("a service");
    assert_eq!(endpoint.to_url(), "https://s.n.svc:8443/p");
    let plain = json!({"service": {"namespace": "n", "name": "s"}});
    assert_eq!(Endpoint::from_client_config(&plain).expect("a service").to_url(), "https://s.n.svc:443/");
    let url = json!({"url": "https://example.com/hook?x=1", "caBundle": "Q0E="});
    let endpoint = Endpoint::from_client_config(&url).expect("a URL").with_query("timeout=3s");
    assert_eq!(endpoint.to_url(), "https://example.com/hook?x=1&timeout=3s");
    assert_eq!(endpoint.trust, Trust::Bundle(Arc::from(&b"CA"[..])));
    for bad in [json!({}), json!({"url": "ftp://x"}), json!({"url": "https://x", "caBundle": "?"})] {
        Endpoint::from_client_config(&bad).expect_err("refused");
    }
}

#[test]
fn services_lead_to_ready_endpoints_first() {
    let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.7", "ports": [
        {"name": "web", "port": 443}, {"name": "other", "port": 80},
    ]}});
    let slice = json!({
        "ports": [{"name": "other", "port": 1}, {"name": "web", "port": 8443}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
            {"addresses": ["fd00::2"]},
        ],
    });
    let Ok(Destination::Addresses(found)) = destination(&service, [&slice], 443) else { panic!("addresses") };
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts.last().map(String::as_str), Some("10.96.0.7:443"));
    assert!(texts.contains(&"10.0.0.2:8443".to_owned()) && texts.contains(&"[fd00::2]:8443".to_owned()));
    assert_eq!(texts.len(), 3);
    let text = |slices: &[&Value], port| match destination(&service, slices.iter().copied(), port) {
        Err(error) => error.to_string(),
        Ok(other) => format!("{other:?}"),
    };
    assert_eq!(text(&[], 443), r#"no endpoints available for service "s""#);
    assert_eq!(text(&[&slice], 444), r#"no service port 444 found for service "s""#);
    let external = json!({"spec": {"type": "ExternalName", "externalName": "e.example"}});
    assert_eq!(destination(&external, [], 443).ok(), Some(Destination::Name("e.example".to_owned(), 443)));
}

#[test]
fn kubeconfig_files() {
    let text = "
current-context: c
contexts: [{name: c, context: {cluster: hook, user: me}}]
clusters: [{name: hook, cluster: {server: 'https://127.0.0.1:9/authorize', certificate-authority-data: Q0E=}}]
users: [{name: me, user: {token: secret}}]
";
    let endpoint = kubeconfig::parse(text, Path::new("")).expect("parses");
    assert_eq!(endpoint.to_url(), "https://127.0.0.1:9/authorize");
    assert!(!format!("{endpoint:?}").contains("secret"));
    kubeconfig::parse("current-context: x", Path::new("")).expect_err("no such context");
}
