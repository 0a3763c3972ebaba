//! `services`: what services cost, by their number: on the way, at a change, and to bring them all in.
//!
//! In one run, interleaved: a bare veth pair, pod to pod, and pod to ClusterIP by our three back ends, each kept by an
//! agent of its own that follows an API server in this process. The agents are processes, so that their time and
//! memory are theirs. Everything lives in namespaces and child cgroups of its own. Needs root and the eBPF object.
//!
//! Each run adds to `results/services-N.json` what it measured, and makes the table and the plot of all numbers anew.

mod agent;
mod api;
mod ground;
mod plot;
mod probe;
mod report;
#[path = "../stage.rs"]
mod stage;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;
use skep_service_proxy::ProxyMode;
use skep_tests::load::Mode;

use ground::{Ground, Row};
use report::{Run, Sample};

/// Measures services by their number.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// How many services there are; several numbers are measured one after another.
    #[arg(long, value_delimiter = ',', default_value = "10")]
    services: Vec<usize>,
    /// The endpoints of each service that nobody dials.
    #[arg(long, default_value_t = 3)]
    endpoints: usize,
    /// The back ends to measure.
    #[arg(long, value_delimiter = ',', default_value = "ebpf,nftables,iptables")]
    only: Vec<ProxyMode>,
    /// How often each measurement of a path is repeated.
    #[arg(long, default_value_t = 7)]
    repetitions: usize,
    /// How long one takes, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// What is measured of the paths.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tcp-crr,tcp-rr,udp-rr,stream,connect")]
    modes: Vec<Mode>,
    /// Changed endpoints; none for 0.
    #[arg(long, default_value_t = 40)]
    updates: usize,
    /// Where the table, the figures and the plot are written.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/results"))]
    results: PathBuf,
    /// Given by cargo; means nothing here.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program does when it starts itself.
#[derive(Debug, Subcommand)]
enum Part {
    /// The service proxy.
    #[command(hide = true)]
    Agent(agent::AgentArguments),
    /// Asks until an endpoint answers.
    #[command(hide = true)]
    Probe(probe::ProbeArguments),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.part {
        Some(Part::Agent(arguments)) => return agent::main(arguments),
        Some(Part::Probe(arguments)) => return probe::main(arguments),
        None => {}
    }
    if !skep_tests::require("services") {
        return Ok(());
    }
    ensure!(arguments.endpoints > 1 && !arguments.only.is_empty(), "nothing to measure");
    std::fs::create_dir_all(&arguments.results)?;
    for &services in &arguments.services {
        ensure!(services >= 5, "five services at least: two are dialled, one moves, one grows");
        let run = measure_all(&arguments, services)?;
        report::add(&arguments.results, &run)?;
        println!("{}", report::table(&arguments.results)?);
    }
    println!("written to {}", arguments.results.display());
    Ok(())
}

fn measure_all(arguments: &Arguments, services: usize) -> Result<Run> {
    let ground = Ground::prepare(services, arguments.endpoints, &arguments.only)?;
    let mut run = Run::new(services, arguments.endpoints, arguments.seconds);
    for served in &ground.served {
        run.add_programming(served);
    }
    for repetition in 1..=arguments.repetitions {
        eprint!("\rrepetition {repetition}/{}", arguments.repetitions);
        for mode in &arguments.modes {
            // Each round begins with another row, so that none always comes first.
            let rows = ground.rows();
            for index in 0..rows.len() {
                let row = &rows[(index + repetition) % rows.len()];
                run.add_sample(*mode, row, measure(arguments, *mode, row)?);
            }
        }
    }
    eprintln!();
    if arguments.updates > 0 {
        for served in &ground.served {
            eprintln!("changes by {}", served.mode);
            let updates =
                served.updates(arguments.updates).with_context(|| format!("change by {}", served.mode))?;
            run.add_updates(served.mode, &updates);
        }
    }
    Ok(run)
}

/// One measurement of a path.
fn measure(arguments: &Arguments, mode: Mode, row: &Row) -> Result<Sample> {
    let word = mode.to_possible_value().context("a mode without a name")?;
    let mut command = row.client();
    command.args(["client", "--mode", word.get_name(), "--cpu", "0", "--target", &row.target.to_string()]);
    command.args(["--seconds", &arguments.seconds.to_string()]);
    let output = skep_tests::succeed(&mut command).with_context(|| format!("measure {}", row.name))?;
    let result: Value = serde_json::from_str(&output)?;
    let number = |pointer: &str| result.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    ensure!(number("/errors") == 0.0, "{}: failed transactions: {output}", row.name);
    let per_second = if mode == Mode::Stream { number("/bitsPerSecond") } else { number("/perSecond") };
    Ok(Sample { per_second, p50_us: number("/latency/p50Us"), p99_us: number("/latency/p99Us") })
}
