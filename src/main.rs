//! The `skep` command: parses the command line and composes the parts.
fn main() {}
