//! Load between two network namespaces: `netload server` in one, `netload client` in the other.

use std::{
    io::{BufRead, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Result;
use clap::Parser;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use skep_tests::load::{self, Mode, Plan};

/// Measures TCP_CRR, TCP_RR, UDP_RR and STREAM between two addresses.
#[derive(Debug, Parser)]
enum Arguments {
    /// Answers until its standard input closes.
    Server {
        /// The TCP and UDP ports to answer on.
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
        /// The processor to stay on.
        #[arg(long)]
        cpu: Option<usize>,
    },
    /// Measures and prints a JSON report.
    Client {
        /// What to measure.
        #[arg(long, value_enum)]
        mode: Mode,
        /// The server, or what leads to it.
        #[arg(long)]
        target: SocketAddr,
        /// How many connections at once.
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// How many seconds.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// The processor to stay on.
        #[arg(long)]
        cpu: Option<usize>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments::Server { listen, cpu } => {
            stay_on(cpu)?;
            let servers = listen.into_iter().map(load::serve).collect::<Result<Vec<_>>>()?;
            for server in &servers {
                println!("{}", server.address());
            }
            std::io::stdout().flush()?;
            // The end of the input is the end of whoever started this.
            while std::io::stdin().lock().read_line(&mut String::new())? > 0 {}
            Ok(())
        }
        Arguments::Client { mode, target, connections, seconds, cpu } => {
            stay_on(cpu)?;
            let time = Duration::try_from_secs_f64(seconds)?;
            let report = load::run(&Plan { mode, target, connections, time })?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
    }
}

/// Keeps this process, and the threads it will start, on one processor; one that is not there is passed over.
fn stay_on(cpu: Option<usize>) -> Result<()> {
    let Some(cpu) = cpu.filter(|cpu| std::thread::available_parallelism().is_ok_and(|n| *cpu < n.get()))
    else {
        return Ok(());
    };
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
