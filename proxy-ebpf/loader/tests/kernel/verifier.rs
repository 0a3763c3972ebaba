//! What the kernel's verifier thinks of the programs.

use std::fmt::Write as _;
use std::path::Path;

use crate::support::{TestBox, possible};

/// A program may not come near the million instructions at which a kernel gives up: another kernel or compiler may
/// take twice the number for the same program. Numbers that differ by little from the record are the compiler's.
#[test]
fn programs_stay_far_below_the_verifiers_limit() {
    const LIMIT: u32 = 200_000;
    if !possible("programs_stay_far_below_the_verifiers_limit") {
        return;
    }
    let place = TestBox::new("verified");
    let verified = place.load().verified().expect("the counts");
    let mut text = String::new();
    for (name, count) in &verified {
        let Some(count) = count else { return eprintln!("SKIPPED: this kernel does not tell") };
        writeln!(text, "{name} {count}").expect("a string takes it");
    }
    eprint!("{text}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/verified.txt");
    if std::env::var("SKEP_BLESS").as_deref() == Ok("1") {
        std::fs::write(&path, &text).expect("the record is written");
    }
    let record = std::fs::read_to_string(&path).expect("the record");
    let known = |name: &str| -> Option<u32> {
        record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    };
    for (name, count) in verified {
        let count = count.unwrap_or_default();
        assert!(count < LIMIT, "{name}: {count} instructions");
        let known = known(&name).unwrap_or_else(|| panic!("{name} is not in the record (SKEP_BLESS=1)"));
        let more = count > known + known / 4 + 500;
        assert!(!more, "{name}: {count} instructions, {known} on record (SKEP_BLESS=1 if that must be)");
    }
}
