//! Whole scripts against texts that were read and found right, and changes by their size.

use std::collections::BTreeSet;

use serde_json::json;

use super::super::Family;
use super::super::fixture;
use super::*;
use crate::desired::ServiceTables;

fn fragment(tables: &ServiceTables) -> Fragment {
    service(tables, &fixture::ground(), &Family::ALL)
}

/// Holds KP-31.
#[test]
fn every_kind_of_service_as_two_scripts() {
    let base = ground(&fixture::ground(), &Family::ALL);
    let services: Vec<Fragment> = fixture::every_kind().iter().map(|(_, tables)| fragment(tables)).collect();
    let chains = full(&Family::ALL, &services.iter(), &base);
    let text: String = Family::ALL.map(|family| script(family, &chains, &BTreeSet::new())).concat();
    fixture::golden("every-kind.iptables", &text);
}

#[test]
fn one_endpoint_more_writes_no_chain_that_all_share() {
    let base = ground(&fixture::ground(), &Family::ALL);
    let spec = json!({"clusterIP": "10.96.0.2", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
    let (_, one) = fixture::tables("plain", &spec, &[("10.244.0.5", "n1")]);
    let (_, two) = fixture::tables("plain", &spec, &[("10.244.0.5", "n1"), ("10.244.0.6", "n1")]);
    let (one, two) = (fragment(&one), fragment(&two));
    let (write, gone) = partial([(&one, &two)], &[&two].into_iter(), &base);
    assert_eq!(gone, BTreeSet::new());
    fixture::golden("one-endpoint-more.iptables", &script(Family::V4, &write, &gone));
    let (write, gone) = partial([(&two, &one)], &[&one].into_iter(), &base);
    fixture::golden("one-endpoint-less.iptables", &script(Family::V4, &write, &gone));
    let (write, gone) = partial([(&one, &one)], &[&one].into_iter(), &base);
    assert_eq!(script(Family::V4, &write, &gone), "");
}

#[test]
fn a_service_that_goes_takes_its_lines_along() {
    let base = ground(&fixture::ground(), &Family::ALL);
    for (name, tables) in fixture::every_kind() {
        let old = fragment(&tables);
        let (write, gone) = partial([(&old, &Fragment::default())], &std::iter::empty(), &base);
        assert_eq!(gone.len(), old.chains.len(), "{name}");
        let text: String = Family::ALL.map(|family| script(family, &write, &gone)).concat();
        assert!(!text.contains("ns/"), "{name}: {text}");
    }
}
