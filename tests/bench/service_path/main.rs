//! `service-path`: what a service costs on one node, against what it could cost at best.
//!
//! In one run, interleaved so that the machine's moods hit all alike: a bare veth pair, pod to pod, pod to
//! ClusterIP by Skep, and the same through iptables and nftables rules of kube-proxy's shape. Everything lives
//! in namespaces and child cgroups of its own. Needs root and the eBPF object.

mod ground;
mod plot;
mod report;
mod rules;
#[path = "../stage.rs"]
mod stage;

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::Value;
use skep_tests::load::Mode;

use ground::{Ground, Row};
use report::Report;

/// Measures the path to a service.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each measurement is repeated.
    #[arg(long, default_value_t = 9)]
    repetitions: usize,
    /// How long one measurement takes, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Connections at once.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// How many services there are, two at least.
    #[arg(long, default_value_t = 10)]
    services: usize,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tcp-crr,tcp-rr")]
    modes: Vec<Mode>,
    /// Leave out the rows of iptables and nftables.
    #[arg(long)]
    only_ebpf: bool,
    /// Where the table, the figures and the plot are written.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/results"))]
    results: PathBuf,
    /// Given by cargo; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if !skep_tests::require("service-path") {
        return Ok(());
    }
    ensure!(arguments.repetitions > 0 && arguments.services > 1, "nothing to measure");
    let ground = Ground::prepare(arguments.services, !arguments.only_ebpf)?;
    let mut report = Report::new(arguments.services, arguments.connections, arguments.seconds);
    for repetition in 1..=arguments.repetitions {
        eprint!("\rrepetition {repetition}/{}", arguments.repetitions);
        for mode in &arguments.modes {
            // Each round begins with another row, so that none always comes first.
            let rows = ground.rows();
            for index in 0..rows.len() {
                let row = &rows[(index + repetition) % rows.len()];
                report.add(*mode, row, measure(&arguments, *mode, row)?);
            }
        }
    }
    eprintln!();
    drop(ground);
    let table = report.markdown();
    println!("{table}");
    std::fs::create_dir_all(&arguments.results)?;
    let file = |ending: &str| arguments.results.join(format!("service-path-{}.{ending}", arguments.services));
    std::fs::write(file("md"), table)?;
    std::fs::write(file("json"), serde_json::to_vec_pretty(&report.json())?)?;
    std::fs::write(file("svg"), plot::svg(&report))?;
    println!("written to {}", arguments.results.display());
    Ok(())
}

/// One measurement: transactions per second, and the latencies that the load tool saw.
fn measure(arguments: &Arguments, mode: Mode, row: &Row) -> Result<report::Sample> {
    let word = mode.to_possible_value().context("a mode without a name")?;
    let mut command: Command = row.client();
    command.args(["client", "--mode", word.get_name(), "--cpu", "0"]);
    command.args(["--target", &row.target.to_string()]);
    command.args(["--connections", &arguments.connections.to_string()]);
    command.args(["--seconds", &Duration::try_from_secs_f64(arguments.seconds)?.as_secs_f64().to_string()]);
    let output = skep_tests::succeed(&mut command).with_context(|| format!("measure {}", row.name))?;
    let result: Value = serde_json::from_str(&output)?;
    let number = |pointer: &str| result.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    ensure!(number("/errors") == 0.0, "{}: failed transactions: {output}", row.name);
    Ok(report::Sample {
        per_second: number("/perSecond"),
        p50_us: number("/latency/p50Us"),
        p99_us: number("/latency/p99Us"),
    })
}
