//! Puts the eBPF object beside the crate so that it is embedded in the program.
//!
//! It is built by `cargo xtask ebpf`, not here: that needs another compiler, and `cargo check` must work without.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-env-changed=SKEP_EBPF_OBJECT");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let object = env::var_os("SKEP_EBPF_OBJECT").map_or_else(
        || PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../../target/ebpf/skep.o"),
        PathBuf::from,
    );
    println!("cargo:rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).unwrap_or_else(|error| {
        println!("cargo:warning=no eBPF object at {} ({error}): run `cargo xtask ebpf`", object.display());
        Vec::new()
    });
    let embedded = PathBuf::from(variable("OUT_DIR")).join("skep.o");
    fs::write(&embedded, bytes).unwrap_or_else(|error| panic!("writing {}: {error}", embedded.display()));
}
