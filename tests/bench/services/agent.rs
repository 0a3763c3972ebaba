//! The service proxy in a process of its own, so that its time and memory can be told from the benchmark's.
//!
//! `services agent …` is this program again, inside the node's namespace. It prints a line when all services are in
//! the kernel, and ends with its input.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use skep_client::{Client, ClientConfig};
use skep_ebpf_loader::{DataPlane, LoadOptions};
use skep_service_proxy::{ProxyConfig, ProxyMode, serve::ServeOptions};
use skep_tests::netbox::command_in;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::stage::node::TestNode;

/// What the process is told.
#[derive(Args, Debug)]
pub(crate) struct AgentArguments {
    #[arg(long)]
    mode: ProxyMode,
    #[arg(long)]
    api: SocketAddr,
    #[arg(long)]
    pins: PathBuf,
    #[arg(long)]
    cgroup: PathBuf,
    #[arg(long)]
    run_dir: PathBuf,
}

/// The process.
pub(crate) fn main(arguments: &AgentArguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work(arguments))
}

async fn work(arguments: &AgentArguments) -> Result<()> {
    let started = Instant::now();
    let client = Client::new(ClientConfig::new(format!("http://{}", arguments.api)))?;
    let data_plane = if arguments.mode.is_rules() {
        None
    } else {
        let options = LoadOptions {
            pin_dir: arguments.pins.clone(),
            cgroup: Some(arguments.cgroup.clone()),
            ..LoadOptions::default()
        };
        Some(Arc::new(DataPlane::load(options).context("load the data plane")?))
    };
    let loaded = started.elapsed();
    let (settled, cancel) = (watch::Sender::new(None), CancellationToken::new());
    let mut done = settled.subscribe();
    let host_ports = watch::Sender::new(Some(Arc::default()));
    let config = ProxyConfig {
        node_name: "bench-node".to_owned(),
        mode: arguments.mode,
        node_addresses: vec!["192.168.77.1".parse()?],
        data_plane,
        attach_uplinks: false,
        keep_source: vec!["10.244.0.0/16".parse()?, "10.96.0.0/12".parse()?],
        cluster_cidrs: vec!["10.244.0.0/16".parse()?],
        service_cidrs: vec!["10.96.0.0/12".parse()?],
        netns_dir: arguments.run_dir.join("netns"),
        host_ports: host_ports.subscribe(),
        record: Some(arguments.run_dir.join("proxy.json")),
        options: skep_service_proxy::ProxyOptions::default(),
        serve: ServeOptions::default(),
        housekeeping: skep_service_proxy::HOUSEKEEPING,
        settled,
        metrics: skep_service_proxy::metrics::Metrics::default(),
    };
    let token = cancel.clone();
    std::thread::spawn(move || {
        // The end of the input is the end of whoever started this.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        token.cancel();
    });
    let tell = async {
        if done.wait_for(Option::is_some).await.is_ok() {
            println!("{} {}", loaded.as_secs_f64(), started.elapsed().as_secs_f64());
            let _ = std::io::stdout().flush();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = skep_service_proxy::run(client, config, cancel.clone()) => Ok(result?),
        () = tell => Ok(()),
    }
}

/// The running process, seen from the benchmark.
pub(crate) struct Agent {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What it used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Of its own threads.
    pub(crate) own: Duration,
    /// Of the tools that it ran to their end.
    pub(crate) tools: Duration,
}

impl Agent {
    pub(crate) fn start(node: &TestNode, mode: ProxyMode, api: SocketAddr) -> Result<Self> {
        let mut command = command_in(&node.netbox.netns_path(), None, std::env::current_exe()?);
        command.arg("agent").args(["--mode", mode.name(), "--api", &api.to_string()]);
        command.arg("--pins").arg(&node.pins);
        command.arg("--cgroup").arg(node.cgroup.unified().context("no cgroup v2 hierarchy")?);
        command.arg("--run-dir").arg(&node.config.run_dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("the agent's output")?).lines();
        Ok(Self { child, lines })
    }

    /// Waits until all services are in; seconds until the programs were loaded, and until all was done.
    pub(crate) fn settled(&mut self) -> Result<(f64, f64)> {
        let line = self.lines.next().context("the agent ended")??;
        let (loaded, done) = line.split_once(' ').context("two numbers")?;
        Ok((loaded.parse()?, done.parse()?))
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }

    /// Memory in MiB: now, and the most there was.
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let text = std::fs::read_to_string(self.proc("status"))?;
        let field = |name: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
            let kib = line.split_whitespace().next().context("no number")?;
            Ok(kib.parse::<f64>()? / 1024.0)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// Processor time up to now.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut own = 0;
        for task in std::fs::read_dir(self.proc("task"))? {
            // A thread that ended meanwhile.
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
            own += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        }
        let stat = std::fs::read_to_string(self.proc("stat"))?;
        let (_, fields) = stat.rsplit_once(") ").ok_or_else(|| anyhow!("stat"))?;
        // Fields 16 and 17 of the manual, in hundredths of a second.
        let ticks: u64 = fields.split(' ').skip(13).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
        Ok(Usage { own: Duration::from_nanos(own), tools: Duration::from_millis(ticks * 10) })
    }

    /// Ends it and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("an agent does not end: {error}");
        }
    }
}
