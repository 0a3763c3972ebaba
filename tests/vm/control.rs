//! Speaking with a machine through its virtio port.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use skep_vm_guest::{Reply, Request};

/// What a program said, and its status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

type Waiting = Arc<Mutex<BTreeMap<u64, Sender<Reply>>>>;

/// One end of the port; several threads may ask at once.
pub(crate) struct Control {
    stream: Mutex<UnixStream>,
    waiting: Waiting,
    ready: Mutex<Receiver<Reply>>,
    next: AtomicU64,
}

/// The machine's first word is filed under this number.
const READY: u64 = 0;

/// More than a program is given, so that the machine's own word about it arrives.
const GRACE: Duration = Duration::from_secs(20);

impl Control {
    /// Connects as soon as the emulator listens.
    pub(crate) fn connect(path: &Path, limit: Duration) -> Result<Self> {
        let began = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if began.elapsed() > limit => {
                    return Err(error).context("the emulator does not listen on its control socket");
                }
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        let waiting = Waiting::default();
        let (sender, ready) = channel();
        locked(&waiting).insert(READY, sender);
        let (reader, filed) = (BufReader::new(stream.try_clone()?), Arc::clone(&waiting));
        thread::spawn(move || {
            for line in reader.lines() {
                // The end of the machine is the end of the stream; a torn line comes with it.
                let Ok(reply) = line.map_err(drop).and_then(|line| serde_json::from_str(&line).map_err(drop))
                else {
                    break;
                };
                file(&filed, reply);
            }
            // Whoever still waits learns that nothing more comes.
            locked(&filed).clear();
        });
        Ok(Self {
            stream: Mutex::new(stream),
            waiting,
            ready: Mutex::new(ready),
            next: AtomicU64::new(READY + 1),
        })
    }

    /// Waits until the machine is up; its kernel's release.
    pub(crate) fn ready(&self, limit: Duration) -> Result<String> {
        let receiver = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        match receiver.recv_timeout(limit) {
            Ok(Reply::Ready(release)) => Ok(release),
            Ok(other) => bail!("the machine's first word is {other:?}"),
            Err(_) => bail!("the machine is not up after {limit:?}"),
        }
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, mut request: Request) -> Result<Output> {
        let (sender, replies) = channel();
        request.id = self.next.fetch_add(1, Ordering::Relaxed);
        locked(&self.waiting).insert(request.id, sender);
        let line = serde_json::to_string(&request)? + "\n";
        self.stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(line.as_bytes())
            .context("asking the machine")?;
        let limit = Duration::from_secs(request.seconds) + GRACE;
        let outcome = collect(&replies, limit);
        locked(&self.waiting).remove(&request.id);
        outcome.with_context(|| request.argv.join(" "))
    }
}

fn collect(replies: &Receiver<Reply>, limit: Duration) -> Result<Output> {
    let mut output = Output::default();
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match replies.recv_timeout(left).context("the machine does not answer")? {
            Reply::Output { error: false, text, .. } => output.out += &text,
            Reply::Output { error: true, text, .. } => output.err += &text,
            Reply::Ended { status, .. } => {
                output.status = status;
                return Ok(output);
            }
            Reply::Failed { reason, .. } => bail!("{reason}\n{}{}", output.out, output.err),
            Reply::Ready(release) => bail!("the machine started anew ({release})"),
        }
    }
}

fn file(waiting: &Waiting, reply: Reply) {
    let id = match &reply {
        Reply::Ready(_) => READY,
        Reply::Output { id, .. } | Reply::Ended { id, .. } | Reply::Failed { id, .. } => *id,
    };
    if let Some(sender) = locked(waiting).get(&id) {
        // Who asked may have given up meanwhile.
        let _ = sender.send(reply);
    }
}

fn locked(waiting: &Waiting) -> MutexGuard<'_, BTreeMap<u64, Sender<Reply>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
