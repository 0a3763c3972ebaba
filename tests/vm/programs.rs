//! Runs a test program inside a machine, test by test, each in a process of its own as nextest does.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use skep_vm_guest::Request;

use crate::lab::Lab;
use crate::machine::{Machine, Spec};

/// One test may take so long: the translator is slow, and the scenarios of a whole mode are one test.
const LIMIT: u64 = 420;

/// Boots a machine and runs every test of a program.
pub(crate) fn run(lab: &Lab, program: &str) -> Result<()> {
    let path = lab.plan.binaries.get(program).with_context(|| format!("the plan has no {program}"))?;
    let path = path.to_str().context("a path that is no text")?;
    let machine = lab.start(&Spec { memory_mib: 1024, ..Spec::new("machine") })?;
    let began = Instant::now();
    let release = machine.ready()?;
    println!("{release} is up after {:.1} s", began.elapsed().as_secs_f64());
    let list = machine.run(&[path, "--list", "--format", "terse"], 60)?;
    let tests: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    if tests.is_empty() {
        bail!("{program} lists no tests:\n{list}");
    }
    let mut failures = Vec::new();
    for test in &tests {
        let began = Instant::now();
        let outcome = one(&machine, path, test);
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("{word:<7} {:>7.2} s  {test}", began.elapsed().as_secs_f64());
        if let Err(error) = outcome {
            failures.push(format!("{test}: {error:#}"));
        }
    }
    if !failures.is_empty() {
        let kernel = machine.sh("dmesg | tail -40").unwrap_or_default();
        bail!("{} of {} failed:\n{}\n{kernel}", failures.len(), tests.len(), failures.join("\n"));
    }
    println!("{program}: {} tests passed on {release}", tests.len());
    Ok(())
}

fn one(machine: &Machine, program: &str, test: &str) -> Result<()> {
    let argv = [program, "--exact", test, "--nocapture"].map(str::to_owned).into();
    let env = [("SKEP_TEST_REQUIRE_ALL", "1"), ("RUST_BACKTRACE", "0")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let output = machine.output(Request { argv, env, seconds: LIMIT, ..Request::default() })?;
    if output.status != 0 {
        bail!("status {}\n{}{}", output.status, output.out, output.err);
    }
    Ok(())
}
