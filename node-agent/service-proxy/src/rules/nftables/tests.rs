//! Whole scripts against texts that were read and found right, and changes by their size.

use serde_json::json;

use super::super::fixture;
use super::super::{Family, Ground};
use super::*;
use crate::desired::ServiceTables;

fn fragment(tables: &ServiceTables) -> Fragment {
    service(tables, &fixture::ground(), &Family::ALL)
}

#[test]
fn every_kind_of_service_as_one_script() {
    let base = ground(&fixture::ground(), &Family::ALL);
    let services: Vec<Fragment> = fixture::every_kind().iter().map(|(_, tables)| fragment(tables)).collect();
    let (script, retired) = full(&Family::ALL, [&base].into_iter().chain(&services), &Present::default());
    assert_eq!(retired, Retired::default());
    fixture::golden("every-kind.nft", &script);
}

#[test]
fn one_endpoint_more_touches_its_own_chains_only() {
    let spec = json!({"clusterIP": "10.96.0.2", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
    let (_, one) = fixture::tables("plain", &spec, &[("10.244.0.5", "n1")]);
    let (_, two) = fixture::tables("plain", &spec, &[("10.244.0.5", "n1"), ("10.244.0.6", "n1")]);
    let (one, two) = (fragment(&one), fragment(&two));
    let (script, retired) = partial([(&one, &two)]);
    assert_eq!(retired, Retired::default());
    fixture::golden("one-endpoint-more.nft", &script);
    let (script, retired) = partial([(&two, &one)]);
    assert_eq!(retired.chains.len(), 1, "the endpoint's chain is deleted later");
    fixture::golden("one-endpoint-less.nft", &script);
    assert_eq!(partial([(&two, &two)]), (String::new(), Retired::default()));
}

#[test]
fn a_service_that_goes_leaves_nothing() {
    for (name, tables) in fixture::every_kind() {
        let (script, retired) = partial([(&fragment(&tables), &Fragment::default())]);
        let deleted = script.lines().filter(|line| line.starts_with("delete element")).count();
        assert_eq!(deleted, fragment(&tables).elements.len(), "{name}");
        assert!(!script.contains("add "), "{name}: {script}");
        assert_eq!(retired.chains.len(), fragment(&tables).chains.len(), "{name}");
        assert_eq!(retired.sets.len(), fragment(&tables).sets.len(), "{name}");
    }
}

#[test]
fn a_full_write_empties_what_is_there_and_retires_what_nobody_wants() {
    let base = ground(&Ground::default(), &[Family::V4]);
    let chain = |name: &str| (Family::V4, name.to_owned());
    let present = Present {
        chains: [chain("services"), chain("service-OLD")].into(),
        sets: [chain("service-ips"), chain("affinity-60-OLD")].into(),
    };
    let (script, retired) = full(&[Family::V4], [&base], &present);
    for line in [
        "flush chain ip skep-proxy services",
        "flush chain ip skep-proxy service-OLD",
        "flush map ip skep-proxy service-ips",
    ] {
        assert!(script.lines().any(|found| found == line), "{line}: {script}");
    }
    assert_eq!(retired.chains, [chain("service-OLD")].into());
    assert_eq!(retired.sets, [chain("affinity-60-OLD")].into());
    assert_eq!(
        removal(&retired),
        "flush chain ip skep-proxy service-OLD\ndelete chain ip skep-proxy service-OLD\n\
         delete set ip skep-proxy affinity-60-OLD\n"
    );
}
