//! Rules of what a pod and its containers may do: users, capabilities, profiles, sysctls, namespaces of the host.

use std::collections::BTreeSet;

use skep_api::field::Error;

use super::mounts::relative;
use crate::strategy::check::At;

const MAX_ID: i64 = i32::MAX as i64;
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const MAX_PROFILE: usize = 4095;
const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";

/// What a Windows pod must not have, of the pod's context and of a container's.
const LINUX_POD: [&str; 11] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const LINUX_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// `securityContext` of a pod.
pub(super) fn pod(spec: &At<'_>) {
    let context = spec.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.child(field).within(0, MAX_ID);
    }
    for group in context.child("supplementalGroups").items() {
        group.within(0, MAX_ID);
    }
    let shared = spec.child("shareProcessNamespace");
    if shared.flag() && spec.child("hostPID").flag() {
        // The field lies in the context in upstream's inner form, and so does the path.
        shared
            .told_at(context.path().child("shareProcessNamespace"))
            .invalid("ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(&context.child("sysctls"), spec);
    context.child("fsGroupChangePolicy").one_of(&["Always", "OnRootMismatch"]);
    seccomp(&context.child("seccompProfile"));
    windows(&context.child("windowsOptions"));
    app_armor(&context.child("appArmorProfile"));
    context.child("supplementalGroupsPolicy").one_of(&["Merge", "Strict"]);
    context.child("seLinuxChangePolicy").one_of(&["MountOption", "Recursive"]);
}

/// `securityContext` of a container.
pub(super) fn container(context: &At<'_>, spec: &At<'_>) {
    for field in ["runAsUser", "runAsGroup"] {
        context.child(field).within(0, MAX_ID);
    }
    let proc_mount = context.child("procMount");
    proc_mount.one_of(&["Default", "Unmasked"]);
    let host_users = spec.child("hostUsers");
    if proc_mount.text() == "Unmasked" && (host_users.flag() || !host_users.is_set()) {
        proc_mount.invalid("`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(&context.child("seccompProfile"));
    let escalation = context.child("allowPrivilegeEscalation");
    if escalation.is_set() && !escalation.flag() {
        if context.child("privileged").flag() {
            context.error(Error::invalid(
                context.path(),
                context.value().clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        let added = context.child("capabilities").child("add");
        if added.items().iter().any(|c| c.text() == "CAP_SYS_ADMIN") {
            context.invalid(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    windows(&context.child("windowsOptions"));
    app_armor(&context.child("appArmorProfile"));
}

fn seccomp(profile: &At<'_>) {
    if !profile.is_set() {
        return;
    }
    let kind = profile.child("type");
    if kind.require_with("type is required when seccompProfile is set") {
        kind.one_of(PROFILES);
    }
    let local = profile.child("localhostProfile");
    match (kind.text() == "Localhost", local.is_set()) {
        (true, false) => local.required("must be set when seccomp type is Localhost"),
        (true, true) => relative(&local),
        (false, true) => local.error(Error::invalid(
            local.path(),
            profile.value().clone(),
            "can only be set when seccomp type is Localhost",
        )),
        (false, false) => {}
    }
}

fn app_armor(profile: &At<'_>) {
    if !profile.is_set() {
        return;
    }
    let kind = profile.child("type");
    let local = profile.child("localhostProfile");
    let needed = "must be set when AppArmor type is Localhost";
    match kind.text() {
        "" => kind.required("type is required when appArmorProfile is set"),
        "Localhost" if !local.is_set() => local.required(needed),
        "Localhost" => {
            if local.text().trim() != local.text() {
                local.invalid("must not be padded with whitespace");
            } else if local.is_empty() {
                local.required(needed);
            }
            if local.text().len() > MAX_PROFILE {
                local.error(Error::too_long(local.path(), MAX_PROFILE));
            }
        }
        "RuntimeDefault" | "Unconfined" if local.is_set() => {
            local.invalid("can only be set when AppArmor type is Localhost");
        }
        "RuntimeDefault" | "Unconfined" => {}
        _ => kind.one_of(PROFILES),
    }
}

fn windows(options: &At<'_>) {
    for (field, max) in [("gmsaCredentialSpec", 64 * 1024), ("runAsUserName", 0)] {
        let value = options.child(field);
        if value.is_set() && value.is_empty() {
            let name = if field == "runAsUserName" { "runAsUserName" } else { "gmsaCredentialSpec" };
            value.invalid(format!("{name} cannot be an empty string"));
        } else if max > 0 && value.text().len() > max {
            value.invalid(format!("{field} size must be under {} KiB", max / 1024));
        }
    }
}

/// What namespace of a pod a sysctl belongs to.
fn namespace(sysctl: &str) -> &'static str {
    let name = sysctl.replace('/', ".");
    let is = |prefix: &str| name.starts_with(prefix);
    match name.as_str() {
        "kernel.sem" => "ipc",
        _ if is("kernel.shm") || is("kernel.msg") || is("fs.mqueue.") => "ipc",
        _ if is("net.") => "net",
        _ => "",
    }
}

fn is_sysctl(name: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |part: &str| {
        part.starts_with(ends)
            && part.ends_with(ends)
            && part.chars().all(|c| ends(c) || c == '-' || c == '_')
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn sysctls(sysctls: &At<'_>, spec: &At<'_>) {
    let mut taken = BTreeSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.child("name");
        if name.is_empty() {
            name.required("");
        } else if !is_sysctl(name.text()) {
            name.invalid(
                "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            );
        } else if taken.contains(name.text()) {
            name.duplicate();
        }
        taken.insert(name.text());
        for (field, space) in [("hostNetwork", "net"), ("hostIPC", "ipc")] {
            if spec.child(field).flag() && namespace(name.text()) == space {
                name.invalid(format!("may not be specified when '{field}' is true"));
            }
        }
    }
}

/// A user namespace of its own excludes sharing the host's other namespaces.
pub(super) fn host_users(spec: &At<'_>) {
    let own = spec.child("hostUsers");
    if !own.is_set() || own.flag() {
        return;
    }
    for (field, told) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.child(field).flag() {
            let path = spec.path().child(told);
            spec.error(Error::forbidden(&path, "when `hostUsers` is false"));
        }
    }
}

/// `os`, and what the other system's pods must not have.
pub(super) fn os(spec: &At<'_>) {
    let os = spec.child("os");
    if !os.is_set() {
        return;
    }
    let name = os.child("name");
    name.require_one_of(&["linux", "windows"]);
    let contexts =
        || LISTS.iter().flat_map(|list| spec.child(list).items()).map(|c| c.child("securityContext"));
    let context = spec.child("securityContext");
    match name.text() {
        "linux" => {
            for context in std::iter::once(context).chain(contexts()) {
                let options = context.child("windowsOptions");
                if options.is_set() {
                    options.forbidden("windows options cannot be set for a linux pod");
                }
            }
        }
        "windows" => {
            let fields = LINUX_POD.iter().map(|field| context.child(field));
            let own = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
            let own = own.iter().map(|field| spec.child(field)).filter(|field| {
                field.flag()
                    || (field.is_set()
                        && !field.path().as_str().ends_with("PID")
                        && !field.path().as_str().ends_with("IPC"))
            });
            for field in fields.filter(At::is_set).chain(own) {
                field.forbidden(NOT_ON_WINDOWS);
            }
            for context in contexts() {
                for field in LINUX_CONTAINER.iter().map(|field| context.child(field)).filter(At::is_set) {
                    field.forbidden(NOT_ON_WINDOWS);
                }
            }
        }
        _ => {}
    }
}
