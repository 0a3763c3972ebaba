//! What was measured, as JSON beside what earlier runs measured, and as a table of all numbers of services.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use skep_service_proxy::ProxyMode;
use skep_tests::load::Mode;

use crate::ground::{BARE, DIRECT, ROUTED, Row, SOCKET, Served, Updates};
use crate::plot;
use crate::stage::stats::{Spread, environment};

/// One measurement of a path: transactions, or bits of a stream, and latencies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// The order in which paths read best.
const ORDER: [&str; 7] = [
    BARE,
    DIRECT,
    SOCKET,
    "ClusterIP, Skep per packet",
    ROUTED,
    "ClusterIP, nftables",
    "ClusterIP, iptables",
];
const RULES: [(&str, &str); 2] = [("nftables", "ClusterIP, nftables"), ("iptables", "ClusterIP, iptables")];

/// One run.
pub(crate) struct Run {
    services: usize,
    endpoints: usize,
    seconds: f64,
    floors: BTreeMap<&'static str, &'static str>,
    samples: BTreeMap<(Mode, &'static str), Vec<Sample>>,
    back_ends: Map<String, Value>,
}

impl Run {
    pub(crate) fn new(services: usize, endpoints: usize, seconds: f64) -> Self {
        let (floors, samples, back_ends) = (BTreeMap::new(), BTreeMap::new(), Map::new());
        Self { services, endpoints, seconds, floors, samples, back_ends }
    }

    pub(crate) fn add_sample(&mut self, mode: Mode, row: &Row, sample: Sample) {
        self.floors.insert(row.name, row.floor);
        self.samples.entry((mode, row.name)).or_default().push(sample);
    }

    pub(crate) fn add_programming(&mut self, served: &Served) {
        let took = served.programming;
        self.back_ends.insert(
            served.mode.name().to_owned(),
            json!({"loadSeconds": took.load, "coldSeconds": took.cold, "warmSeconds": took.warm,
                "agentSeconds": took.own, "toolSeconds": took.tools, "residentMiB": took.resident,
                "peakMiB": took.peak}),
        );
    }

    pub(crate) fn add_updates(&mut self, mode: ProxyMode, updates: &Updates) {
        let spread = Spread::of(updates.effect.iter().copied());
        let most = updates.effect.iter().copied().fold(0.0, f64::max);
        if let Some(of) = self.back_ends.get_mut(mode.name()) {
            of["effectMs"] =
                json!({"p25": spread.low, "p50": spread.middle, "p75": spread.high, "max": most});
            of["changeAgentMs"] = updates.own.into();
            of["changeToolMs"] = updates.tools.into();
        }
    }

    fn all(&self, mode: Mode, name: &str) -> &[Sample] {
        let found = self.samples.iter().find(|((m, n), _)| *m == mode && *n == name);
        found.map_or(&[], |(_, samples)| samples.as_slice())
    }

    /// The median of the ratios round by round: what the machine did in one round is in both.
    fn ratio(&self, mode: Mode, name: &str, to: &str, value: fn(&Sample) -> f64) -> Value {
        let pairs = self.all(mode, name).iter().zip(self.all(mode, to));
        let ratios: Vec<f64> = pairs.map(|(one, other)| value(one) / value(other)).collect();
        if ratios.is_empty() { Value::Null } else { Spread::of(ratios).middle.into() }
    }

    fn path(&self, mode: Mode, name: &'static str) -> Value {
        let samples = self.all(mode, name);
        let rate = Spread::of(samples.iter().map(|sample| sample.per_second));
        let floor = self.floors.get(name).copied().unwrap_or(BARE);
        json!({
            "perSecond": rate.middle,
            "quartiles": [rate.low, rate.high],
            "p50Us": Spread::of(samples.iter().map(|sample| sample.p50_us)).middle,
            "p99Us": Spread::of(samples.iter().map(|sample| sample.p99_us)).middle,
            "ofBareVeth": self.ratio(mode, name, BARE, |sample| sample.per_second),
            "ofPodToPod": self.ratio(mode, name, floor, |sample| sample.per_second),
            "p50OfPodToPod": self.ratio(mode, name, floor, |sample| sample.p50_us),
            "rounds": samples.len(),
        })
    }

