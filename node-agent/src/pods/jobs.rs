//! The work a pod worker orders: each job runs beside the worker and ends in a [`Done`].

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    jiff::Timestamp,
};
use nix::sys::signal::Signal;
use skep_agent_core::{
    observed::{Attempt, Exit, Run},
    view,
};
use skep_client::{DeleteParams, events::EventType};
use skep_network::PodRequest;
use skep_network_policy::{engine::LocalPod, model::ObjectName};
use skep_runtime::{container::container_id, logs, sandbox};
use tokio_util::sync::CancellationToken;

use super::{
    SharedTools, files,
    handler::{Handler, Target},
    pulls::PullError,
    request::{self, RequestError, Surroundings},
    sockets,
};
use crate::Error;

/// Least seconds that are left for SIGTERM after a preStop hook.
const MIN_GRACE: u64 = 2;

/// What came of a job.
#[derive(Debug)]
pub(super) enum Done {
    Volumes(Result<std::collections::BTreeMap<String, std::path::PathBuf>, String>),
    Network(Result<Network, String>),
    Start { container: String, attempt: u32, result: Result<Attempt, Failure> },
    Stop { container: String },
    CleanUp(Result<(), String>),
    Finalize(Result<(), String>),
    Refreshed,
}

/// A pod's network and shared namespaces.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub ips: Vec<std::net::IpAddr>,
    pub netns: Option<std::path::PathBuf>,
    pub sandbox: sandbox::Sandbox,
    pub files: files::PodFiles,
}

/// Why a container did not start.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub reason: String,
    pub message: String,
}

pub(super) async fn volumes(tools: SharedTools, pod: Arc<Pod>) -> Done {
    let result = tools.volumes.prepare(&pod).await;
    if let Err(error) = &result {
        tools.recorder.about(&*pod, EventType::Warning, "FailedMount", &error.to_string());
    }
    Done::Volumes(result.map_err(|e| e.to_string()))
}

pub(super) async fn network(tools: SharedTools, pod: Arc<Pod>) -> Done {
    let result = set_up(&tools, &pod).await;
    if let Err(error) = &result {
        let text = format!("Failed to create pod sandbox: {error}");
        tools.recorder.about(&*pod, EventType::Warning, "FailedCreatePodSandBox", &text);
    }
    Done::Network(result.map_err(|e| e.to_string()))
}

async fn set_up(tools: &SharedTools, pod: &Arc<Pod>) -> Result<Network, Error> {
    let (namespace, name, uid) = view::identity(pod);
    let hostname =
        view::kernel_hostname(pod, &tools.node.dns.domain).map_err(|e| Error::Config(e.to_string()))?;
    let (run, owned) = (tools.node.run_dir.clone(), uid.to_owned());
    // Namespaces and mounts block; meanwhile the network is made.
    let sandbox = tokio::task::spawn_blocking(move || sandbox::ensure(&run, &owned, &hostname));
    let (ips, netns) = if view::host_network(pod) {
        (tools.node.ips.clone(), None)
    } else {
        let request =
            PodRequest { uid: uid.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() };
        let attachment = tools.network.setup(&request).await?;
        if sockets::opts_out(pod)
            && let Err(error) = sockets::leave_alone(tools, attachment.netns.clone()).await
        {
            // The pod works without, only that services are translated before its packets exist.
            let text = format!("services are translated at the pod's sockets all the same: {error}");
            tools.recorder.about(&**pod, EventType::Warning, "SocketLoadBalancing", &text);
        }
        // Nothing of the pod runs before its policies are in the kernel.
        let local = LocalPod {
            name: ObjectName::new(namespace, name),
            identity: skep_network_policy::read::identity(pod),
            ips: attachment.ips.clone(),
            netns: attachment.netns.clone(),
        };
        tools.policies.add(uid, local).await?;
        (attachment.ips, Some(attachment.netns))
    };
    let sandbox = sandbox.await.map_err(|e| Error::Config(e.to_string()))??;
    let files = files::prepare(pod, &ips, &tools.node)?;
    tools.directory.set_netns(pod, netns.clone());
    Ok(Network { ips, netns, sandbox, files })
}

pub(super) async fn start(
    tools: SharedTools,
    pod: Arc<Pod>,
    container: Container,
    attempt: u32,
    around: Surroundings,
    pulling: CancellationToken,
) -> Done {
    let name = container.name.clone();
    let result = try_start(&tools, &pod, &container, attempt, &around, &pulling).await;
    if result.is_ok() && attempt >= 2 {
        // Only the newest two attempts are kept.
        forget(&tools, &pod, &name, attempt - 2).await;
    }
    match &result {
        Ok(_) => drop(tools.metrics.started_containers.inc()),
        Err(failure) => {
            tools.metrics.start_errors.inc();
            tools.recorder.about(&*pod, EventType::Warning, "Failed", &format!("Error: {}", failure.message));
        }
    }
    Done::Start { container: name, attempt, result }
}

