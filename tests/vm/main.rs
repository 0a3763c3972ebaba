//! Tests in virtual machines: the same programs on Debian's kernels of four ages, and several machines as nodes.
//!
//! `cargo xtask test --vm KERNEL` makes what the machines boot from (`target/vm/plan.json`) and runs the module of
//! that kernel; the README beside this file says more. A test that fails leaves what its machines said, and every
//! packet they saw, in `target/vm/runs`.

mod cluster;
mod control;
mod faults;
mod lab;
mod machine;
mod plan;
mod programs;
mod two_nodes;

/// The tests of one kernel.
macro_rules! on_kernel {
    ($module:ident, $series:literal) => {
        mod $module {
            use crate::{faults, lab, programs, two_nodes};

            const SERIES: &str = $series;

            #[test]
            fn programs_load_and_packets_pass() {
                lab::test(SERIES, "loader", |lab| programs::run(lab, "kernel"));
            }

            #[test]
            fn pod_network() {
                lab::test(SERIES, "network", |lab| programs::run(lab, "netns"));
            }

            #[test]
            fn service_scenarios() {
                lab::test(SERIES, "scenarios", |lab| programs::run(lab, "scenarios"));
            }

            #[test]
            fn two_nodes_by_token() {
                lab::test(SERIES, "two-nodes", two_nodes::run);
            }

            #[test]
            fn faults_between_nodes() {
                lab::test(SERIES, "faults", faults::run);
            }

            #[test]
            fn containers() {
                lab::test(SERIES, "runtime", |lab| programs::run(lab, "containerd"));
            }
        }
    };
}

on_kernel!(linux_5_10, "5.10");
on_kernel!(linux_6_1, "6.1");
on_kernel!(linux_6_12, "6.12");
on_kernel!(linux_newest, "newest");
