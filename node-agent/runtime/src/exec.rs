//! A second process in a running container, with its streams.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, KillRequest, StartRequest, WaitRequest,
};
use nix::sys::signal::Signal;
use tokio::net::unix::pipe;

use crate::{
    Error, Result, Runtime, container,
    rpc::{Named, optional},
    spec,
};

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// Command line.
    pub command: Vec<String>,
    /// Wants stdin.
    pub stdin: bool,
    /// Wants a terminal (stderr is then part of stdout).
    pub tty: bool,
}

/// A started process. Dropping it does not end the process: call [`ExecSession::finish`].
#[derive(Debug)]
pub struct ExecSession {
    runtime: Runtime,
    container: String,
    id: String,
    folder: PathBuf,
    /// To the process.
    pub stdin: Option<pipe::Sender>,
    /// From the process.
    pub stdout: Option<pipe::Receiver>,
    /// From the process; none with a terminal.
    pub stderr: Option<pipe::Receiver>,
}

impl Runtime {
    /// Starts a process in a running container.
    pub async fn exec(&self, container: &str, request: &ExecRequest) -> Result<ExecSession> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        if request.command.is_empty() {
            return Err(Error::Invalid("you must specify at least one command for the container".to_owned()));
        }
        let spec = self
            .spec_of(container)
            .await?
            .ok_or_else(|| Error::Invalid(format!("container {container} does not exist")))?;
        let process = spec::exec_process(&spec, &request.command, request.tty);
        // Unique also across restarts of the agent.
        let id = format!("e{:x}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let folder = self.config.run_dir.join("io").join(&id);
        let path = |name: &str| folder.join(name);
        for (wanted, name) in [(request.stdin, "in"), (true, "out"), (!request.tty, "err")] {
            if wanted {
                container::make_fifo(&path(name))?;
            }
        }
        let text = |wanted: bool, name: &str| {
            if wanted { path(name).to_string_lossy().into_owned() } else { String::new() }
        };
        // Readers first: the shim must find somebody at the other end.
        let receiver = |name: &str| {
            pipe::OpenOptions::new().open_receiver(path(name)).map_err(Error::io("open", path(name)))
        };
        let mut session = ExecSession {
            runtime: self.clone(),
            container: container.to_owned(),
            id: id.clone(),
            folder: folder.clone(),
            stdin: None,
            stdout: Some(receiver("out")?),
            stderr: if request.tty { None } else { Some(receiver("err")?) },
        };
        let exec = self.rpc.request(ExecProcessRequest {
            container_id: container.to_owned(),
            stdin: text(request.stdin, "in"),
            stdout: text(true, "out"),
            stderr: text(!request.tty, "err"),
            terminal: request.tty,
            spec: Some(prost_types::Any {
                type_url: PROCESS_TYPE.to_owned(),
                value: process.to_string().into_bytes(),
            }),
            exec_id: id.clone(),
        });
        let started = async {
            self.rpc.tasks().exec(exec).await.named("exec")?;
            if request.stdin {
                // Read-write: opening never fails for want of a reader that is still on its way.
                session.stdin = Some(
                    pipe::OpenOptions::new()
                        .read_write(true)
                        .open_sender(path("in"))
                        .map_err(Error::io("open", path("in")))?,
                );
            }
            let start =
                self.rpc.request(StartRequest { container_id: container.to_owned(), exec_id: id.clone() });
            self.rpc.tasks().start(start).await.named("exec start").map(drop)
        };
        let result: Result<()> = started.await;
        match result {
            Ok(()) => Ok(session),
            Err(error) => {
                session.finish().await?;
                Err(error)
            }
        }
    }
}

impl ExecSession {
    /// Waits for the end: the exit code.
    pub async fn wait(&self) -> Result<i32> {
        let wait = self
            .runtime
            .rpc
            .request(WaitRequest { container_id: self.container.clone(), exec_id: self.id.clone() });
        let answer = self.runtime.rpc.tasks().wait(wait).await.named("exec wait")?;
        Ok(i32::try_from(answer.exit_status).unwrap_or(255))
    }

    /// Changes the size of its terminal.
    pub async fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.runtime.resize(&self.container, &self.id, width, height).await
    }

    /// Tells the process that there is no more input. The shim holds the FIFO open too: both ends must go.
    /// The caller drops [`ExecSession::stdin`] before.
    pub async fn close_stdin(&self) -> Result<()> {
        self.runtime.close_stdin(&self.container, &self.id).await
    }

    /// Kills the process.
    pub async fn kill(&self) -> Result<()> {
        let kill = self.runtime.rpc.request(KillRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
            signal: Signal::SIGKILL as u32,
            all: false,
        });
        match optional(self.runtime.rpc.tasks().kill(kill).await.named("exec kill")) {
            Err(Error::Rpc { source, .. }) if source.message().contains("already finished") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Forgets the process, ending it if it still runs, and removes its files.
    pub async fn finish(mut self) -> Result<()> {
        self.stdin = None;
        let delete = || {
            self.runtime.rpc.request(DeleteProcessRequest {
                container_id: self.container.clone(),
                exec_id: self.id.clone(),
            })
        };
        let mut deleted =
            optional(self.runtime.rpc.tasks().delete_process(delete()).await.named("exec delete"));
        if deleted.as_ref().is_err_and(Error::still_runs) {
            self.kill().await?;
            self.wait().await?;
            deleted = optional(self.runtime.rpc.tasks().delete_process(delete()).await.named("exec delete"));
        }
        match std::fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &self.folder)(e));
            }
            _ => {}
        }
        deleted.map(drop)
    }
}
