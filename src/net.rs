//! `skep net`: what the kernel's maps hold. Works while no agent runs.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use skep_service_proxy::inspect::{self, Format};

use crate::folders::Folders;

/// `skep net`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    folders: Folders,
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
    /// Programs, where they are attached, and the sizes of maps.
    Status,
}

/// `skep net`.
pub(crate) fn main(options: &Options) -> Result<()> {
    let format = match options.output {
        Output::Table => Format::Table,
        Output::Json => Format::Json,
    };
    let pins = &options.folders.pin_dir;
    let text = match options.what {
        What::Services => inspect::services(pins, format)?,
        What::Backends => inspect::backends(pins, format)?,
        What::Status => inspect::status(pins, format)?,
    };
    print!("{text}");
    Ok(())
}
