//! The webhook back end: events in batches.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request};
use serde_json::{Value, json};
use skep_webhook::{Client, Endpoint};

use super::Events;

/// An answer is not read further.
const ANSWER: usize = 64 << 10;
const DEADLINE: Duration = Duration::from_secs(30);
/// A batch is tried so often before it is given up.
const TRIES: u32 = 5;

/// How events are put together.
#[derive(Clone, Copy, Debug)]
pub struct WebhookOptions {
    /// No more events in a batch.
    pub max_events: usize,
    /// No event waits longer for others.
    pub max_wait: Duration,
    /// The first pause after a failure; each further one is twice as long.
    pub backoff: Duration,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self { max_events: 400, max_wait: Duration::from_secs(30), backoff: Duration::from_secs(1) }
    }
}

/// Posts events until there are no more.
pub async fn post(client: Client, endpoint: Endpoint, options: WebhookOptions, mut events: Events) {
    while let Some(first) = events.recv().await {
        let mut batch = vec![first];
        let full = tokio::time::sleep(options.max_wait);
        tokio::pin!(full);
        while batch.len() < options.max_events.max(1) {
            // Cancel safe: an event is taken whole or not at all.
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => batch.push(event),
                    None => break,
                },
                () = &mut full => break,
            }
        }
        let items: Vec<&Value> = batch.iter().map(|event| &**event).collect();
        let list =
            json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items});
        let bytes = Bytes::from(list.to_string());
        let mut pause = options.backoff;
        for attempt in 1..=TRIES {
            match send(&client, &endpoint, bytes.clone()).await {
                Ok(()) => break,
                Err(why) if attempt == TRIES => {
                    let lost = batch.len();
                    tracing::error!(why, lost, "audit events are lost: the webhook does not take them");
                }
                Err(why) => {
                    tracing::warn!(why, "the audit webhook will be tried again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }
}

async fn send(client: &Client, endpoint: &Endpoint, bytes: Bytes) -> Result<(), String> {
    let mut request = Request::new(skep_webhook::body(bytes));
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match client.exchange(endpoint, request, DEADLINE, ANSWER).await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("it answered {}", answer.status())),
        Err(error) => Err(error.to_string()),
    }
}
