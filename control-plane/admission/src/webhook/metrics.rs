//! What webhooks cost and say, under upstream's names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::Operation;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    code: u16,
    rejected: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpenLabels {
    name: String,
    r#type: &'static str,
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Allowed { code: u16 },
    Denied { code: u16 },
    Failed,
    FailedOpen,
}

/// The metrics of both plug-ins.
#[derive(Clone)]
pub struct Metrics {
    /// Two plug-ins share them; they are one entry each in a collection.
    registered: Arc<AtomicBool>,
    duration: Family<CallLabels, Histogram, fn() -> Histogram>,
    requests: Family<RequestLabels, Counter>,
    // Upstream's names of these do not end in `_total`, which is put behind every counter.
    rejections: Family<RejectionLabels, Gauge>,
    open: Family<OpenLabels, Gauge>,
}

fn histogram() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0])
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            registered: Arc::default(),
            duration: Family::new_with_constructor(histogram),
            requests: Family::default(),
            rejections: Family::default(),
            open: Family::default(),
        }
    }
}

impl Metrics {
    pub(super) fn register(&self, collection: &mut Registry) {
        if self.registered.swap(true, Ordering::Relaxed) {
            return;
        }
        collection.register(
            "apiserver_admission_webhook_admission_duration_seconds",
            "Time a webhook took, by name, operation and type",
            self.duration.clone(),
        );
        collection.register(
            "apiserver_admission_webhook_request",
            "Calls of webhooks by how they ended",
            self.requests.clone(),
        );
        collection.register(
            "apiserver_admission_webhook_rejection_count",
            "Requests that a webhook, or the failure to call it, refused",
            self.rejections.clone(),
        );
        collection.register(
            "apiserver_admission_webhook_fail_open_count",
            "Failed calls that did not fail their request",
            self.open.clone(),
        );
    }

    pub(super) fn called(
        &self,
        name: &str,
        mutating: bool,
        operation: Operation,
        outcome: Outcome,
        took: Duration,
    ) {
        let (name, operation) = (name.to_owned(), operation.as_str());
        let kind = if mutating { "admit" } else { "validating" };
        let rejected = match outcome {
            Outcome::Allowed { .. } | Outcome::FailedOpen => "false",
            Outcome::Denied { .. } | Outcome::Failed => "true",
        };
        let labels = CallLabels { name: name.clone(), r#type: kind, operation, rejected };
        self.duration.get_or_create(&labels).observe(took.as_secs_f64());
        let (code, refusal) = match outcome {
            Outcome::Allowed { code } => (code, None),
            // The call itself went well.
            Outcome::Denied { code } => (200, Some(("no_error", code))),
            Outcome::Failed => (500, Some(("calling_webhook_error", 0))),
            Outcome::FailedOpen => (500, None),
        };
        let labels = RequestLabels { name: name.clone(), r#type: kind, operation, code, rejected };
        self.requests.get_or_create(&labels).inc();
        if let Some((error_type, rejection_code)) = refusal {
            let labels =
                RejectionLabels { name: name.clone(), r#type: kind, operation, error_type, rejection_code };
            self.rejections.get_or_create(&labels).inc();
        }
        if matches!(outcome, Outcome::FailedOpen) {
            self.open.get_or_create(&OpenLabels { name, r#type: kind }).inc();
        }
    }
}
