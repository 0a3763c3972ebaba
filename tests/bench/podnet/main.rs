//! `podnet`: what the way from pod to pod costs, on one node and between two.
//!
//! In one run, interleaved so that the machine's moods hit all alike: Skep's pod network (same node, native routes,
//! VXLAN), each with network policy and without, the same through bridges and iptables (the classic shape of a pod
//! network), and what is there at best: a bare veth pair and a bare VXLAN device. Needs root and the eBPF object.

mod bridge;
mod ground;
mod report;
#[path = "../stage/server.rs"]
mod server;
mod skep;
#[path = "../stage/stats.rs"]
mod stats;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::Value;
use skep_tests::load::Mode;

use ground::{Ground, Row};
use report::{Report, Sample};

/// Measures the pod network.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each measurement is repeated.
    #[arg(long, default_value_t = 9)]
    repetitions: usize,
    /// How long one measurement takes, in seconds.
    #[arg(long, default_value_t = 0.7)]
    seconds: f64,
    /// What to measure; `udp-rr` is packets of one byte.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tcp-rr,tcp-crr,stream,udp-rr")]
    modes: Vec<Mode>,
    /// Where the table and the figures are written.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/results"))]
    results: PathBuf,
    /// Given by cargo; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if !skep_tests::require("podnet") {
        return Ok(());
    }
    ensure!(arguments.repetitions > 0 && !arguments.modes.is_empty(), "nothing to measure");
    let ground = Ground::prepare()?;
    let mut report = Report::new(arguments.seconds, ground.rows());
    for repetition in 1..=arguments.repetitions {
        eprint!("\rrepetition {repetition}/{}", arguments.repetitions);
        for mode in &arguments.modes {
            // Each round begins with another row, so that none always comes first.
            let rows = ground.rows();
            for index in 0..rows.len() {
                let row = &rows[(index + repetition) % rows.len()];
                report.add(*mode, row.name, measure(&arguments, *mode, row)?);
            }
        }
    }
    eprintln!();
    drop(ground);
    let table = report.markdown();
    println!("{table}");
    std::fs::create_dir_all(&arguments.results)?;
    std::fs::write(arguments.results.join("podnet.md"), table)?;
    std::fs::write(arguments.results.join("podnet.json"), serde_json::to_vec_pretty(&report.json())?)?;
    println!("written to {}", arguments.results.display());
    Ok(())
}

/// One measurement, as the load tool saw it.
fn measure(arguments: &Arguments, mode: Mode, row: &Row) -> Result<Sample> {
    let word = mode.to_possible_value().context("a mode without a name")?;
    let mut command = row.client();
    command.args(["client", "--mode", word.get_name(), "--cpu", "0", "--connections", "1"]);
    command.args(["--target", &row.target.to_string(), "--seconds", &arguments.seconds.to_string()]);
    let output = skep_tests::succeed(&mut command).with_context(|| format!("measure {}", row.name))?;
    let result: Value = serde_json::from_str(&output)?;
    let number = |pointer: &str| result.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    ensure!(number("/errors") == 0.0, "{}: failed transactions: {output}", row.name);
    let rate = if mode == Mode::Stream { number("/bitsPerSecond") / 1e9 } else { number("/perSecond") };
    Ok(Sample { rate, p50_us: number("/latency/p50Us"), p99_us: number("/latency/p99Us") })
}
