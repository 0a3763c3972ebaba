//! How long each plug-in takes, under upstream's name.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::Operation;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    name: &'static str,
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

/// The metrics of a chain.
pub(crate) struct Metrics {
    duration: Family<Labels, Histogram, fn() -> Histogram>,
}

fn histogram() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5])
}

impl Default for Metrics {
    fn default() -> Self {
        Self { duration: Family::new_with_constructor(histogram) }
    }
}

impl Metrics {
    pub(crate) fn register(&self, collection: &mut Registry) {
        collection.register(
            "apiserver_admission_controller_admission_duration_seconds",
            "Time an admission plug-in took, by name, operation and type",
            self.duration.clone(),
        );
    }

    pub(crate) fn ran(
        &self,
        name: &'static str,
        kind: &'static str,
        operation: Operation,
        rejected: bool,
        took: Duration,
    ) {
        let rejected = if rejected { "true" } else { "false" };
        let labels = Labels { name, r#type: kind, operation: operation.as_str(), rejected };
        self.duration.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