    fn json(&self) -> Value {
        let mut paths = Map::new();
        let mut ratios = Map::new();
        for &(mode, name) in self.samples.keys() {
            let of = paths.entry(name).or_insert_with(|| json!({}));
            of[mode.name()] = self.path(mode, name);
        }
        for mode in Mode::ALL {
            for (label, name) in RULES {
                let ratio = self.ratio(mode, SOCKET, name, |sample| sample.per_second);
                if !ratio.is_null() {
                    ratios.entry(label).or_insert_with(|| json!({}))[mode.name()] = ratio;
                }
            }
        }
        json!({"services": self.services, "endpoints": self.endpoints, "seconds": self.seconds,
            "environment": environment(), "paths": paths, "backEnds": self.back_ends, "skepAgainst": ratios})
    }
}

/// Values of `more` in the place of those of `into`, but for objects, which are joined.
fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// Puts a run beside earlier ones, and writes table and plot.
pub(crate) fn add(results: &Path, run: &Run) -> Result<()> {
    let file = results.join(format!("services-{}.json", run.services));
    let mut all = match std::fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| file.display().to_string())?,
        Err(_) => json!({}),
    };
    merge(&mut all, run.json());
    std::fs::write(&file, serde_json::to_vec_pretty(&all)?)?;
    std::fs::write(results.join("services.md"), table(results)?)?;
    std::fs::write(results.join("services.svg"), plot::svg(&read(results)?))?;
    Ok(())
}

/// All results, by the number of services.
fn read(results: &Path) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(results)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("services-") && name.ends_with(".json") {
            found.push(serde_json::from_slice(&std::fs::read(&path)?).context(name)?);
        }
    }
    found.sort_by_key(|one: &Value| one["services"].as_u64());
    Ok(found)
}

/// A number as a cell; a dash where nothing was measured.
fn cell(value: &Value, decimals: usize) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$}"))
}

/// The table.
pub(crate) fn table(results: &Path) -> Result<String> {
    let all = read(results)?;
    let mut text = String::from("# services\n");
    for one in &all {
        writeln!(
            text,
            "\n{} services: {}",
            one["services"],
            one["environment"].as_str().unwrap_or_default()
        )?;
    }
    text.push_str(
        "\n## On the way\n\n| services | path | TCP_CRR/s | of pod to pod | of bare veth | connect p50 µs | of pod to \
         pod | TCP_RR/s | UDP_RR/s | stream Gbit/s |\n|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for one in &all {
        for name in ORDER.into_iter().filter(|name| !one["paths"][*name].is_null()) {
            let path = &one["paths"][name];
            let (crr, connect) = (&path["TCP_CRR"], &path["CONNECT"]);
            let gigabits =
                path["STREAM"]["perSecond"].as_f64().map_or(Value::Null, |bits| (bits / 1e9).into());
            writeln!(
                text,
                "| {} | {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
                one["services"],
                cell(&crr["perSecond"], 0),
                cell(&crr["ofPodToPod"], 2),
                cell(&crr["ofBareVeth"], 2),
                cell(&connect["p50Us"], 1),
                cell(&connect["p50OfPodToPod"], 2),
                cell(&path["TCP_RR"]["perSecond"], 0),
                cell(&path["UDP_RR"]["perSecond"], 0),
                cell(&gigabits, 1),
            )?;
        }
    }
    text.push_str(
        "\n## Skep against the same services by rules\n\n| services | by | TCP_CRR | connections | TCP_RR | UDP_RR \
         |\n|--:|---|--:|--:|--:|--:|\n",
    );
    for one in &all {
        for (label, _) in RULES.into_iter().filter(|(label, _)| !one["skepAgainst"][*label].is_null()) {
            let of = &one["skepAgainst"][label];
            let ratios = ["TCP_CRR", "CONNECT", "TCP_RR", "UDP_RR"].map(|mode| cell(&of[mode], 2));
            writeln!(text, "| {} | {label} | {} |", one["services"], ratios.join(" | "))?;
        }
    }
    text.push_str(
        "\n## Changes, and all services from nothing\n\n| services | back end | one endpoint to its effect, ms (p50, \
         max) | CPU of a change, ms (agent, tools) | all in, s | CPU of that, s (agent, tools) | restart, s | memory, \
         MiB (at most) |\n|--:|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for one in &all {
        for mode in ProxyMode::ALL.into_iter().filter(|mode| !one["backEnds"][mode.name()].is_null()) {
            let of = &one["backEnds"][mode.name()];
            writeln!(
                text,
                "| {} | {mode} | {} ({}) | {} + {} | {} | {} + {} | {} | {} ({}) |",
                one["services"],
                cell(&of["effectMs"]["p50"], 2),
                cell(&of["effectMs"]["max"], 1),
                cell(&of["changeAgentMs"], 3),
                cell(&of["changeToolMs"], 1),
                cell(&of["coldSeconds"], 2),
                cell(&of["agentSeconds"], 2),
                cell(&of["toolSeconds"], 2),
                cell(&of["warmSeconds"], 2),
                cell(&of["residentMiB"], 0),
                cell(&of["peakMiB"], 0),
            )?;
        }
    }
    text.push_str(
        "\nRates are medians of interleaved rounds; ratios are medians of the ratios within a round. \"Pod to pod\" is \
         the same kind\nof node without a service: with Skep's programs for Skep, by plain routing for rules. Streams \
         of one connection. A change:\nthe endpoint of a UDP service is replaced while a client asks over fresh \
         sockets; CPU is of one endpoint more or less.\n",
    );
    Ok(text)
}
