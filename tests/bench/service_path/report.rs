//! Medians, spreads and ratios of what was measured.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};
use skep_tests::load::Mode;

use crate::ground::Row;
use crate::stage::stats::{Spread, environment};

/// What the others are compared with.
const FLOOR: &str = "bare veth";
const DIRECT: &str = "pod to pod, Skep";

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// What is compared. The p50 is what one transaction costs when nothing else wants the processor; the rate has
/// everything in it.
const RATE: fn(&Sample) -> f64 = |sample| sample.per_second;
const P50: fn(&Sample) -> f64 = |sample| sample.p50_us;

/// All measurements.
pub(crate) struct Report {
    services: usize,
    connections: usize,
    seconds: f64,
    /// In the order of the rows.
    names: Vec<&'static str>,
    samples: BTreeMap<(Mode, &'static str), Vec<Sample>>,
}

impl Report {
    pub(crate) fn new(services: usize, connections: usize, seconds: f64) -> Self {
        Self { services, connections, seconds, names: Vec::new(), samples: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, mode: Mode, row: &Row, sample: Sample) {
        if !self.names.contains(&row.name) {
            self.names.push(row.name);
        }
        self.samples.entry((mode, row.name)).or_default().push(sample);
    }

    pub(crate) fn modes(&self) -> Vec<Mode> {
        Mode::ALL.into_iter().filter(|mode| self.samples.keys().any(|(m, _)| m == mode)).collect()
    }

    /// The rows in the order in which they read best.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        const ORDER: [&str; 8] = [
            FLOOR,
            DIRECT,
            "pod to ClusterIP, Skep",
            "pod to ClusterIP, Skep per packet",
            "pod to pod, routed",
            "pod to ClusterIP, iptables",
            "pod to ClusterIP, iptables (legacy)",
            "pod to ClusterIP, nftables",
        ];
        let mut names = self.names.clone();
        names.sort_by_key(|name| ORDER.iter().position(|known| known == name));
        names
    }

    pub(crate) fn rate(&self, mode: Mode, name: &'static str) -> Spread {
        Spread::of(self.all(mode, name).iter().map(|sample| sample.per_second))
    }

    fn all(&self, mode: Mode, name: &'static str) -> &[Sample] {
        self.samples.get(&(mode, name)).map_or(&[], Vec::as_slice)
    }

    /// The median of the ratios round by round: what the machine did in one round is in both.
    fn ratio(&self, mode: Mode, name: &'static str, to: &'static str, value: fn(&Sample) -> f64) -> f64 {
        let pairs = self.all(mode, name).iter().zip(self.all(mode, to));
        Spread::of(pairs.map(|(one, other)| value(one) / value(other))).middle
    }

    pub(crate) fn title(&self) -> String {
        format!("{} services, {} connection(s) at once", self.services, self.connections)
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("# service-path: {}\n\n{}\n", self.title(), environment());
        for mode in self.modes() {
            let head = format!(
                "\n## {}\n\n| path | per second | quartiles | of bare veth | of pod to pod | p50 µs | of bare veth | of pod to pod |\n|---|--:|--:|--:|--:|--:|--:|--:|",
                mode.name()
            );
            text.push_str(&head);
            for name in self.names() {
                let rate = self.rate(mode, name);
                write!(
                    text,
                    "\n| {name} | {:.0} | {:.0}..{:.0} | {:.2} | {:.2} | {:.1} | {:.2} | {:.2} |",
                    rate.middle,
                    rate.low,
                    rate.high,
                    self.ratio(mode, name, FLOOR, RATE),
                    self.ratio(mode, name, DIRECT, RATE),
                    Spread::of(self.all(mode, name).iter().map(P50)).middle,
                    self.ratio(mode, name, FLOOR, P50),
                    self.ratio(mode, name, DIRECT, P50),
                )
                .expect("text");
            }
            text.push('\n');
        }
        let rounds = self.samples.values().map(Vec::len).max().unwrap_or_default();
        write!(
            text,
            "\nMedians of {rounds} interleaved rounds of {} s each; ratios are medians of the ratios within a round.\n",
            self.seconds
        )
        .expect("text");
        text
    }

    pub(crate) fn json(&self) -> Value {
        let mut rows = Vec::new();
        for mode in self.modes() {
            for name in self.names() {
                let rate = self.rate(mode, name);
                let samples: Vec<Value> = self
                    .all(mode, name)
                    .iter()
                    .map(|s| json!({"perSecond": s.per_second, "p50Us": s.p50_us, "p99Us": s.p99_us}))
                    .collect();
                rows.push(json!({
                    "mode": mode.name(),
                    "path": name,
                    "perSecond": rate.middle,
                    "quartiles": [rate.low, rate.high],
                    "ofBareVeth": self.ratio(mode, name, FLOOR, RATE),
                    "ofPodToPod": self.ratio(mode, name, DIRECT, RATE),
                    "p50OfBareVeth": self.ratio(mode, name, FLOOR, P50),
                    "p50OfPodToPod": self.ratio(mode, name, DIRECT, P50),
                    "samples": samples,
                }));
            }
        }
        json!({
            "services": self.services,
            "connections": self.connections,
            "seconds": self.seconds,
            "environment": environment(),
            "rows": rows,
        })
    }
}
