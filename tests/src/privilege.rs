//! Tests that need root: they skip loudly in plain runs and fail where everything is required.

/// Whether this process may make namespaces.
#[must_use]
pub fn have_privileges() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a privileged test may run. If not, says so loudly, and fails under `SKEP_TEST_REQUIRE_ALL=1`.
///
/// # Panics
/// When privileges are missing although the environment requires all tests to run.
#[must_use]
pub fn require(test: &str) -> bool {
    if have_privileges() {
        return true;
    }
    assert!(may_skip(), "{test} needs root, and SKEP_TEST_REQUIRE_ALL=1 forbids skipping it");
    eprintln!("SKIPPED: {test} needs root");
    false
}

/// Whether a test may skip itself for want of something: not under `SKEP_TEST_REQUIRE_ALL=1`.
#[must_use]
pub fn may_skip() -> bool {
    std::env::var("SKEP_TEST_REQUIRE_ALL").as_deref() != Ok("1")
}
