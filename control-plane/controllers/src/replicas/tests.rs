//! Plans of the core.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn wanted(replicas: i32) -> Wanted {
    Wanted {
        namespace: "ns".into(),
        owner: OwnerReference {
            uid: "me".into(),
            name: "rs".into(),
            controller: Some(true),
            ..OwnerReference::default()
        },
        deleting: false,
        selector: LabelSelector::parse("app=x").expect("selector"),
        replicas,
        min_ready: 0,
        template: PodTemplateSpec::default(),
        generation: 3,
        status: Observed::default(),
    }
}

fn pod(name: &str, owner: Option<&str>, label: &str, phase: &str) -> Arc<Pod> {
    let owners = owner.map(|uid| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true}]));
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": label}, "ownerReferences": owners},
        "status": {"phase": phase},
    });
    Arc::new(serde_json::from_value(pod).expect("pod"))
}

fn run(wanted: &Wanted, pods: &[Arc<Pod>], settled: bool) -> Plan {
    plan(&Snapshot { wanted, pods, siblings: pods, settled, now: Timestamp::UNIX_EPOCH })
}

#[test]
fn adopts_releases_and_leaves_others_alone() {
    let pods = [
        pod("mine", Some("me"), "x", "Running"),
        pod("strayed", Some("me"), "y", "Running"),
        pod("orphan", None, "x", "Running"),
        pod("dead-orphan", None, "x", "Failed"),
        pod("foreign", Some("other"), "x", "Running"),
    ];
    let plan = run(&wanted(3), &pods, true);
    let names = |pods: &[Arc<Pod>]| pods.iter().filter_map(|p| p.metadata.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&plan.adopt), ["orphan"]);
    assert_eq!(names(&plan.release), ["strayed"]);
    assert_eq!((plan.create, plan.delete.len()), (1, 0));
    assert_eq!((plan.status.replicas, plan.status.generation), (2, 3));
}

#[test]
fn a_dying_owner_touches_nothing() {
    let pods = [pod("orphan", None, "x", "Running"), pod("strayed", Some("me"), "y", "Running")];
    let plan = run(&Wanted { deleting: true, ..wanted(3) }, &pods, true);
    assert!(plan.adopt.is_empty() && plan.release.is_empty() && plan.create == 0 && plan.delete.is_empty());
}

proptest! {
    #[test]
    fn reaches_the_number_and_never_passes_it(
        replicas in 0_i32..20,
        phases in prop::collection::vec(prop::sample::select(vec!["Running", "Pending", "Failed", "Succeeded"]), 0..20),
        settled in prop::bool::ANY,
    ) {
        let pods: Vec<_> = phases.iter().enumerate().map(|(i, p)| pod(&i.to_string(), Some("me"), "x", p)).collect();
        let active = pods.iter().filter(|p| pods::is_active(p)).count();
        let plan = run(&wanted(replicas), &pods, settled);
        if settled {
            prop_assert_eq!(active + plan.create - plan.delete.len(), usize::try_from(replicas).expect("positive"));
            prop_assert!(plan.create == 0 || plan.delete.is_empty());
        } else {
            prop_assert!(plan.create == 0 && plan.delete.is_empty());
        }
    }
}
