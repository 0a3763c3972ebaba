//! `cargo xtask fuzz`: coverage-guided fuzzing by libFuzzer, on the stable tool chain.
//!
//! The instrumentation is LLVM's own pass, asked for by flags that stable rustc has; no sanitizer is
//! needed in code without `unsafe`. What is found stays in target/fuzz.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cmd::{run, step};
use crate::paths;

/// What makes code count its edges for libFuzzer.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";

/// Runs one target, or each in turn, for so many seconds.
pub(crate) fn fuzz(target: &str, seconds: u32) -> Result<()> {
    let folder = paths::target().join("fuzz");
    let host = host()?;
    step("building the fuzz targets");
    run(Command::new("cargo")
        .current_dir(paths::workspace())
        .args(["build", "--release", "--package", "skep-fuzz", "--features", "libfuzzer"])
        // A target triple keeps the flags away from build scripts and macros.
        .args(["--target", &host, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", COVERAGE))?;
    let binary = folder.join(&host).join("release/skep-fuzz");
    let (corpus, found) = (folder.join("corpus").join(target), folder.join("found").join(target));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    step(&format!("fuzzing {target} for {seconds} s"));
    let mut fuzzer = Command::new(binary);
    fuzzer
        .arg(&corpus)
        .args([format!("-max_total_time={seconds}"), format!("-artifact_prefix={}/", found.display())])
        .args(["-max_len=65536", "-timeout=10", "-rss_limit_mb=4096", "-print_final_stats=1"])
        .env("SKEP_FUZZ_TARGET", target)
        .env("SKEP_FUZZ_CORPUS", &corpus);
    if !fuzzer.status()?.success() {
        bail!("{target} failed; the input is in {}", found.display());
    }
    Ok(())
}

fn host() -> Result<String> {
    let version = crate::cmd::read(Command::new("rustc").arg("-vV"))?;
    match version.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(host) => Ok(host.to_owned()),
        None => bail!("rustc -vV names no host"),
    }
}
