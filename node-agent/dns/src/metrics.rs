//! The answerer's metrics, under CoreDNS's names where they exist.
//!
//! What counts each question is looked up once and kept in tables: the path of a question takes no lock but a
//! histogram's, which nobody else holds.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::packet::{Packet, Transport};

/// The types that are counted by name; the rest is `other`, as CoreDNS does.
const KINDS: [(RecordType, &str); 12] = [
    (RecordType::A, "A"),
    (RecordType::AAAA, "AAAA"),
    (RecordType::CNAME, "CNAME"),
    (RecordType::HTTPS, "HTTPS"),
    (RecordType::MX, "MX"),
    (RecordType::NS, "NS"),
    (RecordType::PTR, "PTR"),
    (RecordType::SOA, "SOA"),
    (RecordType::SRV, "SRV"),
    (RecordType::SVCB, "SVCB"),
    (RecordType::TXT, "TXT"),
    (RecordType::ANY, "ANY"),
];
const OTHER: &str = "other";
/// The names of response codes as they are registered, by number.
const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// What kind of question.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuestionLabels {
    proto: &'static str,
    r#type: &'static str,
}

/// How it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    rcode: &'static str,
}

/// Whether there was something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HitLabels {
    r#type: &'static str,
}

/// Who was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    to: String,
}

/// Who said what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    to: String,
    rcode: &'static str,
}

/// The metrics; cheap to clone, all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    tables: Arc<Tables>,
    requests: Family<QuestionLabels, Counter>,
    responses: Family<CodeLabels, Counter>,
    seconds: Histogram,
    hits: Family<HitLabels, Counter>,
    upstream_seconds: Family<UpstreamLabels, Histogram, fn() -> Histogram>,
    upstream_failures: Family<ServerLabels, Counter>,
    pub(crate) misses: Counter,
    pub(crate) stale: Counter,
    pub(crate) prefetches: Counter,
    pub(crate) rejected: Counter,
    pub(crate) entries: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) refused_connections: Counter,
    pub(crate) refused_clients: Counter,
    pub(crate) services: Gauge,
}

/// The counters of the families, so that they need not be looked up.
#[derive(Debug)]
struct Tables {
    requests: [[Counter; KINDS.len() + 1]; 2],
    responses: [Counter; CODES.len() + 1],
    positive: Counter,
    negative: Counter,
}

/// CoreDNS's buckets: from 0.25 ms on, doubling; with two below for what is answered here.
fn buckets() -> impl Iterator<Item = f64> {
    [0.00002, 0.0001].into_iter().chain((0..16).map(|power| 0.00025 * f64::from(1 << power)))
}

fn histogram() -> Histogram {
    Histogram::new(buckets())
}

fn code_name(code: ResponseCode) -> &'static str {
    CODES.get(usize::from(u16::from(code))).copied().unwrap_or(OTHER)
}

