//! From the runtime's records to what the decisions are made of.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};
use skep_agent_core::{
    backoff::Backoff,
    observed::{self, Attempt, Exit, Run},
    view,
};
use skep_runtime::{ContainerRecord, ContainerState, ExitRecord, logs};

use super::files;

/// The most that is kept of a termination message.
const MAX_MESSAGE: usize = 4096;
/// Of a log's tail as message.
const MAX_TAIL: usize = 2048;
const TAIL_LINES: u64 = 80;

/// How a container ended, with its message.
pub(super) async fn exit(
    container: Option<&Container>,
    folder: &Path,
    record: &ContainerRecord,
    exit: &ExitRecord,
) -> Exit {
    let reason = match (&exit.reason, exit.oom, exit.code) {
        (Some(reason), ..) => reason.clone(),
        (None, true, _) => "OOMKilled".to_owned(),
        (None, _, 0) => "Completed".to_owned(),
        (None, ..) => "Error".to_owned(),
    };
    let message = match &exit.message {
        Some(message) => message.clone(),
        None => message(container, folder, &record.name, record.attempt, &record.log_path, exit.code).await,
    };
    Exit { code: exit.code, started_at: exit.started_at, finished_at: exit.finished_at, reason, message }
}

/// The termination message that the container wrote into its file.
pub(super) fn file_message(folder: &Path, name: &str, attempt: u32) -> String {
    match std::fs::read(files::termination_file(folder, name, attempt)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_MESSAGE)]).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => format!("Error on reading termination message: {error}"),
    }
}

/// The termination message: the file, or by policy the log's tail.
pub(super) async fn message(
    container: Option<&Container>,
    folder: &Path,
    name: &str,
    attempt: u32,
    log: &Path,
    code: i32,
) -> String {
    let mut text = file_message(folder, name, attempt);
    let fall_back =
        container.and_then(|c| c.termination_message_policy.as_deref()) == Some("FallbackToLogsOnError");
    if text.is_empty() && fall_back && code != 0 {
        // The log writer finishes a moment after the container.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let options = logs::read::LogOptions { tail: Some(TAIL_LINES), ..Default::default() };
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<bytes::Bytes>(16);
        let collect = async {
            let mut all = Vec::new();
            while let Some(piece) = receiver.recv().await {
                all.extend_from_slice(&piece);
            }
            all
        };
        let read = async {
            let result = logs::read::read(log, &options, None, &sender).await;
            drop(sender);
            result
        };
        let (result, all) = tokio::join!(read, collect);
        text = match result {
            Ok(()) => String::from_utf8_lossy(&all[all.len().saturating_sub(MAX_TAIL)..]).into_owned(),
            Err(error) => format!("Error on reading termination message from logs: {error}"),
        };
    }
    text
}

async fn attempt(pod: &Pod, folder: &Path, record: &ContainerRecord) -> Attempt {
    let run = match &record.state {
        ContainerState::Created => Run::Created,
        ContainerState::Running { started_at, .. } => Run::Running(*started_at),
        ContainerState::Exited(end) => {
            Run::Exited(exit(view::container(pod, &record.name).as_ref(), folder, record, end).await)
        }
    };
    Attempt {
        id: record.id.clone(),
        number: record.attempt,
        run,
        image: record.image.clone(),
        image_id: record.image_digest.clone(),
    }
}

/// What is known of a container whose attempts the runtime lists (any order): an agent that starts adopts
/// them. What the API says about readiness holds until probes say otherwise.
pub(super) async fn adopt(
    pod: &Pod,
    folder: &Path,
    records: &[ContainerRecord],
    name: &str,
) -> observed::Container {
    let mut own: Vec<_> = records.iter().filter(|r| r.name == name).collect();
    own.sort_by_key(|r| std::cmp::Reverse(r.attempt));
    let mut out = observed::Container::default();
    let Some(newest) = own.first() else { return out };
    out.attempt = Some(attempt(pod, folder, newest).await);
    if let Some(previous) = own.get(1) {
        out.previous = Some(attempt(pod, folder, previous).await);
    }
    out.backoff = Backoff::resumed(newest.attempt + u32::from(out.exit().is_some()));
    let status = pod.status.as_ref();
    let told = status.into_iter().flat_map(|s| {
        let main = s.container_statuses.iter().flatten();
        main.chain(s.init_container_statuses.iter().flatten())
    });
    let same = told.into_iter().find(|s| {
        s.name == name && s.container_id.as_deref() == Some(&format!("containerd://{}", newest.id))
    });
    let spec = view::container(pod, name);
    let probed = |pick: fn(&Container) -> bool| spec.as_ref().is_some_and(pick);
    out.started = !probed(|c| c.startup_probe.is_some()) || same.is_some_and(|s| s.started == Some(true));
    out.ready = !probed(|c| c.readiness_probe.is_some()) || same.is_some_and(|s| s.ready);
    out
}
