//! The OCI runtime specification of a container: pure, from a request to JSON.
//!
//! No seccomp filter is set: a container that asks for `RuntimeDefault` runs with the capability set,
//! masked paths and device rules below, which is also what an absent profile means for Kubernetes.

pub mod capabilities;
pub mod user;

mod mounts;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use user::User;

use crate::{ContainerRequest, labels};

/// A bind mount into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// No writing.
    pub read_only: bool,
    /// How mounts propagate.
    pub propagation: Propagation,
}

/// Mount propagation of a bind mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Neither way.
    #[default]
    Private,
    /// Mounts of the host appear in the container.
    HostToContainer,
    /// Both ways (privileged containers only).
    Bidirectional,
}

/// What the container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Numeric user; the image's user when absent.
    pub run_as_user: Option<u32>,
    /// Numeric group.
    pub run_as_group: Option<u32>,
    /// More groups (supplemental and fsGroup).
    pub groups: Vec<u32>,
    /// Refuse to run as root.
    pub run_as_non_root: bool,
    /// All capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// Root file system is read-only.
    pub read_only_root: bool,
    /// Set-uid programs gain nothing.
    pub no_new_privileges: bool,
    /// Capabilities added (without `CAP_`), or `ALL`.
    pub add: Vec<String>,
    /// Capabilities dropped, or `ALL`.
    pub drop: Vec<String>,
    /// /proc is not masked.
    pub unmasked_proc: bool,
}

/// Limits, in the kernel's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Relative weight.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU in a period.
    pub cpu_quota: Option<i64>,
    /// The period in microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
    /// Number of tasks.
    pub pids_limit: Option<i64>,
    /// Who dies first.
    pub oom_score_adj: i32,
}

impl Resources {
    /// As the runtime specification spells it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut cpu = serde_json::Map::new();
        for (key, value) in [
            ("shares", self.cpu_shares.map(Value::from)),
            ("quota", self.cpu_quota.map(Value::from)),
            ("period", self.cpu_period.map(Value::from)),
        ] {
            if let Some(value) = value {
                cpu.insert(key.to_owned(), value);
            }
        }
        let mut out = json!({ "cpu": cpu });
        if let Some(limit) = self.memory_limit {
            out["memory"] = json!({ "limit": limit });
        }
        if let Some(limit) = self.pids_limit {
            out["pids"] = json!({ "limit": limit });
        }
        out
    }
}

/// Which namespaces the container joins; `None` means the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Pinned network namespace.
    pub network: Option<PathBuf>,
    /// Pinned IPC namespace.
    pub ipc: Option<PathBuf>,
    /// Pinned UTS namespace.
    pub uts: Option<PathBuf>,
    /// The container sees the host's processes.
    pub host_pid: bool,
}

/// What this machine allows, looked up once.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Capabilities in our bounding set.
    pub bounding: Vec<String>,
    /// A negative adjustment below ours needs CAP_SYS_RESOURCE: runc fails with a misleading message.
    pub min_oom_score_adj: i32,
    /// Devices for privileged containers.
    pub devices: Vec<Value>,
}

