//! The controls of the baseline level: known ways out of a container are closed.

use serde_json::Value;
use skep_api::object::ObjectExt;

use super::{Pod, Values, Violation, containers, plural, quoted};

/// AppArmor may be left as it is or set to a profile, not turned off.
pub(super) fn app_armor(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut values = Values::new();
    let setters = pod.setters(&["appArmorProfile"], |profile| {
        let kind = profile.text(&["type"]);
        let bad = !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(kind.to_owned());
        }
        bad
    });
    let annotations: Values = pod
        .annotations()
        .filter(|(key, value)| {
            key.starts_with("container.apparmor.security.beta.kubernetes.io/")
                && !(value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut who = setters.names();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    Violation::new(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len()),
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values)),
    )
}

/// What container runtimes give anyway.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// No capabilities beyond the usual ones.
pub(super) fn capabilities(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut forbidden = Values::new();
    let bad = pod.containers_where(|container| {
        let added = container.items(&["securityContext", "capabilities", "add"]).iter();
        let more: Values = added
            .filter_map(Value::as_str)
            .filter(|name| !CAPABILITIES.contains(name))
            .map(str::to_owned)
            .collect();
        forbidden.extend(more.iter().cloned());
        !more.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    Violation::new(
        "non-default capabilities",
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&bad),
            quoted(&forbidden)
        ),
    )
}

/// Not in the node's namespaces.
pub(super) fn host_namespaces(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let on = |field: &&str| pod.spec(&[*field]) == Some(&Value::Bool(true));
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| on(field))
        .map(|field| format!("{field}=true"))
        .collect();
    if set.is_empty() { None } else { Violation::new("host namespaces", set.join(", ")) }
}

/// No paths of the node.
pub(super) fn host_path(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let volumes = pod.list("volumes").iter();
    let bad: Vec<&str> = volumes
        .filter(|volume| volume.at(&["hostPath"]).is_some_and(|path| !path.is_null()))
        .map(|volume| volume.text(&["name"]))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let volumes = plural("volume", "volumes", bad.len());
    Violation::new("hostPath volumes", format!("{volumes} {}", quoted(&bad)))
}

/// No ports of the node.
pub(super) fn host_ports(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut ports = Values::new();
    let bad = pod.containers_where(|container| {
        let used: Vec<i64> = container
            .items(&["ports"])
            .iter()
            .filter_map(|port| port.int(&["hostPort"]))
            .filter(|port| *port != 0)
            .collect();
        ports.extend(used.iter().map(ToString::to_string));
        !used.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    let list: Vec<String> = ports.into_iter().collect();
    Violation::new(
        "hostPort",
        format!(
            "{} {} {} {}",
            containers(&bad),
            plural("uses", "use", bad.len()),
            plural("hostPort", "hostPorts", list.len()),
            list.join(", ")
        ),
    )
}

/// Probes and hooks go to the pod itself.
pub(super) fn handler_hosts(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    const HANDLERS: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let mut hosts = Values::new();
    let bad: Values = pod
        .containers_where(|container| {
            let named: Vec<&str> = HANDLERS
                .iter()
                .flat_map(|path| ["httpGet", "tcpSocket"].map(|kind| [path, &[kind, "host"][..]].concat()))
                .map(|path| container.text(&path))
                .filter(|host| !host.is_empty())
                .collect();
            hosts.extend(named.iter().map(|host| (*host).to_owned()));
            !named.is_empty()
        })
        .into_iter()
        .map(str::to_owned)
        .collect();
    if bad.is_empty() {
        return None;
    }
    Violation::new(
        "probe or lifecycle host",
        format!(
            "{} {} {} {} {}",
            plural("container", "containers", bad.len()),
            quoted(&bad),
            plural("uses", "use", bad.len()),
            plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
            quoted(&hosts)
        ),
    )
}

/// No privileged containers.
pub(super) fn privileged(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let bad = pod.containers_where(|container| container.flag(&["securityContext", "privileged"]));
    if bad.is_empty() {
        return None;
    }
    let text = format!("{} must not set securityContext.privileged=true", containers(&bad));
    Violation::new("privileged", text)
}

/// `/proc` stays masked; since 1.35 a pod with users of its own may do as it likes.
pub(super) fn proc_mount(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.has_own_users() {
        return None;
    }
    let mut kinds = Values::new();
    let bad = pod.containers_where(|container| {
        let kind = container.text(&["securityContext", "procMount"]);
        let bad = !matches!(kind, "" | "Default");
        if bad {
            kinds.insert(kind.to_owned());
        }
        bad
    });
    if bad.is_empty() {
        return None;
    }
    let text = format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(&kinds));
    Violation::new("procMount", text)
}

/// SELinux types for containers only, and no users or roles.
pub(super) fn selinux(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    let (mut types, mut user, mut role) = (Values::new(), false, false);
    let setters = pod.setters(&["seLinuxOptions"], |options| {
        let kind = options.text(&["type"]);
        let allowed = matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || minor >= 31 && kind == "container_engine_t";
        if !allowed {
            types.insert(kind.to_owned());
        }
        let (own_user, own_role) = (!options.text(&["user"]).is_empty(), !options.text(&["role"]).is_empty());
        user |= own_user;
        role |= own_role;
        !allowed || own_user || own_role
    });
    if setters.is_empty() {
        return None;
    }
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    Violation::new(
        "seLinuxOptions",
        format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.text(), what.join("; ")),
    )
}

/// Seccomp may be left as it is or set to a profile, not turned off.
pub(super) fn seccomp(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor < 19 {
        return seccomp_annotations(pod);
    }
    let (setters, values) = seccomp_setters(pod);
    if setters.is_empty() {
        return None;
    }
    Violation::new(
        "seccompProfile",
        format!("{} must not set securityContext.seccompProfile.type to {}", setters.text(), quoted(&values)),
    )
}

/// Who sets a profile that is not allowed at any level, and which.
pub(super) fn seccomp_setters<'a>(pod: &Pod<'a>) -> (super::Setters<'a>, Values) {
    let mut values = Values::new();
    let setters = pod.setters(&["seccompProfile"], |profile| {
        let kind = profile.text(&["type"]);
        let bad = !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(kind.to_owned());
        }
        bad
    });
    (setters, values)
}

/// Before there was a field, there were annotations.
fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let names: Vec<&str> = pod.containers().map(|container| container.text(&["name"])).collect();
    let bad: Vec<String> = pod
        .annotations()
        .filter(|(key, value)| {
            let counts = *key == POD || key.strip_prefix(CONTAINER).is_some_and(|name| names.contains(&name));
            let fine =
                matches!(*value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            counts && !fine
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let annotations = plural("annotation", "annotations", bad.len());
    Violation::new("seccompProfile", format!("forbidden {annotations} {}", bad.join(", ")))
}

/// Sysctls that reach no further than the pod, with the release each came with.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

/// Safe sysctls only.
pub(super) fn sysctls(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    let sysctls = pod.spec(&["securityContext", "sysctls"]).and_then(Value::as_array).into_iter().flatten();
    let safe = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= minor);
    let bad: Vec<&str> = sysctls.map(|sysctl| sysctl.text(&["name"])).filter(|name| !safe(name)).collect();
    if bad.is_empty() { None } else { Violation::new("forbidden sysctls", bad.join(", ")) }
}

/// No processes of a Windows host.
pub(super) fn host_process(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let setters = pod.setters(&["windowsOptions", "hostProcess"], |value| *value == Value::Bool(true));
    if setters.is_empty() {
        return None;
    }
    let text = format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.text());
    Violation::new("hostProcess", text)
}