async fn try_start(
    tools: &SharedTools,
    pod: &Arc<Pod>,
    container: &Container,
    attempt: u32,
    around: &Surroundings,
    pulling_allowed: &CancellationToken,
) -> Result<Attempt, Failure> {
    let fail = |reason: &str, message: String| Failure { reason: reason.to_owned(), message };
    let normal = |reason: &str, text: &str| tools.recorder.about(&**pod, EventType::Normal, reason, text);
    let image_name = container.image.clone().unwrap_or_default();
    let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
    let begin = tokio::time::Instant::now();
    let pulling = || normal("Pulling", &format!("Pulling image \"{image_name}\""));
    let got = pulling_allowed
        .run_until_cancelled(tools.pulls.get(
            &tools.runtime,
            &tools.client,
            pod,
            &image_name,
            policy,
            pulling,
        ))
        .await
        .ok_or_else(|| fail("ContainerCreating", "the pod is being stopped".to_owned()))?
        .map_err(|error: PullError| fail(error.reason(), error.to_string()))?;
    if got.pulled {
        let text = format!("Successfully pulled image \"{image_name}\" in {:?}", begin.elapsed());
        normal("Pulled", &text);
    } else {
        normal("Pulled", &format!("Container image \"{image_name}\" already present on machine"));
    }
    let image_id = got.image.repo_digest();
    let request =
        request::build(tools, pod, container, attempt, got.image, around).await.map_err(|error| {
            let reason = match &error {
                RequestError::Env(_) | RequestError::Api(_) => "CreateContainerConfigError",
                RequestError::Volumes(_) | RequestError::Files(_) => "CreateContainerError",
            };
            fail(reason, error.to_string())
        })?;
    if request.args.is_empty() {
        return Err(fail("CreateContainerError", "no command specified".to_owned()));
    }
    let made = |run| Attempt {
        id: request.id.clone(),
        number: attempt,
        run,
        image: image_name.clone(),
        image_id: image_id.clone(),
    };
    let cannot_run = |error: &skep_runtime::Error| {
        let now = Timestamp::now();
        tools.recorder.about(&**pod, EventType::Warning, "Failed", &format!("Error: {error}"));
        let (reason, message) = ("StartError".to_owned(), error.to_string());
        made(Run::Exited(Exit { code: 128, started_at: None, finished_at: now, reason, message }))
    };
    match tools.runtime.create_container(&request).await {
        Ok(()) => {}
        // The process cannot be started: for Kubernetes, the container ran and failed.
        Err(error @ skep_runtime::Error::Rpc { op: "task create", .. }) => return Ok(cannot_run(&error)),
        Err(
            error @ (skep_runtime::Error::RunsAsRoot
            | skep_runtime::Error::UnverifiableUser(_)
            | skep_runtime::Error::UnknownUser(_)),
        ) => return Err(fail("CreateContainerConfigError", error.to_string())),
        Err(error) => return Err(fail("CreateContainerError", error.to_string())),
    }
    normal("Created", &format!("Container created: {}", container.name));
    if let Err(error) = tools.runtime.start_container(&request.id).await {
        return Ok(cannot_run(&error));
    }
    tools.directory.runs(&request.id);
    let started_at = Timestamp::now();
    normal("Started", &format!("Container started: {}", container.name));
    if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) {
        let target = target(tools, container, &request.id, around);
        if let Err(error) = Handler::from(hook).run(&target, Duration::from_secs(3600)).await {
            let text = format!("PostStartHook failed: {error}");
            tools.recorder.about(&**pod, EventType::Warning, "FailedPostStartHook", &text);
            if let Err(error) = tools.runtime.stop(&request.id, Signal::SIGTERM, Duration::from_secs(2)).await
            {
                tracing::warn!(container = request.id, %error, "cannot stop after a failed hook");
            }
        }
    }
    Ok(made(Run::Running(started_at)))
}

async fn forget(tools: &SharedTools, pod: &Pod, container: &str, attempt: u32) {
    let (namespace, name, uid) = view::identity(pod);
    let log =
        logs::container_log(&logs::pod_folder(&tools.node.log_dir, namespace, name, uid), container, attempt);
    let removed = tools.runtime.remove_container(&container_id(uid, container, attempt)).await;
    if let Err(error) = removed.and_then(|()| logs::remove(&log)) {
        tracing::warn!(container, attempt, %error, "an old attempt stays");
    }
}

