//! Medians, spreads and ratios of what was measured.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};
use skep_tests::load::Mode;

use crate::ground::Row;
use crate::stats::{Spread, environment};

/// One measurement: transactions per second, or gigabits per second of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// A way and what it is compared with.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    floor: &'static str,
    classic: Option<&'static str>,
    open: Option<&'static str>,
}

/// All measurements.
pub(crate) struct Report {
    seconds: f64,
    ways: Vec<Way>,
    samples: BTreeMap<(Mode, &'static str), Vec<Sample>>,
}

impl Report {
    pub(crate) fn new(seconds: f64, rows: &[Row]) -> Self {
        let way = |row: &Row| Way { name: row.name, floor: row.floor, classic: row.classic, open: row.open };
        Self { seconds, ways: rows.iter().map(way).collect(), samples: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, mode: Mode, name: &'static str, sample: Sample) {
        self.samples.entry((mode, name)).or_default().push(sample);
    }

    fn modes(&self) -> impl Iterator<Item = Mode> {
        Mode::ALL.into_iter().filter(|mode| self.samples.keys().any(|(m, _)| m == mode))
    }

    fn all(&self, mode: Mode, name: &'static str) -> &[Sample] {
        self.samples.get(&(mode, name)).map_or(&[], Vec::as_slice)
    }

    /// The median of the ratios round by round: what the machine did in one round is in both.
    fn ratio(&self, mode: Mode, name: &'static str, to: &'static str, value: fn(&Sample) -> f64) -> f64 {
        let pairs = self.all(mode, name).iter().zip(self.all(mode, to));
        Spread::of(pairs.map(|(one, other)| value(one) / value(other))).middle
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("# podnet\n\n{}\n", environment());
        for mode in self.modes() {
            let unit = if mode == Mode::Stream { "Gbit/s" } else { "per second" };
            write!(
                text,
                "\n## {}\n\n| path | {unit} | quartiles | of bare | of bridge + iptables | of no policy | p50 µs | of bare |\n|---|--:|--:|--:|--:|--:|--:|--:|",
                mode.name()
            )
            .expect("text");
            let digits = if mode == Mode::Stream { 2 } else { 0 };
            for way in &self.ways {
                let rate = Spread::of(self.all(mode, way.name).iter().map(|sample| sample.rate));
                let to = |other: Option<&'static str>| {
                    other.map_or_else(String::new, |other| {
                        format!("{:.2}", self.ratio(mode, way.name, other, |sample| sample.rate))
                    })
                };
                write!(
                    text,
                    "\n| {} | {:.digits$} | {:.digits$}..{:.digits$} | {} | {} | {} | {:.1} | {:.2} |",
                    way.name,
                    rate.middle,
                    rate.low,
                    rate.high,
                    to(Some(way.floor)),
                    to(way.classic),
                    to(way.open),
                    Spread::of(self.all(mode, way.name).iter().map(|sample| sample.p50_us)).middle,
                    self.ratio(mode, way.name, way.floor, |sample| sample.p50_us),
                )
                .expect("text");
            }
            text.push('\n');
        }
        let rounds = self.samples.values().map(Vec::len).max().unwrap_or_default();
        write!(
            text,
            "\nMedians of {rounds} interleaved rounds of {} s each; ratios are medians of the ratios within a round. \"Bare\" is the veth pair, or for VXLAN the device, between two namespaces; one connection at a time, packets of one byte but for the stream.\n",
            self.seconds
        )
        .expect("text");
        text
    }

    pub(crate) fn json(&self) -> Value {
        let mut rows = Vec::new();
        for mode in self.modes() {
            for way in &self.ways {
                let rate = Spread::of(self.all(mode, way.name).iter().map(|sample| sample.rate));
                let to = |other: Option<&'static str>| {
                    other.map(|other| self.ratio(mode, way.name, other, |sample| sample.rate))
                };
                let samples: Vec<Value> = self
                    .all(mode, way.name)
                    .iter()
                    .map(|s| json!({"rate": s.rate, "p50Us": s.p50_us, "p99Us": s.p99_us}))
                    .collect();
                rows.push(json!({
                    "mode": mode.name(),
                    "path": way.name,
                    "rate": rate.middle,
                    "quartiles": [rate.low, rate.high],
                    "ofBare": to(Some(way.floor)),
                    "ofBridge": to(way.classic),
                    "ofNoPolicy": to(way.open),
                    "p50OfBare": self.ratio(mode, way.name, way.floor, |sample| sample.p50_us),
                    "samples": samples,
                }));
            }
        }
        json!({"seconds": self.seconds, "environment": environment(), "rows": rows})
    }
}
