//! Load between two network namespaces: `netload server` in one, `netload client` in the other.

use std::{
    io::{BufRead, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Result;
use clap::Parser;
use skep_tests::load::{self, Mode, Plan};

/// Measures TCP_CRR, TCP_RR, UDP_RR and STREAM between two addresses.
#[derive(Debug, Parser)]
enum Arguments {
    /// Answers until its standard input closes.
    Server {
        /// The TCP and UDP port to answer on.
        #[arg(long)]
        listen: SocketAddr,
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
    },
}

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments::Server { listen } => {
            let server = load::serve(listen)?;
            println!("{}", server.address());
            std::io::stdout().flush()?;
            // The end of the input is the end of whoever started this.
            while std::io::stdin().lock().read_line(&mut String::new())? > 0 {}
            Ok(())
        }
        Arguments::Client { mode, target, connections, seconds } => {
            let time = Duration::try_from_secs_f64(seconds)?;
            let report = load::run(&Plan { mode, target, connections, time })?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
    }
}
