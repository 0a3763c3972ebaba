//! `apiserver`: what the API server costs, against what its parts could do at best in the same run.
//!
//! Everything is in one process: the server over an embedded store (or an etcd that the benchmark starts),
//! its clients, and the store alone as the measure of writes. Numbers of lists and fan-out leave TLS out;
//! reads under load go over HTTP on loopback.

mod chart;
mod fanout;
mod lists;
mod memory;
mod mixed;
mod report;
mod world;
mod writes;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use report::Report;

/// Measures the API server.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Pods in the lists.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Open watches.
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,
    /// Events sent to the watches.
    #[arg(long, default_value_t = 500)]
    events: usize,
    /// Writers at the same time.
    #[arg(long, default_value_t = 32)]
    writers: usize,
    /// How long one measurement takes, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often each measurement is repeated.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Where the table, the figures and the plot are written.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/results"))]
    results: PathBuf,
    /// Given by cargo; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut report = Report::default();
    memory::measure(&arguments, &mut report)?;
    lists::measure(&arguments, &mut report)?;
    fanout::measure(&arguments, &mut report)?;
    mixed::measure(&arguments, &mut report)?;
    writes::measure(&arguments, &mut report)?;
    let table = report.markdown();
    println!("{table}");
    std::fs::create_dir_all(&arguments.results)?;
    let file = |ending: &str| arguments.results.join(format!("apiserver.{ending}"));
    std::fs::write(file("md"), table)?;
    std::fs::write(file("json"), serde_json::to_vec_pretty(&report.json())?)?;
    std::fs::write(file("svg"), chart::svg(&report))?;
    println!("written to {}", arguments.results.display());
    Ok(())
}
