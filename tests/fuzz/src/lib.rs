//! Fuzz targets: each takes any bytes, must not panic, and holds a property where there is one.
//!
//! `cargo xtask fuzz TARGET` runs libFuzzer on one; the test `every_target_survives` replays its seeds and
//! thousands of mutations of them in every test run. A target never looks at how an input was made.

mod cel;
mod dns;
mod files;
mod kinds;
mod mutate;
mod objects;
mod patches;
mod requests;
mod streams;
mod text;
mod tokens;

pub use mutate::Mutator;

/// One target.
pub struct Target {
    /// Its name, also the folder of its seeds.
    pub name: &'static str,
    /// What it feeds.
    pub about: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: &'static [&'static [u8]],
}

/// Every target.
pub const TARGETS: &[Target] = &[
    objects::JSON,
    objects::YAML,
    objects::PROTOBUF,
    patches::JSON_PATCH,
    patches::MERGE,
    patches::STRATEGIC,
    patches::APPLY,
    text::LABEL_SELECTOR,
    text::FIELD_SELECTOR,
    text::QUANTITY,
    text::DURATION,
    text::POLICY_FILE,
    text::CREDENTIAL_FILES,
    tokens::JWT,
    cel::EXPRESSION,
    dns::QUESTION,
    dns::ANSWER,
    requests::REQUEST,
    requests::HEADERS,
    kinds::KINDS,
    kinds::CUSTOM,
    kinds::JSON_PATH,
    streams::SPDY,
    streams::CHANNELS,
    streams::PAGES,
    files::CONFIGURATION,
    files::SEALED,
    files::CERTIFICATE_REQUEST,
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Splits an input at its first zero byte: targets that take two documents.
fn two(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many mutations of each seed a test run tries.
    const ROUNDS: usize = 2000;

    #[test]
    fn every_target_survives() {
        for target in TARGETS {
            let mut mutator = Mutator::new(0x5eed, target.seeds);
            for seed in target.seeds {
                (target.run)(seed);
                for _ in 0..ROUNDS {
                    let input = mutator.mutated(seed);
                    let outcome = std::panic::catch_unwind(|| (target.run)(&input));
                    assert!(outcome.is_ok(), "{}: {:?}", target.name, String::from_utf8_lossy(&input));
                }
            }
        }
    }

    #[test]
    fn names_are_unique() {
        for target in TARGETS {
            assert_eq!(
                TARGETS.iter().filter(|other| other.name == target.name).count(),
                1,
                "{}",
                target.name
            );
        }
    }
}
