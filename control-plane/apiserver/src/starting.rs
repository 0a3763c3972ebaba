//! What clients are told before the server is there: it lives, it is not ready, come again in a second.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use skep_api::error::ApiError;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::negotiate::Encoding;
use crate::respond;

/// Answers every request on a listener while `work` runs, and returns what it returned.
pub async fn while_starting<T>(
    listener: &TcpListener,
    tls: Arc<ServerConfig>,
    work: impl Future<Output = T>,
) -> T {
    let acceptor = TlsAcceptor::from(tls);
    // Ends with this function: the clients come again.
    let mut connections = JoinSet::new();
    tokio::pin!(work);
    loop {
        tokio::select! {
            // Cancel safe: a connection is accepted or not; the work is never dropped.
            outcome = work.as_mut() => return outcome,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => _ = connections.spawn(serve(stream, acceptor.clone())),
                Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service =
        service_fn(
            |request: Request<Incoming>| async move { Ok::<_, Infallible>(answer(request.uri().path())) },
        );
    let builder = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error, "a connection ended while the server was starting");
    }
}

fn answer(path: &str) -> Response<Body> {
    let mut answer = match path {
        "/livez" => respond::text(StatusCode::OK, "ok"),
        "/healthz" | "/readyz" => respond::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "[-]poststarthook/start-registry-caches failed: reason withheld\nreadyz check failed\n",
        ),
        _ => {
            let text =
                "the request has been made before all known HTTP paths have been installed, please try again";
            respond::error(&ApiError::service_unavailable(text), Encoding::Json)
        }
    };
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    // The next request finds the server itself.
    answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
