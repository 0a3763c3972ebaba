//! libFuzzer's entry: `SKEP_FUZZ_TARGET` names the target, `SKEP_FUZZ_CORPUS` the folder its seeds are
//! written to before libFuzzer reads it. `cargo xtask fuzz` sets both.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use skep_fuzz::Target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn start() {
    let name = std::env::var("SKEP_FUZZ_TARGET").unwrap_or_default();
    let target =
        skep_fuzz::target(&name).unwrap_or_else(|| panic!("SKEP_FUZZ_TARGET={name:?} names no target"));
    let folder = PathBuf::from(std::env::var_os("SKEP_FUZZ_CORPUS").unwrap_or_default());
    for (index, seed) in target.seeds.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{index}")), seed).expect("the corpus folder can be written");
    }
    TARGET.set(target).unwrap_or_else(|_| panic!("started twice"));
}

fuzz_target!(init: start(), |bytes: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(bytes);
    }
});
