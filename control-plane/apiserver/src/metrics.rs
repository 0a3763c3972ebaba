//! `/metrics`, under the names Kubernetes' own API server uses.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Collection;
use skep_api::error::ApiError;
use skep_auth::configuration::Reloads;
use skep_registry::Registry;

use crate::request_info::RequestInfo;
use crate::respond::{self, Answer};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: String,
}

/// The metrics of a server.
pub(crate) struct Metrics {
    collection: Collection,
    requests: Family<RequestLabels, Counter>,
    duration: Family<VerbLabels, Histogram, fn() -> Histogram>,
    objects: Family<ResourceLabels, Gauge>,
    watchers: Family<ResourceLabels, Gauge>,
    reloads: Vec<Reloading>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

/// How the following of a configuration goes.
struct Reloading {
    reloads: Arc<Reloads>,
    count: Family<StatusLabels, Counter>,
    last: Family<StatusLabels, Gauge>,
}

impl Reloading {
    fn register(name: &str, reloads: Arc<Reloads>, collection: &mut Collection) -> Self {
        let (count, last) =
            (Family::<StatusLabels, Counter>::default(), Family::<StatusLabels, Gauge>::default());
        let prefix = format!("apiserver_{name}_controller_automatic_reload");
        collection.register(format!("{prefix}s"), "Changes of the file by how they ended", count.clone());
        let about = "When such a change was last, in seconds since 1970";
        collection.register(format!("{prefix}_last_timestamp_seconds"), about, last.clone());
        Self { reloads, count, last }
    }

    fn update(&self) {
        for (status, (count, last)) in [("success", self.reloads.used()), ("failure", self.reloads.refused())]
        {
            let labels = StatusLabels { status };
            let known = self.count.get_or_create(&labels).clone();
            known.inc_by(count.saturating_sub(known.get()));
            self.last.get_or_create(&labels).set(i64::try_from(last).unwrap_or(i64::MAX));
        }
    }
}

fn histogram() -> Histogram {
    Histogram::new([0.001, 0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, reloads: Vec<(&'static str, Arc<Reloads>)>) -> Self {
        let mut collection = Collection::default();
        registry.admission().metrics(&mut collection);
        let requests = Family::<RequestLabels, Counter>::default();
        let duration: Family<VerbLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(histogram);
        let objects = Family::<ResourceLabels, Gauge>::default();
        let watchers = Family::<ResourceLabels, Gauge>::default();
        // The text format adds `_total`.
        collection.register(
            "apiserver_request",
            "Requests by what they were and how they ended",
            requests.clone(),
        );
        collection.register("apiserver_request_duration_seconds", "Time to answer", duration.clone());
        collection.register("apiserver_storage_objects", "Stored objects", objects.clone());
        collection.register("apiserver_longrunning_requests", "Open watches", watchers.clone());
        let reloads = reloads.into_iter();
        let reloads = reloads.map(|(name, one)| Reloading::register(name, one, &mut collection)).collect();
        Self { collection, requests, duration, objects, watchers, reloads }
    }

    /// Adds the metrics of another part.
    pub(crate) fn add(&mut self, register: impl FnOnce(&mut Collection)) {
        register(&mut self.collection);
    }

    /// Counts a request. Names that are not ours are not labels: the world may send any.
    pub(crate) fn request(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        status: StatusCode,
        took: Duration,
    ) {
        let known = info.resource.as_ref().and_then(|request| {
            let kind = registry.known_kind(&request.gvr)?;
            let subresource = kind.subresource(&request.subresource).map_or("", |known| known.name);
            Some((&request.gvr, subresource))
        });
        let resource = known.map_or("", |(gvr, _)| &gvr.resource).to_owned();
        self.requests
            .get_or_create(&RequestLabels {
                verb: info.verb.to_uppercase(),
                group: known.map_or("", |(gvr, _)| &gvr.group).to_owned(),
                version: known.map_or("", |(gvr, _)| &gvr.version).to_owned(),
                resource: resource.clone(),
                subresource: known.map_or("", |(_, subresource)| subresource).to_owned(),
                code: status.as_str().to_owned(),
            })
            .inc();
        if info.verb != "watch" {
            let labels = VerbLabels { verb: info.verb.to_uppercase(), resource };
            self.duration.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }

    /// The text of `/metrics`.
    pub(crate) fn encode(&self, registry: &Registry) -> Result<Answer, ApiError> {
        for resource in registry.resources() {
            let labels = ResourceLabels { resource: resource.gvr().qualified() };
            let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            self.objects.get_or_create(&labels).set(number(resource.count()));
            self.watchers.get_or_create(&labels).set(number(resource.watchers()));
        }
        self.reloads.iter().for_each(Reloading::update);
        let mut text = String::new();
        encode(&mut text, &self.collection)
            .map_err(|error| ApiError::internal(format!("metrics can't be encoded: {error}")))?;
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Ok(respond::bytes(StatusCode::OK, content_type, text))
    }
}
