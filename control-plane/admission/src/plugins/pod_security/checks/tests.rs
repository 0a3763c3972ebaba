//! A table of pods and what each control says of them.

use serde_json::{Value, json};

use super::*;

/// A pod that the restricted level of every release allows.
fn good() -> Value {
    json!({
        "metadata": {},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}},
                {"name": "b", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}},
            ],
        },
    })
}

fn standard(text: &str) -> Standard {
    let (level, version) = text.split_once(':').expect("level:version");
    Standard {
        level: Level::parse(level).expect("a level"),
        version: Version::parse(version).expect("a version"),
    }
}

fn judge(text: &str, pod: &Value) -> String {
    evaluate(standard(text), &Pod::new(pod)).details()
}

#[test]
fn a_good_pod_passes_everything() {
    for minor in 0..=40 {
        for level in ["privileged", "baseline", "restricted"] {
            assert_eq!(judge(&format!("{level}:v1.{minor}"), &good()), "");
        }
    }
}

/// Each row: a pointer, what is put there, a standard, what it says.
#[test]
fn each_control() {
    let a = |path: &str| format!("/spec/containers/0/securityContext/{path}");
    let pod = |path: &str| format!("/spec/securityContext/{path}");
    let (baseline, restricted) = ("baseline:latest", "restricted:latest");
    let rows = [
        (
            a("appArmorProfile"),
            json!({"type": "Unconfined"}),
            baseline,
            r#"forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")"#,
        ),
        (
            "/metadata/annotations".to_owned(),
            json!({"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}),
            baseline,
            r#"forbidden AppArmor profile (annotation must not set AppArmor profile type to "container.apparmor.security.beta.kubernetes.io/a="unconfined"")"#,
        ),
        (
            "/metadata/annotations".to_owned(),
            json!({"container.apparmor.security.beta.kubernetes.io/a": "localhost/x"}),
            baseline,
            "",
        ),
        (
            a("capabilities/add"),
            json!(["CHOWN", "NET_RAW", "SYS_ADMIN"]),
            baseline,
            r#"non-default capabilities (container "a" must not include "NET_RAW", "SYS_ADMIN" in securityContext.capabilities.add)"#,
        ),
        (
            a("capabilities/add"),
            json!(["CHOWN"]),
            restricted,
            r#"unrestricted capabilities (container "a" must not include "CHOWN" in securityContext.capabilities.add)"#,
        ),
        (a("capabilities/add"), json!(["CHOWN"]), "restricted:v1.21", ""),
        (
            a("capabilities/drop"),
            json!([]),
            restricted,
            r#"unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"])"#,
        ),
        ("/spec/hostNetwork".to_owned(), json!(true), baseline, "host namespaces (hostNetwork=true)"),
        ("/spec/hostPID".to_owned(), json!(false), baseline, ""),
        (
            "/spec/volumes".to_owned(),
            json!([{"name": "v", "hostPath": {"path": "/"}}, {"name": "e", "emptyDir": {}}]),
            baseline,
            r#"hostPath volumes (volume "v")"#,
        ),
        (
            "/spec/volumes".to_owned(),
            json!([{"name": "v", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {}}]),
            restricted,
            r#"restricted volume types (volumes "v", "n" use restricted volume types "hostPath", "nfs")"#,
        ),
        (
            "/spec/containers/0/ports".to_owned(),
            json!([{"hostPort": 80}, {"hostPort": 9}, {"containerPort": 1}]),
            baseline,
            r#"hostPort (container "a" uses hostPorts 80, 9)"#,
        ),
        (
            "/spec/containers/0/livenessProbe".to_owned(),
            json!({"httpGet": {"host": "h"}}),
            baseline,
            r#"probe or lifecycle host (container "a" uses probe or lifecycle host "h")"#,
        ),
        (
            "/spec/containers/0/lifecycle".to_owned(),
            json!({"preStop": {"tcpSocket": {"host": "h"}}}),
            "baseline:v1.33",
            "",
        ),
        (
            a("privileged"),
            json!(true),
            baseline,
            r#"privileged (container "a" must not set securityContext.privileged=true)"#,
        ),
        (
            a("procMount"),
            json!("Unmasked"),
            baseline,
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            pod("seLinuxOptions"),
            json!({"type": "spc_t", "user": "u", "role": "r"}),
            baseline,
            r#"seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set; role may not be set)"#,
        ),
        (
            pod("seLinuxOptions"),
            json!({"type": "container_engine_t"}),
            "baseline:v1.30",
            r#"seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "container_engine_t")"#,
        ),
        (pod("seLinuxOptions"), json!({"type": "container_engine_t"}), baseline, ""),
        (
            pod("seccompProfile"),
            json!({"type": "Unconfined"}),
            baseline,
            r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            pod("seccompProfile"),
            Value::Null,
            restricted,
            r#"seccompProfile (pod or containers "a", "b" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ),
        (
            "/metadata/annotations".to_owned(),
            json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}),
            "baseline:v1.18",
            r#"seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")"#,
        ),
        (
            "/metadata/annotations".to_owned(),
            json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}),
            "baseline:v1.19",
            "",
        ),
        (
            pod("sysctls"),
            json!([{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.x"}]),
            "baseline:v1.31",
            "forbidden sysctls (net.ipv4.tcp_rmem, kernel.x)",
        ),
        (pod("sysctls"), json!([{"name": "net.ipv4.tcp_rmem"}]), baseline, ""),
        (
            pod("windowsOptions"),
            json!({"hostProcess": true}),
            baseline,
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            a("allowPrivilegeEscalation"),
            Value::Null,
            restricted,
            r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)"#,
        ),
        (a("allowPrivilegeEscalation"), Value::Null, "restricted:v1.7", ""),
        (
            pod("runAsNonRoot"),
            Value::Null,
            restricted,
            r#"runAsNonRoot != true (pod or containers "a", "b" must set securityContext.runAsNonRoot=true)"#,
        ),
        (
            pod("runAsNonRoot"),
            json!(false),
            restricted,
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
        (
            a("runAsNonRoot"),
            json!(false),
            restricted,
            r#"runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false)"#,
        ),
        (a("runAsUser"), json!(0), restricted, r#"runAsUser=0 (container "a" must not set runAsUser=0)"#),
        (a("runAsUser"), json!(0), "restricted:v1.22", ""),
    ];
    for (pointer, value, standard, want) in rows {
        let mut object = good();
        let steps: Vec<&str> = pointer.split('/').skip(1).collect();
        put(&mut object, &steps, value.clone());
        assert_eq!(judge(standard, &object), want, "{pointer} = {value} under {standard}");
    }
}

fn put(object: &mut Value, steps: &[&str], value: Value) {
    match (steps, object) {
        ([], here) => *here = value,
        ([step, rest @ ..], Value::Array(list)) => {
            put(&mut list[step.parse::<usize>().expect("an index")], rest, value);
        }
        ([step, rest @ ..], here) => put(&mut here[*step], rest, value),
    }
}

#[test]
fn users_of_its_own_relax_some_controls_since_1_35() {
    let mut object = good();
    object["spec"]["hostUsers"] = json!(false);
    object["spec"]["containers"][0]["securityContext"]["runAsUser"] = json!(0);
    object["spec"]["securityContext"]["runAsNonRoot"] = json!(false);
    object["spec"]["containers"][0]["securityContext"]["procMount"] = json!("Unmasked");
    assert_eq!(judge("baseline:latest", &object), "");
    assert!(judge("baseline:v1.34", &object).starts_with("procMount"));
    assert!(judge("restricted:latest", &object).starts_with("procMount"));
    assert!(judge("restricted:v1.34", &object).contains("runAsUser=0"));
}

#[test]
fn windows_needs_no_linux_hardening() {
    let object = json!({"spec": {"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true},
        "containers": [{"name": "a"}]}});
    assert_eq!(judge("restricted:latest", &object), "");
    assert!(judge("restricted:v1.24", &object).contains("allowPrivilegeEscalation"));
}

#[test]
fn every_kind_of_container_counts_and_order_is_fixed() {
    let object = json!({"spec": {"hostIPC": true, "hostPID": true,
        "initContainers": [{"name": "i", "securityContext": {"privileged": true}}],
        "containers": [{"name": "c"}],
        "ephemeralContainers": [{"name": "e", "securityContext": {"privileged": true}}]}});
    assert_eq!(
        judge("baseline:latest", &object),
        r#"host namespaces (hostPID=true, hostIPC=true), privileged (containers "i", "e" must not set securityContext.privileged=true)"#
    );
}
