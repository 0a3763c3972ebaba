//! Questions to a name server: `dnsload ask` measures it, `dnsload watch` sees when it answers, `dnsload echo` is the
//! floor that it is measured against.

use std::{io::Write, net::SocketAddr, time::Duration};

use anyhow::Result;
use clap::Parser;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use skep_tests::dns::{self, Plan, Socket, Transport};

/// Asks name servers.
#[derive(Debug, Parser)]
enum Arguments {
    /// Asks as fast as it is answered; prints a JSON report.
    Ask {
        /// The server.
        target: SocketAddr,
        /// The names; "{}" is each number below --names.
        name: String,
        /// How many names.
        #[arg(long, default_value_t = 1)]
        names: usize,
        /// What carries the questions.
        #[arg(long, value_enum, default_value = "udp")]
        transport: Transport,
        /// Questions under way at once.
        #[arg(long, default_value_t = 1)]
        window: usize,
        /// How many seconds.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// The processor to stay on.
        #[arg(long)]
        cpu: Option<usize>,
    },
    /// Asks again and again; prints a line each: milliseconds, and what became of it.
    Watch {
        /// The server.
        target: SocketAddr,
        /// The name.
        name: String,
        /// Whether all questions are asked over one socket.
        #[arg(long, value_enum, default_value = "fresh")]
        socket: Socket,
        /// Milliseconds between questions.
        #[arg(long, default_value_t = 10)]
        gap: u64,
        /// How many seconds.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
    /// Sends back what comes.
    Echo {
        /// Where.
        address: SocketAddr,
        /// The processor to stay on.
        #[arg(long)]
        cpu: Option<usize>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments::Ask { target, name, names, transport, window, seconds, cpu } => {
            stay_on(cpu)?;
            let names = (0..names).map(|number| name.replace("{}", &number.to_string())).collect();
            let time = Duration::try_from_secs_f64(seconds)?;
            let report = dns::run(&Plan { target, names, transport, window, time })?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
        Arguments::Watch { target, name, socket, gap, seconds } => {
            let (gap, time) = (Duration::from_millis(gap), Duration::try_from_secs_f64(seconds)?);
            dns::watch(target, &name, socket, gap, time, |at, word| {
                println!("{at} {word}");
                Ok(std::io::stdout().flush()?)
            })
        }
        Arguments::Echo { address, cpu } => {
            stay_on(cpu)?;
            Ok(dns::echo(address, || {
                println!("ready");
                std::io::stdout().flush()
            })?)
        }
    }
}

/// Keeps this process on one processor; one that is not there is passed over.
fn stay_on(cpu: Option<usize>) -> Result<()> {
    let Some(cpu) = cpu.filter(|cpu| std::thread::available_parallelism().is_ok_and(|n| *cpu < n.get()))
    else {
        return Ok(());
    };
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
