//! Small views on a Pod that several decisions need.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// The pod's specification; an empty one for a pod without.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Init containers, in order.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// An init container that keeps running beside the others.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Ephemeral containers in the shape of ordinary ones.
#[must_use]
pub fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    let list = spec(pod).ephemeral_containers.iter().flatten();
    list.map(|e| Container {
        name: e.name.clone(),
        image: e.image.clone(),
        command: e.command.clone(),
        args: e.args.clone(),
        env: e.env.clone(),
        env_from: e.env_from.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        security_context: e.security_context.clone(),
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        tty: e.tty,
        working_dir: e.working_dir.clone(),
        volume_mounts: e.volume_mounts.clone(),
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        ..Container::default()
    })
    .collect()
}

/// Any container by name, of all three sorts.
#[must_use]
pub fn container(pod: &Pod, name: &str) -> Option<Container> {
    let plain = init_containers(pod).iter().chain(&spec(pod).containers);
    plain
        .into_iter()
        .find(|c| c.name == name)
        .cloned()
        .or_else(|| ephemeral_containers(pod).into_iter().find(|c| c.name == name))
}

/// The pod's namespace, name and uid.
#[must_use]
pub fn identity(pod: &Pod) -> (&str, &str, &str) {
    (
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default(),
        pod.metadata.uid.as_deref().unwrap_or_default(),
    )
}

/// The pod lives in the host's network.
#[must_use]
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

/// The pod's own name among its neighbours: `hostnameOverride`, `hostname`, or the name of its object.
#[must_use]
pub fn hostname(pod: &Pod) -> String {
    let spec = spec(pod);
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    if let Some(name) = given(&spec.hostname_override) {
        return name;
    }
    let mut name = given(&spec.hostname).or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    // A host name has at most 63 bytes, and does not end in a separator.
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// The pod's name in the cluster's DNS, if it is to have one: with a subdomain, and unless its name is overridden.
#[must_use]
pub fn full_hostname(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let spec = spec(pod);
    let subdomain = spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty())?;
    if spec.hostname_override.as_deref().is_some_and(|name| !name.is_empty()) {
        return None;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    Some(format!("{}.{subdomain}.{namespace}.svc.{cluster_domain}", hostname(pod)))
}

/// The longest name that the kernel takes, in bytes.
const KERNEL_HOSTNAME: usize = 64;

/// A name that the kernel would not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({KERNEL_HOSTNAME} \
     characters is the max, {} characters requested)", name.len()
)]
pub struct HostnameTooLong {
    /// The name.
    name: String,
}

/// What `hostname` says in the pod's containers: the short name, or all of it with `setHostnameAsFQDN`.
///
/// # Errors
/// When the whole name is too long for the kernel.
pub fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, HostnameTooLong> {
    let whole = spec(pod).set_hostname_as_fqdn.unwrap_or(false);
    let name = full_hostname(pod, cluster_domain).filter(|_| whole).unwrap_or_else(|| hostname(pod));
    if name.len() > KERNEL_HOSTNAME { Err(HostnameTooLong { name }) } else { Ok(name) }
}

/// The pod is over: it will never run again.
#[must_use]
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