impl Default for Metrics {
    fn default() -> Self {
        let (requests, responses, hits) = (Family::default(), Family::default(), Family::default());
        let of_kind = |proto, at: usize| {
            let r#type = KINDS.get(at).map_or(OTHER, |(_, name)| name);
            Counter::clone(&requests.get_or_create(&QuestionLabels { proto, r#type }))
        };
        let of_code = |at: usize| {
            let rcode = CODES.get(at).copied().unwrap_or(OTHER);
            Counter::clone(&responses.get_or_create(&CodeLabels { rcode }))
        };
        let of_hit = |r#type| Counter::clone(&hits.get_or_create(&HitLabels { r#type }));
        let tables = Tables {
            requests: ["udp", "tcp"].map(|proto| std::array::from_fn(|at| of_kind(proto, at))),
            responses: std::array::from_fn(of_code),
            positive: of_hit("success"),
            negative: of_hit("denial"),
        };
        Self {
            tables: Arc::new(tables),
            requests,
            responses,
            seconds: histogram(),
            hits,
            upstream_seconds: Family::new_with_constructor(histogram),
            upstream_failures: Family::default(),
            misses: Counter::default(),
            stale: Counter::default(),
            prefetches: Counter::default(),
            rejected: Counter::default(),
            entries: Gauge::default(),
            connections: Gauge::default(),
            refused_connections: Counter::default(),
            refused_clients: Counter::default(),
            services: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Counts a question.
    pub(crate) fn question(&self, transport: Transport, kind: RecordType) {
        let at = KINDS.iter().position(|(known, _)| *known == kind).unwrap_or(KINDS.len());
        let row = match transport {
            Transport::Udp => 0,
            Transport::Tcp => 1,
        };
        self.tables.requests[row][at].inc();
    }

    /// Counts an answer.
    pub(crate) fn answer(&self, code: ResponseCode, took: Duration) {
        self.tables.responses[usize::from(u16::from(code)).min(CODES.len())].inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts an answer that was kept.
    pub(crate) fn hit(&self, packet: &Packet) {
        let tables = &self.tables;
        if packet.has_answers() {
            tables.positive.inc()
        } else {
            tables.negative.inc()
        };
    }

    /// Counts what a name server said.
    pub(crate) fn upstream(&self, server: SocketAddr, code: ResponseCode, took: Duration) {
        let labels = UpstreamLabels { to: server.to_string(), rcode: code_name(code) };
        self.upstream_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a name server that could not be spoken to.
    pub(crate) fn upstream_failed(&self, server: SocketAddr) {
        self.upstream_failures.get_or_create(&ServerLabels { to: server.to_string() }).inc();
    }

    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let dns = registry.sub_registry_with_prefix("coredns");
        dns.register("dns_requests", "Questions by transport and type", self.requests.clone());
        dns.register("dns_responses", "Answers by response code", self.responses.clone());
        dns.register("dns_request_duration_seconds", "From question to answer", self.seconds.clone());
        dns.register("cache_hits", "Answers of other servers that were kept", self.hits.clone());
        dns.register("cache_misses", "Questions whose answer was not kept", self.misses.clone());
        dns.register("cache_entries", "Answers that are kept", self.entries.clone());
        dns.register(
            "cache_prefetch",
            "Answers asked for again before they were over",
            self.prefetches.clone(),
        );
        dns.register("cache_served_stale", "Answers given though they were over", self.stale.clone());
        dns.register(
            "proxy_request_duration_seconds",
            "From question to answer, by name server",
            self.upstream_seconds.clone(),
        );
        dns.register(
            "proxy_request_failures",
            "Questions that a name server did not answer",
            self.upstream_failures.clone(),
        );
        dns.register(
            "forward_max_concurrent_rejects",
            "Questions not asked because too many were under way",
            self.rejected.clone(),
        );
        let own = registry.sub_registry_with_prefix("skep_dns");
        own.register("tcp_connections", "Open connections", self.connections.clone());
        own.register(
            "tcp_refused",
            "Connections closed for there were too many",
            self.refused_connections.clone(),
        );
        own.register("refused_clients", "Questions of those who may not ask", self.refused_clients.clone());
        own.register("services", "Services that are known", self.services.clone());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn questions_and_answers_are_counted_under_the_usual_names() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        metrics.question(Transport::Udp, RecordType::AAAA);
        metrics.question(Transport::Tcp, RecordType::NAPTR);
        metrics.answer(ResponseCode::NXDomain, Duration::from_micros(10));
        metrics.answer(ResponseCode::BADVERS, Duration::from_micros(10));
        let server = SocketAddr::from(([192, 0, 2, 1], 53));
        metrics.upstream(server, ResponseCode::NoError, Duration::from_millis(3));
        let mut text = String::new();
        encode(&mut text, &registry).expect("prints");
        for line in [
            "coredns_dns_requests_total{proto=\"udp\",type=\"AAAA\"} 1",
            "coredns_dns_requests_total{proto=\"tcp\",type=\"other\"} 1",
            "coredns_dns_requests_total{proto=\"udp\",type=\"A\"} 0",
            "coredns_dns_responses_total{rcode=\"NXDOMAIN\"} 1",
            "coredns_dns_responses_total{rcode=\"other\"} 1",
            "coredns_dns_request_duration_seconds_count 2",
            "coredns_proxy_request_duration_seconds_count{to=\"192.0.2.1:53\",rcode=\"NOERROR\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