pub(super) fn target(tools: &SharedTools, container: &Container, id: &str, around: &Surroundings) -> Target {
    Target {
        runtime: tools.runtime.clone(),
        container_id: id.to_owned(),
        container: container.clone(),
        ip: around.ips.first().copied(),
    }
}

/// Stops one attempt: preStop hook, signal, grace, SIGKILL.
pub(super) async fn stop(
    tools: SharedTools,
    pod: Arc<Pod>,
    container: String,
    attempt: u32,
    grace: i64,
    why: String,
    around: Option<Surroundings>,
) -> Done {
    let (_, _, uid) = view::identity(&pod);
    let id = container_id(uid, &container, attempt);
    let text = if why.is_empty() {
        format!("Stopping container {container}")
    } else {
        format!("Container {container} {why}, will be restarted")
    };
    tools.recorder.about(&*pod, EventType::Normal, "Killing", &text);
    let begin = tokio::time::Instant::now();
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
    let spec = view::container(&pod, &container);
    let hook = spec.as_ref().and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
    let mut left = grace;
    if let (Some(hook), Some(spec), Some(around), false) = (hook, &spec, &around, grace.is_zero()) {
        let target = target(&tools, spec, &id, around);
        if let Err(error) = Handler::from(hook).run(&target, grace).await {
            let text = format!("PreStopHook failed: {error}");
            tools.recorder.about(&*pod, EventType::Warning, "FailedPreStopHook", &text);
        }
        left = grace.saturating_sub(begin.elapsed()).max(Duration::from_secs(MIN_GRACE));
    }
    let signal = spec
        .as_ref()
        .and_then(|c| c.lifecycle.as_ref())
        .and_then(|l| l.stop_signal.as_deref())
        .and_then(|name| name.parse().ok())
        .unwrap_or(Signal::SIGTERM);
    if let Err(error) = tools.runtime.stop(&id, signal, left).await {
        tracing::warn!(container = id, %error, "cannot stop the container; trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Done::Stop { container }
}

/// Removes what a pod has on the node.
pub(super) async fn clean_up(tools: SharedTools, pod: Arc<Pod>) -> Done {
    let (namespace, name, uid) = view::identity(&pod);
    let result = remove_all(&tools, uid).await;
    let logs = logs::pod_folder(&tools.node.log_dir, namespace, name, uid);
    let result = result.and_then(|()| remove_folder(&logs));
    if let Err(error) = &result {
        tracing::warn!(pod = name, namespace, %error, "cannot clean up yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Done::CleanUp(result.map_err(|e| e.to_string()))
}

/// Removes containers, network, namespaces, volumes, groups and files of a pod. Can be repeated.
pub(super) async fn remove_all(tools: &SharedTools, uid: &str) -> Result<(), Error> {
    for record in tools.runtime.containers().await? {
        if record.pod.uid == uid {
            tools.runtime.remove_container(&record.id).await?;
            tools.directory.ended(&record.id);
        }
    }
    sockets::forget(tools, uid).await?;
    tools.network.teardown(uid).await?;
    tools.policies.remove(uid).await;
    let (run, owned) = (tools.node.run_dir.clone(), uid.to_owned());
    tokio::task::spawn_blocking(move || sandbox::remove(&run, &owned))
        .await
        .map_err(|e| Error::Config(e.to_string()))??;
    tools.volumes.teardown(uid)?;
    tools.runtime.hierarchies().remove(&tools.node.pod_cgroup(uid)).await?;
    remove_folder(&tools.node.pod_folder(uid))
}

fn remove_folder(path: &std::path::Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}

/// Removes the object from the API, if it still is this pod.
pub(super) async fn finalize(
    tools: SharedTools,
    pod: Arc<Pod>,
    status: Option<k8s_openapi::api::core::v1::PodStatus>,
) -> Done {
    let (namespace, name, uid) = view::identity(&pod);
    // Controllers count how the pod ended: it must be written before the object goes.
    if let Some(status) = status
        && let Err(error) = super::report::write(&tools.client, &pod, &status).await
        && !error.is_not_found()
    {
        return Done::Finalize(Err(error.to_string()));
    }
    let api = tools.client.namespaced::<Pod>(namespace);
    let result = match api.delete(name, &DeleteParams::uid(uid).grace(0)).await {
        // A conflict means that another pod has the name.
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.to_string()),
        _ => Ok(()),
    };
    if result.is_err() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Done::Finalize(result)
}
