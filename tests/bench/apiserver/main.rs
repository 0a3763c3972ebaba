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

use anyhow::{Result, ensure};
use clap::Parser;

use report::{Part, Report};

/// Measures one part.
type Measure = fn(&Arguments, &mut Part) -> Result<()>;

/// What can be measured. Memory comes first: later the allocator holds memory that is nobody's.
const PARTS: [(&str, Measure); 5] = [
    ("memory", memory::measure),
    ("lists", lists::measure),
    ("fanout", fanout::measure),
    ("mixed", mixed::measure),
    ("writes", writes::measure),
];

/// Measures the API server.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Measure these parts alone, separated by commas: memory, lists, fanout, mixed, writes.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
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
    let names = PARTS.map(|(name, _)| name);
    for name in &arguments.only {
        ensure!(names.contains(&name.as_str()), "no part {name}; there are: {}", names.join(", "));
    }
    let file = |ending: &str| arguments.results.join(format!("apiserver.{ending}"));
    let mut report = Report::read(&file("json"))?;
    std::fs::create_dir_all(&arguments.results)?;
    for (name, measure) in PARTS {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        let mut part = Part::new(name);
        measure(&arguments, &mut part)?;
        report.put(part, &names);
        // What is measured stays, whatever becomes of the parts after it.
        std::fs::write(file("md"), report.markdown())?;
        std::fs::write(file("json"), serde_json::to_vec_pretty(&report.json())?)?;
        std::fs::write(file("svg"), chart::svg(&report))?;
    }
    println!("{}", report.markdown());
    println!("written to {}", arguments.results.display());
    Ok(())
}
