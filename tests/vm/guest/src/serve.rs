//! Runs what the test asks for.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use skep_vm_guest::{PORT, Reply, Request};

use crate::PATH;

/// How long the port may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// The way back, shared by all that runs. Lines are written whole.
#[derive(Clone)]
struct Port(Arc<Mutex<File>>);

impl Port {
    fn say(&self, reply: &Reply) {
        let line = serde_json::to_string(reply).map(|text| text + "\n");
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = line.map_err(Into::into).and_then(|line| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            // Nobody can be told but who reads the console.
            println!("guest: the test does not hear: {error}");
        }
    }
}

/// Serves until the test closes its end.
pub(crate) fn serve() -> Result<()> {
    let path = port()?;
    let open = |path: &PathBuf| File::options().read(true).write(true).open(path);
    let file = open(&path).with_context(|| format!("opening {}", path.display()))?;
    let port = Port(Arc::new(Mutex::new(file.try_clone()?)));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    port.say(&Reply::Ready(release.trim().to_owned()));
    for line in BufReader::new(file).lines() {
        let request: Request =
            serde_json::from_str(&line.context("hearing the test")?).context("a request")?;
        let port = port.clone();
        thread::spawn(move || {
            let id = request.id;
            let end = run(&request, &port).map_or_else(
                |error| Reply::Failed { id, reason: format!("{error:#}") },
                |status| Reply::Ended { id, status },
            );
            port.say(&end);
        });
    }
    Ok(())
}

/// The device of our port: the kernel names it by number.
fn port() -> Result<PathBuf> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT) {
                return Ok(PathBuf::from("/dev").join(entry.file_name()));
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    bail!("the port {PORT} does not appear")
}

/// Runs one program; its status.
fn run(request: &Request, port: &Port) -> Result<i32> {
    let [program, arguments @ ..] = request.argv.as_slice() else { bail!("no program") };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs([("PATH", PATH), ("HOME", "/root"), ("TMPDIR", "/var/tmp")])
        .envs(request.env.iter().map(|(name, value)| (name, value)))
        // A group of its own, to be killed with all that it starts.
        .process_group(0);
    if let Some(path) = &request.background {
        let log = File::options().create(true).append(true).open(path).with_context(|| path.clone())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
        thread::spawn(move || child.wait());
        return Ok(0);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    let (input, text) = (child.stdin.take(), request.input.clone());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(move || {
            // A program need not read what it is given.
            input.map(|mut input| input.write_all(text.as_bytes()).is_ok())
        });
        scope.spawn(|| out.map(|out| forward(out, request.id, false, port)));
        scope.spawn(|| err.map(|err| forward(err, request.id, true, port)));
        wait(&mut child, request.seconds)
    })
}

/// Waits for the end; kills the program and its children when it takes too long.
fn wait(child: &mut Child, seconds: u64) -> Result<i32> {
    let group = Pid::from_raw(i32::try_from(child.id())?);
    let limit = Duration::from_secs(seconds);
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            // What it left in the background would hold its output open.
            let _ = killpg(group, Signal::SIGKILL);
            return Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
        }
        if began.elapsed() > limit {
            killpg(group, Signal::SIGKILL).context("killing what takes too long")?;
            child.wait()?;
            bail!("it took more than {seconds} s");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn forward(mut from: impl Read, id: u64, error: bool, port: &Port) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        port.say(&Reply::Output { id, error, text: String::from_utf8_lossy(&buffer[..length]).into_owned() });
    }
}
