//! The `skep` command: parses the command line and composes the parts.

mod admission;
mod agent;
mod dns;
mod down;
mod elected;
mod folders;
mod host;
mod isolate;
mod join;
mod kubeconfig;
mod limits;
mod net;
mod progress;
mod runtime;
mod server;
mod supervise;
mod token;
mod up;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// A networking-first Kubernetes in one command.
#[derive(Parser)]
#[command(name = "skep", version)]
struct Args {
    /// What to log, as RUST_LOG has it. `up` shows warnings only, the others what they do.
    #[arg(long, global = true, env = "SKEP_LOG", value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a one-node cluster in the foreground.
    Up(Box<up::Options>),
    /// Run the control plane only.
    Server(Box<server::Options>),
    /// Run a node only.
    Agent(Box<agent::Options>),
    /// Write the credentials for another machine to join as a node.
    Credentials(agent::CredentialsOptions),
    /// Make, list and delete the tokens by which machines join.
    Token(token::Options),
    /// Stop the pods of this node; with --purge remove every trace of Skep.
    Down(Box<down::Options>),
    /// Print a kubeconfig for the cluster's administrator.
    Kubeconfig(kubeconfig::Options),
    /// Look inside the data plane.
    Net(net::Options),
    /// Writes a container's output to its log file. Started by containerd.
    #[command(hide = true)]
    LogWriter {
        /// What to write where.
        argument: String,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skep: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    if let Command::LogWriter { argument } = &args.command {
        // Starts with every container: nothing else may happen before it.
        return Ok(skep_runtime::logger_main(argument)?);
    }
    let quiet = matches!(args.command, Command::Up(_) | Command::Down(_));
    let default = if quiet { "warn" } else { "warn,skep=info" };
    let filter = EnvFilter::try_new(args.log.as_deref().unwrap_or(default)).context("reading --log")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match args.command {
        Command::Up(options) => up::main(*options),
        Command::Server(options) => server::main(*options),
        Command::Agent(options) => agent::main(*options),
        Command::Credentials(options) => agent::credentials(&options),
        Command::Token(options) => token::main(&options),
        Command::Down(options) => down::main(*options),
        Command::Kubeconfig(options) => kubeconfig::main(&options),
        Command::Net(options) => net::main(&options),
        Command::LogWriter { .. } => Ok(()),
    }
}
