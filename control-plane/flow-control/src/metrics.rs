//! What is counted, under upstream's names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

use crate::levels::Levels;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Flow {
    priority_level: String,
    flow_schema: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    priority_level: String,
    flow_schema: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waited {
    priority_level: String,
    flow_schema: String,
    execute: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ran {
    priority_level: String,
    flow_schema: String,
    r#type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLevel {
    priority_level: String,
}

type Fraction = Gauge<f64, AtomicU64>;
type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

fn durations() -> Histogram {
    Histogram::new([0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0])
}

fn widths() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0])
}

fn lengths() -> Histogram {
    Histogram::new([0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0])
}

/// The metrics of a gate.
pub(crate) struct Metrics {
    rejected: Family<Refused, Counter>,
    dispatched: Family<Flow, Counter>,
    in_queue: Family<Flow, Gauge>,
    in_queue_seats: Family<Flow, Gauge>,
    executing: Family<Flow, Gauge>,
    executing_seats: Family<Flow, Gauge>,
    waited: Durations<Waited>,
    ran: Durations<Ran>,
    widths: Durations<Flow>,
    queue_lengths: Durations<Flow>,
    levels: [Family<OfLevel, Gauge>; 4],
    demands: [Family<OfLevel, Fraction>; 5],
    fair_fraction: Fraction,
}

/// The metrics of one flow schema, looked up once.
pub(crate) struct OfSchema {
    pub(crate) dispatched: Counter,
    pub(crate) in_queue: Gauge,
    pub(crate) in_queue_seats: Gauge,
    pub(crate) executing: Gauge,
    pub(crate) executing_seats: Gauge,
    pub(crate) waited: Histogram,
    pub(crate) waited_in_vain: Histogram,
    pub(crate) ran: Histogram,
    pub(crate) ran_watch: Histogram,
    pub(crate) widths: Histogram,
    pub(crate) queue_lengths: Histogram,
    pub(crate) queue_full: Counter,
    pub(crate) no_seat: Counter,
    pub(crate) timed_out: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            rejected: Family::default(),
            dispatched: Family::default(),
            in_queue: Family::default(),
            in_queue_seats: Family::default(),
            executing: Family::default(),
            executing_seats: Family::default(),
            waited: Family::new_with_constructor(durations),
            ran: Family::new_with_constructor(durations),
            widths: Family::new_with_constructor(widths),
            queue_lengths: Family::new_with_constructor(lengths),
            levels: std::array::from_fn(|_| Family::default()),
            demands: std::array::from_fn(|_| Family::default()),
            fair_fraction: Fraction::default(),
        }
    }

    /// Adds everything to a collection. The text format adds `_total` to counters.
    pub(crate) fn register(&self, collection: &mut Registry) {
        let collection = collection.sub_registry_with_prefix("apiserver_flowcontrol");
        collection.register("rejected_requests", "Requests refused", self.rejected.clone());
        collection.register("dispatched_requests", "Requests that ran", self.dispatched.clone());
        collection.register("current_inqueue_requests", "Requests that wait", self.in_queue.clone());
        collection.register(
            "current_inqueue_seats",
            "Seats that are waited for",
            self.in_queue_seats.clone(),
        );
        collection.register("current_executing_requests", "Requests that run", self.executing.clone());
        collection.register("current_executing_seats", "Seats taken", self.executing_seats.clone());
        collection.register("request_wait_duration_seconds", "Time in the queue", self.waited.clone());
        collection.register("request_execution_seconds", "Time of running", self.ran.clone());
        collection.register("work_estimated_seats", "Guessed width of requests", self.widths.clone());
        collection.register(
            "request_queue_length_after_enqueue",
            "Length of the queue a request has joined",
            self.queue_lengths.clone(),
        );
        let names = ["nominal_limit_seats", "lower_limit_seats", "upper_limit_seats", "current_limit_seats"];
        for (name, metric) in names.into_iter().zip(&self.levels) {
            collection.register(name, "Seats of a level", metric.clone());
        }
        let names = [
            "demand_seats_high_watermark",
            "demand_seats_average",
            "demand_seats_stdev",
            "demand_seats_smoothed",
            "target_seats",
        ];
        for (name, metric) in names.into_iter().zip(&self.demands) {
            collection.register(name, "Demand of a level for seats", metric.clone());
        }
        let fair = "The fraction of their targets that levels get";
        collection.register("seat_fair_frac", fair, self.fair_fraction.clone());
    }

    /// The metrics of one schema.
    pub(crate) fn of_schema(&self, level: &str, schema: &str) -> OfSchema {
        let (priority_level, flow_schema) = (level.to_owned(), schema.to_owned());
        let flow = Flow { priority_level: priority_level.clone(), flow_schema: flow_schema.clone() };
        let waited = |execute: &str| {
            let (priority_level, flow_schema) = (priority_level.clone(), flow_schema.clone());
            let labels = Waited { priority_level, flow_schema, execute: execute.to_owned() };
            self.waited.get_or_create(&labels).clone()
        };
        let ran = |kind: &str| {
            let (priority_level, flow_schema) = (priority_level.clone(), flow_schema.clone());
            let labels = Ran { priority_level, flow_schema, r#type: kind.to_owned() };
            self.ran.get_or_create(&labels).clone()
        };
        let refused = |reason: &str| {
            let (priority_level, flow_schema) = (priority_level.clone(), flow_schema.clone());
            let labels = Refused { priority_level, flow_schema, reason: reason.to_owned() };
            self.rejected.get_or_create(&labels).clone()
        };
        OfSchema {
            dispatched: self.dispatched.get_or_create(&flow).clone(),
            in_queue: self.in_queue.get_or_create(&flow).clone(),
            in_queue_seats: self.in_queue_seats.get_or_create(&flow).clone(),
            executing: self.executing.get_or_create(&flow).clone(),
            executing_seats: self.executing_seats.get_or_create(&flow).clone(),
            waited: waited("true"),
            waited_in_vain: waited("false"),
            ran: ran("regular"),
            ran_watch: ran("watch"),
            widths: self.widths.get_or_create(&flow).clone(),
            queue_lengths: self.queue_lengths.get_or_create(&flow).clone(),
            queue_full: refused("queue-full"),
            no_seat: refused("concurrency-limit"),
            timed_out: refused("time-out"),
        }
    }

    /// Writes down how the levels stand.
    pub(crate) fn note_levels(&self, levels: &Levels) {
        for state in levels.iter() {
            let labels = OfLevel { priority_level: state.name.to_string() };
            let seats = [state.nominal, state.least, state.most, state.set.limit()];
            for (metric, seats) in self.levels.iter().zip(seats) {
                metric.get_or_create(&labels).set(i64::from(seats));
            }
            let last = state.demand.last;
            let demand = [last.highest, last.mean, last.deviation, state.demand.smoothed, state.target];
            for (metric, demand) in self.demands.iter().zip(demand) {
                metric.get_or_create(&labels).set(demand);
            }
        }
        self.fair_fraction.set(levels.fair_fraction);
    }
}
