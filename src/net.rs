//! `skep net`: what the kernel's maps hold. Works while no agent runs.

mod policy;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use skep_service_proxy::inspect::{self, Format};
use skep_service_proxy::{ProxyMode, recorded_mode};

use crate::folders::Folders;
use crate::isolate::Isolation;

/// `skep net`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    isolation: Isolation,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    what: What,
}

/// How to print.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// Columns.
    Table,
    /// JSON.
    Json,
}

/// What to look at.
#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Each virtual address with its backends.
    Services,
    /// Each backend and the addresses that it serves.
    Backends,
    /// The mode, programs and where they are attached, maps with their sizes, counters.
    Status,
    /// The connections that programs translate packet by packet.
    Conntrack,
    /// Whose source address was replaced.
    Nat,
    /// Which clients stick to which backends.
    Affinity,
    /// Network policy: what holds for this node's pods, and why one may talk to another.
    Policy(policy::Options),
    /// Why packets and connects were dropped, and how many.
    Drops,
    /// Look for what is wrong, and say what to do about it. Fails if there is a problem.
    Check,
}

/// `skep net`.
pub(crate) fn main(options: &Options) -> Result<()> {
    options.isolation.enter()?;
    let format = match options.output {
        Output::Table => Format::Table,
        Output::Json => Format::Json,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(show(options, format))
}

async fn show(options: &Options, format: Format) -> Result<()> {
    let pins = &options.folders.pin_dir;
    let record = options.folders.agent().join(skep_node_agent::PROXY_RECORD);
    let rules = recorded_mode(&record).filter(|mode| mode.is_rules());
    let text = match (&options.what, rules) {
        (What::Services, Some(mode)) => inspect::rule_services(mode, format).await?,
        (What::Backends, Some(mode)) => inspect::rule_backends(mode, format).await?,
        (What::Conntrack | What::Affinity, Some(mode)) => bail!("{}", elsewhere(mode)),
        (What::Services, None) => inspect::services(pins, format)?,
        (What::Backends, None) => inspect::backends(pins, format)?,
        (What::Status, _) => inspect::status(pins, &record, format)?,
        (What::Conntrack, None) => inspect::flows(pins, format)?,
        (What::Nat, _) => inspect::nat(pins, format)?,
        (What::Affinity, None) => inspect::affinity(pins, format)?,
        (What::Drops, _) => inspect::drops(pins, format)?,
        (What::Policy(policy), _) => {
            policy::show(policy, &options.folders, matches!(format, Format::Json)).await?
        }
        (What::Check, _) => {
            let report = inspect::check(pins, &record, format).await?;
            print!("{}", report.text);
            if !report.sound {
                bail!("there are problems");
            }
            return Ok(());
        }
    };
    print!("{text}");
    Ok(())
}

/// Where the kernel's own tools show what rules keep.
fn elsewhere(mode: ProxyMode) -> String {
    let affinity = match mode {
        ProxyMode::Nftables => "`nft list sets` (affinity-…)",
        _ => "/proc/net/xt_recent/",
    };
    format!(
        "services are translated by {mode} rules: connections are in `conntrack -L`, affinity is in {affinity}"
    )
}
