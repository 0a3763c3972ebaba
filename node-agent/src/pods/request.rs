//! From a container of a pod to what the runtime is asked for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, HostIP, Pod, PodIP, Secret};
use skep_agent_core::{
    env::{self, EnvError, Reference, Sources},
    fields::{field_ref, resource_ref},
    files::{ServiceAddress, service_variables},
    resources, view,
};
use skep_runtime::{
    ContainerRequest, Image,
    container::{PodIdentity, container_id},
    logs,
    sandbox::Sandbox,
    spec::{Namespaces, Resources, Security},
};

use super::{Tools, files::PodFiles, mounts};

/// Why a container cannot be created as it is described.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Env(#[from] EnvError),
    #[error("{0}")]
    Api(#[from] skep_client::Error),
    #[error(transparent)]
    Volumes(#[from] crate::volumes::Error),
    #[error(transparent)]
    Files(#[from] crate::Error),
}

/// The surroundings of all containers of a pod, once network and volumes are there.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub ips: Vec<std::net::IpAddr>,
    pub netns: Option<std::path::PathBuf>,
    pub sandbox: Option<Sandbox>,
    pub files: PodFiles,
    pub places: BTreeMap<String, std::path::PathBuf>,
}

/// The environment of a container.
pub(super) async fn environment(
    tools: &Tools,
    pod: &Pod,
    container: &Container,
    around: &Surroundings,
) -> Result<BTreeMap<String, String>, RequestError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut sources = Sources::default();
    let (maps, secrets) = env::references(container);
    for name in maps {
        if let Some(map) = tools.client.namespaced::<ConfigMap>(namespace).get_opt(&name).await? {
            sources.config_maps.insert(name, map);
        }
    }
    for name in secrets {
        if let Some(secret) = tools.client.namespaced::<Secret>(namespace).get_opt(&name).await? {
            sources.secrets.insert(name, secret);
        }
    }
    let services = service_environment(tools, pod, namespace);
    // The status in the API may lag behind the network: the fields must say what is true now.
    let mut current = pod.clone();
    let status = current.status.get_or_insert_default();
    status.host_ip = tools.node.ips.first().map(ToString::to_string);
    status.host_ips = Some(tools.node.ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect());
    status.pod_ip = around.ips.first().map(ToString::to_string);
    status.pod_ips = Some(around.ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
    let lookup = |reference: Reference<'_>| match reference {
        Reference::Field(path) => field_ref(&current, path).map_err(|e| e.to_string()),
        Reference::Resource(selector) => {
            resource_ref(&current, Some(&container.name), selector, &tools.node.facts)
                .map_err(|e| e.to_string())
        }
    };
    Ok(env::build(container, &services, &sources, lookup)?)
}

fn service_environment(tools: &Tools, pod: &Pod, namespace: &str) -> BTreeMap<String, String> {
    let links = view::spec(pod).enable_service_links.unwrap_or(true);
    let mut found = Vec::new();
    let mut collect = |namespace: &str, all: bool| {
        for service in tools.services.list_namespace(namespace) {
            let name = service.metadata.name.clone().unwrap_or_default();
            if !all && name != "kubernetes" {
                continue;
            }
            let Some(spec) = &service.spec else { continue };
            let ip = spec.cluster_ip.clone().unwrap_or_default();
            if ip.is_empty() || ip == "None" {
                continue;
            }
            let ports = spec.ports.iter().flatten().map(|p| {
                (
                    p.name.clone().unwrap_or_default(),
                    p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                    p.port,
                )
            });
            found.push(ServiceAddress { name, ip, ports: ports.collect() });
        }
    };
    // The API server's own service is known in every namespace.
    collect("default", false);
    if links {
        collect(namespace, true);
    }
    service_variables(&found)
}

/// The whole request.
pub(super) async fn build(
    tools: &Tools,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: Image,
    around: &Surroundings,
) -> Result<ContainerRequest, RequestError> {
    let (namespace, name, uid) = view::identity(pod);
    let spec = view::spec(pod);
    let folder = tools.node.pod_folder(uid);
    let values = environment(tools, pod, container, around).await?;
    let termination = super::files::termination(&folder, &container.name, attempt)?;
    let mounts = mounts::all(container, &around.places, &values, &around.files, &termination)?;

    let mut all = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOSTNAME".to_owned(), super::files::hostname(pod, &tools.node)?),
    ]);
    if container.tty == Some(true) {
        all.insert("TERM".to_owned(), "xterm".to_owned());
    }
    let of_image = image.config.env.iter().filter_map(|e| e.split_once('='));
    all.extend(of_image.map(|(k, v)| (k.to_owned(), v.to_owned())));
    all.extend(values.clone());

    let limits = resources::limits(pod, container, tools.node.memory_capacity);
    let working_dir = container.working_dir.clone().filter(|d| !d.is_empty());
    let log_folder = logs::pod_folder(&tools.node.log_dir, namespace, name, uid);
    let host_ipc = spec.host_ipc.unwrap_or(false);
    let sandbox = around.sandbox.as_ref();
    Ok(ContainerRequest {
        id: container_id(uid, &container.name, attempt),
        pod: PodIdentity { uid: uid.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() },
        name: container.name.clone(),
        attempt,
        args: env::command(container, &image.config.entrypoint, &image.config.cmd, &values),
        env: all.into_iter().map(|(k, v)| format!("{k}={v}")).collect(),
        working_dir: working_dir.unwrap_or_else(|| image.config.working_dir.clone()),
        mounts,
        shm: if host_ipc { Some("/dev/shm".into()) } else { sandbox.map(|s| s.shm.clone()) },
        security: security(pod, container),
        resources: Resources {
            cpu_shares: u64::try_from(limits.cpu_shares).ok(),
            cpu_quota: limits.cpu_quota,
            cpu_period: limits.cpu_quota.and(u64::try_from(resources::CPU_PERIOD).ok()),
            memory_limit: limits.memory,
            pids_limit: None,
            oom_score_adj: limits.oom_score_adj,
        },
        namespaces: Namespaces {
            network: around.netns.clone(),
            ipc: if host_ipc { None } else { sandbox.map(|s| s.ipc.clone()) },
            // A pod in the host's network has the host's name too.
            uts: if view::host_network(pod) { None } else { sandbox.map(|s| s.uts.clone()) },
            host_pid: spec.host_pid.unwrap_or(false),
        },
        cgroup: tools.node.pod_cgroup(uid),
        sysctls: sysctls(pod),
        tty: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        log_path: logs::container_log(&log_folder, &container.name, attempt),
        image,
    })
}

fn sysctls(pod: &Pod) -> Vec<(String, serde_json::Value)> {
    let context = view::spec(pod).security_context.as_ref();
    let list = context.into_iter().flat_map(|c| c.sysctls.iter().flatten());
    list.map(|s| (s.name.clone(), s.value.clone().into())).collect()
}

fn security(pod: &Pod, container: &Container) -> Security {
    let of_pod = view::spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let id = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok());
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.unwrap_or_default();
    let added = capabilities.add.unwrap_or_default();
    let groups = of_pod.supplemental_groups.iter().flatten().copied().chain(of_pod.fs_group);
    Security {
        run_as_user: id(own.run_as_user.or(of_pod.run_as_user)),
        run_as_group: id(own.run_as_group.or(of_pod.run_as_group)),
        groups: groups.filter_map(|g| u32::try_from(g).ok()).collect(),
        run_as_non_root: own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false),
        privileged,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: !privileged && own.allow_privilege_escalation == Some(false),
        add: added,
        drop: capabilities.drop.unwrap_or_default(),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    }
}
