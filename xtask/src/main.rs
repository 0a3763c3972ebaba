//! The project's chores. `cargo xtask --help` lists them; CI calls nothing else.

mod clients;
mod cmd;
mod conformance;
mod debs;
mod deps;
mod descriptions;
mod ebpf;
mod fuzz;
mod images;
mod kubectl;
mod nextest;
mod packages;
mod paths;
mod run;
mod tidy;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Skep's chores")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing: Debian packages, the eBPF tool chain, kubectl.
    Setup {
        /// Also what only the tests need: etcd, a registry, skopeo, dig, ...
        #[arg(long)]
        tests: bool,
    },
    /// Build the eBPF programs into target/ebpf/skep.o.
    Ebpf,
    /// Build the demo and test images from Debian packages into target/images.
    Images,
    /// Serve target/images by a registry on 127.0.0.1:5000, in the foreground.
    Registry {
        /// The address to listen on.
        #[arg(long, default_value = "127.0.0.1:5000")]
        listen: String,
    },
    /// Set up, build, and run a one-node cluster in the foreground.
    Up {
        /// Options for `skep up`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Set up what the tests need and run them all.
    Test {
        /// Run the tests in virtual machines instead, with this kernel: 5.10, 6.1, 6.12, newest, or all of them.
        #[arg(long, value_name = "KERNEL")]
        vm: Option<vm::Choice>,
        /// A filter for cargo nextest, as after `cargo nextest run`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        filter: Vec<String>,
    },
    /// Run a benchmark: `apiserver`, `dns`, `podnet`, `service-path`, `services`.
    Bench {
        /// Its name.
        name: String,
        /// Options for it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Fuzz one target of tests/fuzz with libFuzzer.
    Fuzz {
        /// Its name: json, yaml, protobuf, apply, ... (tests/fuzz/src/lib.rs).
        target: String,
        /// For how long.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Write the tables of which test holds which behaviour: tests/conformance/README.md, tests/scenarios/README.md.
    Conformance,
    /// Take the API's descriptions from the k8s-openapi crate into the table the server embeds.
    Descriptions,
    /// Check what rustc does not: formatting, lints, module docs, file sizes, dependency direction.
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Setup { tests } => packages::setup(tests),
        Task::Ebpf => run::ebpf(),
        Task::Images => images::build().map(|_| ()),
        Task::Registry { listen } => packages::registry().and_then(|()| images::serve(&listen)),
        Task::Up { options } => run::up(&options),
        Task::Test { vm: None, filter } => run::test(&filter),
        Task::Test { vm: Some(vm::Choice(kernels)), filter } => vm::test(kernels, &filter),
        Task::Bench { name, options } => run::bench(&name, &options),
        Task::Fuzz { target, seconds } => fuzz::fuzz(&target, seconds),
        Task::Conformance => conformance::write(),
        Task::Descriptions => descriptions::generate(),
        Task::Tidy => tidy::tidy(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
