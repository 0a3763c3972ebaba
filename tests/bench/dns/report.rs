//! Medians and quartiles of what was measured, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::MODES;
use crate::stats::{Spread, environment};

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// The peer that ours is compared with.
const PEER: &str = "dnsmasq";

/// All measurements.
pub(crate) struct Report {
    services: usize,
    seconds: f64,
    /// In the order in which they were added first.
    servers: Vec<&'static str>,
    samples: BTreeMap<(&'static str, &'static str), Vec<Sample>>,
}

impl Report {
    pub(crate) fn new(services: usize, seconds: f64) -> Self {
        Self { services, seconds, servers: Vec::new(), samples: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, mode: &'static str, server: &'static str, sample: Sample) {
        if !self.servers.contains(&server) {
            self.servers.push(server);
            self.servers.sort_unstable();
        }
        self.samples.entry((mode, server)).or_default().push(sample);
    }

    fn all(&self, mode: &'static str, server: &'static str) -> &[Sample] {
        self.samples.get(&(mode, server)).map_or(&[], Vec::as_slice)
    }

    fn spread(&self, mode: &'static str, server: &'static str, value: fn(&Sample) -> f64) -> Spread {
        Spread::of(self.all(mode, server).iter().map(value))
    }

    /// The median of the ratios round by round: what the machine did in one round is in both.
    fn of_peer(&self, mode: &'static str, server: &'static str) -> f64 {
        let pairs = self.all(mode, server).iter().zip(self.all(mode, PEER));
        Spread::of(pairs.map(|(one, other)| one.per_second / other.per_second)).middle
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("# dns: the names of {} services\n\n{}\n", self.services, environment());
        for mode in MODES.iter().map(|mode| mode.name) {
            let head = format!(
                "\n## {mode}\n\n| server | answers/s | quartiles | of dnsmasq | p50 µs | p99 µs |\n\
                 |---|--:|--:|--:|--:|--:|"
            );
            text.push_str(&head);
            for server in &self.servers {
                let rate = self.spread(mode, server, |sample| sample.per_second);
                write!(
                    text,
                    "\n| {server} | {:.0} | {:.0}..{:.0} | {:.2} | {:.1} | {:.1} |",
                    rate.middle,
                    rate.low,
                    rate.high,
                    self.of_peer(mode, server),
                    self.spread(mode, server, |sample| sample.p50_us).middle,
                    self.spread(mode, server, |sample| sample.p99_us).middle,
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
        let rows: Vec<Value> = self
            .samples
            .iter()
            .map(|((mode, server), samples)| {
                let samples: Vec<Value> = samples
                    .iter()
                    .map(|s| json!({"perSecond": s.per_second, "p50Us": s.p50_us, "p99Us": s.p99_us}))
                    .collect();
                json!({"mode": mode, "server": server, "ofPeer": self.of_peer(mode, server), "samples": samples})
            })
            .collect();
        json!({
            "services": self.services,
            "seconds": self.seconds,
            "environment": environment(),
            "rows": rows,
        })
    }
}
