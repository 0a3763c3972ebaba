//! The pods as the kubelet API sees them.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use skep_agent_core::view;
use skep_runtime::{ContainerRecord, Runtime};
use tokio::sync::watch;

use super::SharedTools;
use crate::server::{Node, Refusal};

/// Answers the kubelet API's questions.
pub(crate) struct Kubelet(pub SharedTools);

#[async_trait]
impl Node for Kubelet {
    async fn container(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        previous: bool,
    ) -> Result<ContainerRecord, Refusal> {
        let entry = self
            .0
            .directory
            .get(namespace, pod)
            .ok_or_else(|| Refusal::not_found(format!("pod \"{pod}\" not found")))?;
        let name = match container {
            Some(name) => name.to_owned(),
            None => match view::spec(&entry.pod).containers.as_slice() {
                [only] => only.name.clone(),
                all => {
                    let names: Vec<_> = all.iter().map(|c| c.name.as_str()).collect();
                    return Err(Refusal::bad_request(format!(
                        "a container name must be specified for pod {pod}, choose one of: [{}]",
                        names.join(" ")
                    )));
                }
            },
        };
        if view::container(&entry.pod, &name).is_none() {
            return Err(Refusal::bad_request(format!("container {name} is not valid for pod {pod}")));
        }
        let (_, _, uid) = view::identity(&entry.pod);
        let internal =
            |e: skep_runtime::Error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
        let mut own: Vec<_> = self
            .0
            .runtime
            .containers()
            .await
            .map_err(internal)?
            .into_iter()
            .filter(|r| r.pod.uid == uid && r.name == name)
            .collect();
        own.sort_by_key(|r| std::cmp::Reverse(r.attempt));
        let found = own.into_iter().nth(usize::from(previous));
        found.ok_or_else(|| {
            if previous {
                let text = format!("previous terminated container \"{name}\" in pod \"{pod}\" not found");
                return Refusal::bad_request(text);
            }
            Refusal::bad_request(format!(
                "container \"{name}\" in pod \"{pod}\" is waiting to start: {}",
                waiting_reason(&entry.pod, &name)
            ))
        })
    }

    fn ended(&self, container_id: &str) -> watch::Receiver<bool> {
        self.0.directory.end_of(container_id)
    }

    fn network_namespace(&self, namespace: &str, pod: &str) -> Result<Option<PathBuf>, Refusal> {
        let entry = self
            .0
            .directory
            .get(namespace, pod)
            .ok_or_else(|| Refusal::not_found(format!("pod \"{pod}\" not found")))?;
        match (entry.netns, view::host_network(&entry.pod)) {
            (Some(path), _) => Ok(Some(path)),
            (None, true) => Ok(None),
            // Never the host's network in its place.
            (None, false) => Err(Refusal::bad_request(format!("pod \"{pod}\" has no network yet"))),
        }
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        self.0.directory.pods()
    }

    fn metrics(&self) -> String {
        self.0.metrics.print()
    }

    fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }
}

fn waiting_reason(pod: &Pod, name: &str) -> String {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|s| s.container_statuses.iter().flatten());
    let state = all.into_iter().find(|s| s.name == name).and_then(|s| s.state.clone());
    state.and_then(|s| s.waiting).and_then(|w| w.reason).unwrap_or_else(|| "ContainerCreating".to_owned())
}
