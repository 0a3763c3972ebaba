//! End to end: the real `skep`, containerd, registry, etcd and kubectl, on a node that is a box.
//!
//! Each test owns a whole cluster and walks through it in steps, since a cluster is what costs time.
//! `cargo xtask test` builds what they need; run alone they say what is missing.

mod bad_input;
mod chain;
mod cluster;
mod crash;
mod helm;
mod join;
mod kubectls;
mod names;
mod pods;
mod purge;
mod readme;
mod tools;

use cluster::Store;

#[test]
fn whole_chain_on_the_embedded_store() {
    tools::privileged(|| chain::run(Store::Embedded));
}

#[test]
fn whole_chain_on_etcd() {
    tools::privileged(|| chain::run(Store::Etcd));
}

#[test]
fn kill_minus_nine_loses_nothing() {
    tools::privileged(crash::run);
}

#[test]
fn the_readme_says_what_works() {
    tools::privileged(readme::run);
}

/// Holds AR-01.
#[test]
fn a_second_machine_joins_with_a_token() {
    tools::privileged(join::run);
}

/// Holds NE-03, NE-04, NE-05, NE-06, NE-07, NE-08, NE-09, NE-10, NE-33, NE-34, NE-35, NE-36.
/// Holds NO-37, NO-38.
#[test]
fn names_are_found_by_pods_whatever_comes_and_goes() {
    tools::privileged(names::run);
}

/// Holds AP-45, AP-50, AU-06, AU-07, CL-01, CL-17.
/// Holds ST-06, ST-15, ST-25, ST-26, ST-47, ST-55, ST-65, ST-66, ST-67, ST-74.
#[test]
fn pods_see_what_they_are_given() {
    tools::privileged(pods::run);
}
