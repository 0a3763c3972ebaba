//! The first process of a test's virtual machine. It mounts what a Linux machine has, and then serves the test's
//! requests from a child, so that the first process itself only collects orphans and switches the machine off.

mod boot;
mod cgroups;
mod serve;

use std::process::ExitCode;

use nix::sys::reboot::{RebootMode, reboot};

/// The argument that makes the child.
const SERVE: &str = "serve";

/// Where programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(SERVE) {
        return match serve::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("guest: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if std::process::id() != 1 {
        println!("this is the first process of a virtual machine; it is of no use elsewhere");
        return ExitCode::FAILURE;
    }
    if let Err(error) = boot::boot() {
        println!("guest: {error:#}");
    }
    nix::unistd::sync();
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(errno) => println!("guest: the machine cannot be switched off: {errno}"),
    }
    // The end of the first process is a panic of the kernel, which ends the machine too.
    ExitCode::FAILURE
}
