//! A KMS plug-in for tests: tonic's server on a Unix socket. It encrypts by turning bits round, which shows
//! whatever does not go through it.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use prost::Message;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusAnswer {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sealed {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    second: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DecryptRequest {
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
pub(crate) struct Plain {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

/// How the plug-in behaves.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) version: String,
    pub(crate) healthz: String,
    pub(crate) key: String,
    /// The key it really encrypts with, where it is another.
    pub(crate) encrypts_with: Option<String>,
    pub(crate) annotation: String,
    pub(crate) fails: bool,
    pub(crate) slow: Duration,
    calls: HashMap<&'static str, usize>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: "v2".to_owned(),
            healthz: "ok".to_owned(),
            key: "key-1".to_owned(),
            encrypts_with: None,
            annotation: "kms.example.com".to_owned(),
            fails: false,
            slow: Duration::ZERO,
            calls: HashMap::new(),
        }
    }
}

/// A running plug-in.
pub(crate) struct Plugin {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Plugin {
    /// One that listens.
    pub(crate) async fn start(socket: &Path) -> Self {
        Self::start_with(socket, State::default()).await
    }

    pub(crate) async fn start_with(socket: &Path, state: State) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let state = Arc::new(Mutex::new(state));
        let service = Kms(Arc::clone(&state));
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder()
                .serve_with_incoming(service, UnixListenerStream::new(listener));
            server.await.expect("serves");
        });
        Self { socket: socket.to_owned(), state, task: Some(task) }
    }

    /// One that does not.
    pub(crate) fn absent(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), state: Arc::default(), task: None }
    }

    /// Stops it; what it has become is the beginning of another.
    pub(crate) async fn stop(mut self) -> State {
        if let Some(task) = self.task.take() {
            task.abort();
            assert!(task.await.is_err(), "it was stopped");
        }
        std::fs::remove_file(&self.socket).expect("removed");
        self.state.lock().expect("unpoisoned").clone()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("unpoisoned"));
    }

    pub(crate) fn rotate(&self, key: &str) {
        self.change(|state| key.clone_into(&mut state.key));
    }

    pub(crate) fn calls(&self) -> HashMap<&'static str, usize> {
        self.state.lock().expect("unpoisoned").calls.clone()
    }
}

#[derive(Clone)]
struct Kms(Arc<Mutex<State>>);

impl NamedService for Kms {
    const NAME: &'static str = "v2.KeyManagementService";
}

fn turned(bytes: &[u8], key: &str) -> Vec<u8> {
    let mask = key.bytes().fold(0x5a, |mask, byte| mask ^ byte);
    bytes.iter().map(|byte| byte ^ mask).collect()
}

impl Kms {
    async fn begin(&self, name: &'static str) -> Result<State, Status> {
        let state = {
            let mut state = self.0.lock().expect("unpoisoned");
            *state.calls.entry(name).or_default() += 1;
            state.clone()
        };
        tokio::time::sleep(state.slow).await;
        if state.fails { Err(Status::internal("the test says no")) } else { Ok(state) }
    }

    async fn status(self) -> Result<Response<StatusAnswer>, Status> {
        let State { version, healthz, key: key_id, .. } = self.begin("Status").await?;
        Ok(Response::new(StatusAnswer { version, healthz, key_id }))
    }

    async fn encrypt(self, request: Plain) -> Result<Response<Sealed>, Status> {
        let state = self.begin("Encrypt").await?;
        assert!(!request.uid.is_empty());
        let key = state.encrypts_with.unwrap_or(state.key);
        let annotations = BTreeMap::from([(state.annotation, b"1".to_vec())]);
        Ok(Response::new(Sealed { ciphertext: turned(&request.bytes, &key), second: key, annotations }))
    }

    async fn decrypt(self, request: DecryptRequest) -> Result<Response<Plain>, Status> {
        self.begin("Decrypt").await?;
        assert_eq!(request.annotations["kms.example.com"], b"1", "annotations come back");
        let bytes = turned(&request.ciphertext, &request.key_id);
        Ok(Response::new(Plain { bytes, uid: String::new() }))
    }
}

/// One method, as tonic's server calls it.
struct Method<F>(F);

impl<Q, A, F, W> UnaryService<Q> for Method<F>
where
    F: FnMut(Q) -> W,
    W: Future<Output = Result<Response<A>, Status>> + Send + 'static,
{
    type Response = A;
    type Future = W;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        (self.0)(request.into_inner())
    }
}

async fn unary<Q, A, W>(
    request: http::Request<Body>,
    method: impl FnMut(Q) -> W + Send,
) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    W: Future<Output = Result<Response<A>, Status>> + Send + 'static,
{
    let codec: ProstCodec<A, Q> = ProstCodec::default();
    tonic::server::Grpc::new(codec).unary(Method(method), request).await
}

impl Service<http::Request<Body>> for Kms {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let kms = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/v2.KeyManagementService/Status" => {
                    unary(request, move |Empty {}| kms.clone().status()).await
                }
                "/v2.KeyManagementService/Encrypt" => {
                    unary(request, move |asked| kms.clone().encrypt(asked)).await
                }
                "/v2.KeyManagementService/Decrypt" => {
                    unary(request, move |asked| kms.clone().decrypt(asked)).await
                }
                other => panic!("nobody calls {other}"),
            })
        })
    }
}