/// Builds the specification.
#[must_use]
pub fn build(request: &ContainerRequest, user: &User, host: &Host) -> Value {
    let security = &request.security;
    let capabilities = capabilities::effective(security, &host.bounding);
    let mut process = json!({
        "terminal": request.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": request.args,
        "env": request.env,
        "cwd": if request.working_dir.is_empty() { "/" } else { request.working_dir.as_str() },
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": request.resources.oom_score_adj.max(host.min_oom_score_adj),
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
    });
    if request.tty {
        process["consoleSize"] = json!({ "height": 24, "width": 80 });
    }
    let mut namespaces = vec![json!({ "type": "mount" })];
    if !request.namespaces.host_pid {
        namespaces.push(json!({ "type": "pid" }));
    }
    let joined = [
        ("network", &request.namespaces.network),
        ("ipc", &request.namespaces.ipc),
        ("uts", &request.namespaces.uts),
    ];
    namespaces.extend(joined.into_iter().filter_map(|(kind, path)| {
        path.as_ref().map(|path| json!({ "type": kind, "path": path.to_string_lossy() }))
    }));
    let mut resources = request.resources.to_json();
    resources["devices"] = if security.privileged {
        json!([{ "allow": true, "access": "rwm" }])
    } else {
        json!([{ "allow": false, "access": "rwm" }])
    };
    let mut linux = json!({
        "namespaces": namespaces,
        "resources": resources,
        "cgroupsPath": format!("{}/{}", request.cgroup, request.id),
        "sysctl": request.sysctls.iter().cloned().collect::<serde_json::Map<String, Value>>(),
        "rootfsPropagation": mounts::root_propagation(&request.mounts),
    });
    if security.privileged {
        linux["devices"] = json!(host.devices);
    } else if !security.unmasked_proc {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
    }
    json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": { "path": "rootfs", "readonly": security.read_only_root },
        "mounts": mounts::all(request),
        "linux": linux,
        "annotations": {
            labels::SHIM_GROUP: request.pod.uid,
            labels::POD_UID: request.pod.uid,
            labels::CONTAINER_NAME: request.name,
        },
    })
}

const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The process of an exec: the container's own, with other arguments.
#[must_use]
pub fn exec_process(spec: &Value, command: &[String], tty: bool) -> Value {
    let mut process = spec["process"].clone();
    process["args"] = json!(command);
    process["terminal"] = json!(tty);
    if let Some(map) = process.as_object_mut() {
        map.remove("consoleSize");
    }
    if tty
        && let Some(env) = process["env"].as_array_mut()
        && !env.iter().any(|e| e.as_str().is_some_and(|e| e.starts_with("TERM=")))
    {
        env.push(json!("TERM=xterm"));
    }
    process
}

impl Host {
    /// Looks at this machine.
    pub fn probe() -> crate::Result<Self> {
        let bounding = capabilities::bounding_set()?;
        let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj")
            .map_err(crate::Error::io("read", "/proc/self/oom_score_adj"))?
            .trim()
            .parse()
            .unwrap_or(0);
        let may_lower = bounding.iter().any(|c| c == "CAP_SYS_RESOURCE");
        Ok(Self {
            min_oom_score_adj: if may_lower { -1000 } else { own },
            devices: mounts::host_devices(Path::new("/dev")),
            bounding,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::request;

    fn host() -> Host {
        Host {
            bounding: vec!["CAP_CHOWN".into(), "CAP_SYS_ADMIN".into()],
            min_oom_score_adj: 0,
            devices: vec![],
        }
    }

    #[test]
    fn an_ordinary_container_is_confined() {
        let mut request = request("a");
        request.resources.oom_score_adj = -997;
        request.namespaces.network = Some("/run/x".into());
        let spec = build(&request, &User::default(), &host());
        assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
        assert_eq!(spec["process"]["oomScoreAdj"], 0, "clamped");
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], false);
        assert!(spec["linux"]["maskedPaths"].as_array().unwrap().len() > 5);
        let kinds: Vec<_> = spec["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["mount", "pid", "network"]);
    }

    #[test]
    fn a_privileged_container_is_not() {
        let mut request = request("a");
        request.security.privileged = true;
        let spec = build(&request, &User::default(), &host());
        assert_eq!(spec["process"]["capabilities"]["effective"], json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]));
        assert!(spec["linux"].get("maskedPaths").is_none());
    }

    #[test]
    fn an_exec_keeps_user_and_environment() {
        let spec = build(&request("a"), &User { uid: 7, ..User::default() }, &host());
        let process = exec_process(&spec, &["ls".to_owned()], true);
        assert_eq!(process["user"]["uid"], 7);
        assert_eq!(process["args"], json!(["ls"]));
        assert!(process["env"].as_array().unwrap().contains(&json!("TERM=xterm")));
    }
}
