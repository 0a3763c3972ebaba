//! The runtime against a real containerd.

mod registry;
mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use skep_runtime::{ContainerState, ExecRequest, logs::read::LogOptions, sandbox};
use support::{Agent, Place, available};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn ended(agent: &Agent, id: &str) -> skep_runtime::ExitRecord {
    for _ in 0..500 {
        if let Some(record) = agent.runtime.container(id).await.unwrap()
            && let Some(exit) = record.exit()
        {
            return exit.clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("container does not end");
}

async fn log(agent: &Agent, name: &str) -> String {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
    let path = agent.dir.join("logs").join(name).join("0.log");
    // The writer drains the pipes after the end of the container.
    tokio::time::sleep(Duration::from_millis(150)).await;
    skep_runtime::logs::read::read(&path, &LogOptions::default(), None, &sender).await.unwrap();
    drop(sender);
    let mut all = Vec::new();
    while let Some(piece) = receiver.recv().await {
        all.extend_from_slice(&piece);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_runs_logs_and_ends() {
    if !available() {
        return;
    }
    Place::new()
        .run(|agent| async move {
            let image = agent.busybox().await;
            let mut events = agent.runtime.events();
            let mut request = agent.request(
                &image,
                "c",
                "id -u; id -G; echo err >&2; cat /proc/self/oom_score_adj; printf rest; exit 3",
            );
            request.namespaces.ipc = None;
            let begin = Instant::now();
            agent.runtime.create_container(&request).await.unwrap();
            agent.runtime.start_container(&request.id).await.unwrap();
            eprintln!("create and start: {:?}", begin.elapsed());
            let event = events.recv().await.unwrap();
            assert_eq!((event.id.as_str(), event.exit.code), (request.id.as_str(), 3));
            assert!(event.exit.started_at.is_some() && !event.exit.oom);
            let text = log(&agent, "c").await;
            assert!(
                text.contains("1000\n1001 2000\n") && text.contains("err\n") && text.ends_with("rest"),
                "{text}"
            );
            let record = agent.runtime.container(&request.id).await.unwrap().unwrap();
            assert_eq!(record.exit().unwrap().code, 3);
            agent.runtime.remove_container(&request.id).await.unwrap();
            agent.runtime.remove_container(&request.id).await.unwrap();
            assert!(agent.runtime.container(&request.id).await.unwrap().is_none());
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_survives_restarts_of_agent_and_containerd() {
    if !available() {
        return;
    }
    Place::new()
        .run(|agent| async move {
            let image = agent.busybox().await;
            let long =
                agent.request(&image, "long", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.05; done");
            let short = agent.request(&image, "short", "sleep 0.3; exit 7");
            for request in [&long, &short] {
                agent.runtime.create_container(request).await.unwrap();
                agent.runtime.start_container(&request.id).await.unwrap();
            }
            agent.stop().await;
            tokio::time::sleep(Duration::from_millis(600)).await;
            let agent = agent.restart().await;
            assert_eq!(ended(&agent, &short.id).await.code, 7, "an exit while the agent was away is found");
            let ContainerState::Running { pid, .. } =
                agent.runtime.container(&long.id).await.unwrap().unwrap().state
            else {
                panic!("the container must run on");
            };
            // containerd dies by force: the containers do not notice, and the agent brings it back.
            let daemon =
                std::fs::read_to_string(agent.config.run_dir.join("containerd/containerd.pid")).unwrap();
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(daemon.trim().parse().unwrap()),
                Signal::SIGKILL,
            )
            .unwrap();
            let mut back = None;
            for _ in 0..200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if let Ok(Some(record)) = agent.runtime.container(&long.id).await {
                    back = Some(record);
                    break;
                }
            }
            assert_eq!(back.unwrap().pid(), Some(pid));
            // The watcher of before is alive: an end after the restart is recorded.
            let begin = Instant::now();
            agent.runtime.stop(&long.id, Signal::SIGTERM, Duration::from_millis(300)).await.unwrap();
            assert!(begin.elapsed() < Duration::from_secs(10));
            assert_eq!(ended(&agent, &long.id).await.code, 137);
            let text = log(&agent, "long").await;
            let lines: Vec<u32> = text.lines().filter_map(|l| l.parse().ok()).collect();
            assert!(lines.windows(2).all(|w| w[1] == w[0] + 1) && lines[0] == 0, "no line is lost");
            agent.stop().await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_has_streams_codes_and_terminals() {
    if !available() {
        return;
    }
    Place::new()
        .run(|agent| async move {
            let image = agent.busybox().await;
            let run = agent.config.run_dir.clone();
            let shared = sandbox::ensure(&run, "pod-1", "my-pod").unwrap();
            assert_eq!(sandbox::ensure(&run, "pod-1", "my-pod").unwrap(), shared);
            let mut request = agent.request(&image, "c", "sleep 1000");
            request.namespaces.ipc = Some(shared.ipc);
            request.namespaces.uts = Some(shared.uts);
            request.shm = Some(shared.shm);
            agent.runtime.create_container(&request).await.unwrap();
            agent.runtime.start_container(&request.id).await.unwrap();
            let run = |script: &str, stdin, tty| {
                let command = ["sh", "-c", script].map(str::to_owned).to_vec();
                let (runtime, id) = (agent.runtime.clone(), request.id.clone());
                async move { runtime.exec(&id, &ExecRequest { command, stdin, tty }).await.unwrap() }
            };
            let mut session = run("hostname; echo bad >&2; exit 5", false, false).await;
            let (mut out, mut err) = (String::new(), String::new());
            session.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
            session.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
            assert_eq!((out.as_str(), err.as_str()), ("my-pod\n", "bad\n"));
            assert_eq!(session.wait().await.unwrap(), 5);
            session.finish().await.unwrap();

            let mut session = run("cat; echo end", true, false).await;
            session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
            session.stdin = None;
            session.close_stdin().await.unwrap();
            let mut out = String::new();
            session.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
            assert_eq!(out, "typed\nend\n");
            assert_eq!(session.wait().await.unwrap(), 0);
            session.finish().await.unwrap();

            let mut session = run("sleep 0.3; stty size", true, true).await;
            session.resize(111, 33).await.unwrap();
            let mut out = String::new();
            session.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
            assert_eq!(out.trim(), "33 111");
            session.finish().await.unwrap();

            // One that still runs is ended by finish.
            run("sleep 100", false, false).await.finish().await.unwrap();
            let missing = ExecRequest { command: vec!["/nope".into()], ..ExecRequest::default() };
            assert!(agent.runtime.exec(&request.id, &missing).await.is_err());
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_privileges_hold() {
    if !available() {
        return;
    }
    Place::new()
        .run(|agent| async move {
            let image = agent.busybox().await;
            let mut hungry = agent.request(&image, "hungry", "busybox tail /dev/zero");
            hungry.args = ["/bin/busybox", "tail", "/dev/zero"].map(str::to_owned).to_vec();
            hungry.resources.memory_limit = Some(16 << 20);
            let mut readonly =
                agent.request(&image, "readonly", "echo x > /file && exit 1; echo x > /dev/null");
            readonly.security.read_only_root = true;
            readonly.security.run_as_user = Some(0);
            let mut root = agent.request(&image, "root", "true");
            root.security.run_as_user = Some(0);
            root.security.run_as_non_root = true;
            for request in [&hungry, &readonly] {
                agent.runtime.create_container(request).await.unwrap();
                agent.runtime.start_container(&request.id).await.unwrap();
            }
            assert!(matches!(
                agent.runtime.create_container(&root).await,
                Err(skep_runtime::Error::RunsAsRoot)
            ));
            let exit = ended(&agent, &hungry.id).await;
            assert_eq!((exit.code, exit.oom), (137, true), "{exit:?}");
            assert_eq!(ended(&agent, &readonly.id).await.code, 0);
            let missing = agent.request(&image, "missing", "");
            let missing = skep_runtime::ContainerRequest { args: vec!["/nope".into()], ..missing };
            let error = agent.runtime.create_container(&missing).await.unwrap_err();
            assert!(error.to_string().contains("nope"), "{error}");
        })
        .await;
}
