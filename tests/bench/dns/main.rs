//! `dns`: what an answer of the node's own name server costs.
//!
//! In one run, interleaved so that the machine's moods hit all alike: our answerer, dnsmasq with the same records from
//! a hosts file, and a socket that sends back what it gets, the floor. The one who asks is in a namespace of its own,
//! as a pod is, on another processor than the servers. Needs root.

mod answerer;
mod ground;
mod report;
#[path = "../stage/stats.rs"]
mod stats;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use serde_json::Value;

use ground::{Ground, Server};
use report::{Report, Sample};

/// Measures the node's name server.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// How many services have names.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// How often each measurement is repeated.
    #[arg(long, default_value_t = 9)]
    repetitions: usize,
    /// How long one takes, in seconds.
    #[arg(long, default_value_t = 0.8)]
    seconds: f64,
    /// Where the table and the figures are written.
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
    /// Our answerer.
    #[command(hide = true)]
    Answerer(answerer::Arguments),
}

/// A way of asking.
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    transport: &'static str,
    window: usize,
}

const MODES: [Mode; 3] = [
    Mode { name: "UDP, one question at a time", transport: "udp", window: 1 },
    Mode { name: "UDP, 32 questions at once", transport: "udp", window: 32 },
    Mode { name: "TCP, a connection for each question", transport: "tcp-each", window: 1 },
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Part::Answerer(arguments)) = &arguments.part {
        return answerer::main(arguments);
    }
    if !skep_tests::require("dns") {
        return Ok(());
    }
    ensure!(arguments.repetitions > 0, "nothing to measure");
    ensure!((1..=answerer::MOST).contains(&arguments.services), "1 to {} services", answerer::MOST);
    let ground = Ground::prepare(arguments.services)?;
    let mut report = Report::new(arguments.services, arguments.seconds);
    for repetition in 1..=arguments.repetitions {
        eprint!("\rrepetition {repetition}/{}", arguments.repetitions);
        for mode in &MODES {
            // Each round begins with another server, so that none always comes first.
            let servers = ground.servers();
            for index in 0..servers.len() {
                let server = &servers[(index + repetition) % servers.len()];
                report.add(mode.name, server.name, measure(&arguments, &ground, mode, server)?);
            }
        }
    }
    eprintln!();
    drop(ground);
    let table = report.markdown();
    println!("{table}");
    std::fs::create_dir_all(&arguments.results)?;
    let file = |ending: &str| arguments.results.join(format!("dns-{}.{ending}", arguments.services));
    std::fs::write(file("md"), table)?;
    std::fs::write(file("json"), serde_json::to_vec_pretty(&report.json())?)?;
    println!("written to {}", arguments.results.display());
    Ok(())
}

/// One measurement, as the load tool saw it.
fn measure(arguments: &Arguments, ground: &Ground, mode: &Mode, server: &Server) -> Result<Sample> {
    let mut command = ground.client();
    command.args(["ask", &server.address.to_string(), &answerer::name("{}")]);
    command.args(["--names", &arguments.services.to_string(), "--transport", mode.transport]);
    command.args(["--window", &mode.window.to_string(), "--seconds", &arguments.seconds.to_string()]);
    command.args(["--cpu", "0"]);
    let output = skep_tests::succeed(&mut command).with_context(|| format!("ask {}", server.name))?;
    let result: Value = serde_json::from_str(&output)?;
    let number = |pointer: &str| result.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    ensure!(number("/answers") > 0.0, "{}: no answers: {output}", server.name);
    // A datagram may be lost where many are under way; a server that refuses would make itself fast.
    ensure!(number("/errors") * 1000.0 <= number("/answers"), "{}: failed questions: {output}", server.name);
    Ok(Sample {
        per_second: number("/perSecond"),
        p50_us: number("/latency/p50Us"),
        p99_us: number("/latency/p99Us"),
    })
}
