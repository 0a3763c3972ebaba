//! `GET /containerLogs/…`: a container's log as chunked text.

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::header;
use jiff::Timestamp;
use skep_runtime::logs;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::query::{LogQuery, Parameters};
use super::refusal::Refusal;

/// Pieces of log that wait for a slow reader.
const QUEUE: usize = 16;

pub(super) async fn get(
    State(node): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Refusal> {
    let query = LogQuery::parse(&parameters, Timestamp::now())?;
    let record = node.container(&namespace, &pod, Some(&container), query.previous).await?;
    let follow = query.follow.then(|| node.ended(&record.id));
    let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
    // Ends with the reader: the response's body owns the receiving half.
    let reading = tokio::spawn(async move {
        if let Err(error) = logs::read::read(&record.log_path, &query.options, follow, &sender).await {
            tracing::warn!(container = %record.id, %error, "reading a log");
        }
    });
    let guard = AbortOnDrop(reading);
    let pieces = ReceiverStream::new(receiver).map(move |piece| {
        let _alive = &guard;
        Ok::<_, std::convert::Infallible>(piece)
    });
    Ok(([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(pieces)).into_response())
}

/// Stops the reader when nobody reads.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
