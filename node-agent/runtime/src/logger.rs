//! The log writer: a process of its own per container, started by the shim as its logging driver.
//!
//! The shim hands over the container's stdout and stderr as descriptors 3 and 4 and waits until
//! descriptor 5 is closed. The process lives as long as the container, so no line is lost while the
//! agent is away. It also serves raw output to whoever attaches.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use jiff::Timestamp;
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};

use crate::logs::{files, format, format::Stream};

/// The hidden subcommand under which the root binary calls [`logger_main`].
pub const LOG_WRITER_COMMAND: &str = "log-writer";

/// The longest text of one line in the file; longer lines are split.
const MAX_TEXT: usize = 16 << 10;

/// What the agent tells a log writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogTarget {
    pub path: PathBuf,
    pub socket: Option<PathBuf>,
    pub tty: bool,
    pub max_size: u64,
    pub max_files: usize,
}

impl LogTarget {
    /// The URI of the logging driver. containerd passes query pairs in no certain order: there is one.
    pub(crate) fn uri(&self, program: &Path) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        let encode = crate::image::auth::encode_query;
        format!("binary://{}?{LOG_WRITER_COMMAND}={}", encode(&program.to_string_lossy()), encode(&json))
    }
}

type Listeners = Arc<Mutex<Vec<std::os::unix::net::UnixStream>>>;

/// Runs the log writer: `argument` is what the shim passed after the subcommand. Returns when the
/// container's streams have ended.
pub fn logger_main(argument: &str) -> io::Result<()> {
    // The shim sends SIGTERM as soon as the container ends; the pipes are not drained yet then.
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.add(Signal::SIGINT);
    blocked.thread_block()?;

    let target: LogTarget = serde_json::from_str(argument)?;
    // Descriptors by way of /proc: no unsafe adoption of raw numbers.
    let stdout = fs::File::open("/proc/self/fd/3")?;
    // With a terminal nothing ever comes, and the shim forgets to close its end.
    let stderr = if target.tty { None } else { Some(fs::File::open("/proc/self/fd/4")?) };
    let writer = Arc::new(Mutex::new(Writer::open(&target)?));
    let listeners = Listeners::default();
    if let Some(path) = &target.socket {
        let listener = bind(path)?;
        let accepted = listeners.clone();
        thread::Builder::new().name("attach".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // A listener that does not read must not stop the container.
                if stream.set_write_timeout(Some(std::time::Duration::from_secs(1))).is_ok() {
                    lock(&accepted).push(stream);
                }
            }
        })?;
    }
    // Opening by /proc made copies: the inherited ones must go or the pipes never end.
    for fd in [3, 4, 5] {
        if let Err(errno) = nix::unistd::close(fd)
            && errno != nix::errno::Errno::EBADF
        {
            return Err(errno.into());
        }
    }
    let errors = stderr.map(|stderr| {
        let (writer, listeners) = (writer.clone(), listeners.clone());
        thread::Builder::new()
            .name("stderr".to_owned())
            .spawn(move || copy(stderr, Stream::Stderr, &writer, &listeners))
    });
    let copied = copy(stdout, Stream::Stdout, &writer, &listeners);
    if let Some(thread) = errors {
        thread?.join().map_err(|_| io::Error::other("stderr thread panicked"))??;
    }
    if let Some(path) = &target.socket {
        remove_if_there(path)?;
    }
    copied
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    remove_if_there(path)?;
    UnixListener::bind(path)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy(mut from: fs::File, stream: Stream, writer: &Mutex<Writer>, listeners: &Listeners) -> io::Result<()> {
    let mut block = vec![0; MAX_TEXT];
    let mut line = Vec::new();
    loop {
        let n = match from.read(&mut block) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // A terminal's other end that closed reads as an error.
            Err(_) => break,
        };
        let now = Timestamp::now();
        broadcast(listeners, stream, &block[..n]);
        let mut out = Vec::with_capacity(n + 64);
        for piece in block[..n].split_inclusive(|b| *b == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    line.extend_from_slice(end);
                    format::print(&mut out, now, stream, false, &line);
                    line.clear();
                }
                None => line.extend_from_slice(piece),
            }
            while line.len() >= MAX_TEXT {
                let rest = line.split_off(MAX_TEXT);
                format::print(&mut out, now, stream, true, &line);
                line = rest;
            }
        }
        lock(writer).write(&out)?;
    }
    if !line.is_empty() {
        let mut out = Vec::new();
        // As the end of a stream without a line end: what follows is not a continuation of it.
        format::print(&mut out, Timestamp::now(), stream, true, &line);
        lock(writer).write(&out)?;
    }
    Ok(())
}

/// Raw frames for attached clients: stream (1 or 2), length in four bytes, data.
fn broadcast(listeners: &Listeners, stream: Stream, data: &[u8]) {
    let mut listeners = lock(listeners);
    if listeners.is_empty() {
        return;
    }
    let mut frame = Vec::with_capacity(data.len() + 5);
    frame.push(if stream == Stream::Stdout { 1 } else { 2 });
    frame.extend_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(data);
    // A client that left or hangs is dropped.
    listeners.retain_mut(|listener| listener.write_all(&frame).is_ok());
}

struct Writer {
    target: LogTarget,
    file: fs::File,
    size: u64,
}

impl Writer {
    fn open(target: &LogTarget) -> io::Result<Self> {
        if let Some(dir) = target.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = fs::File::options().create(true).append(true).open(&target.path)?;
        let size = file.metadata()?.len();
        Ok(Self { target: target.clone(), file, size })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.target.max_size {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut name = self.target.path.clone().into_os_string();
        // Fixed width, so that names sort by age.
        name.push(format!(".{:020}", Timestamp::now().as_nanosecond()));
        fs::rename(&self.target.path, name)?;
        let all = files(&self.target.path).map_err(io::Error::other)?;
        let surplus = (all.len() + 1).saturating_sub(self.target.max_files);
        for old in all.iter().take(surplus) {
            fs::remove_file(old)?;
        }
        *self = Self::open(&self.target)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_rotate_and_old_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        let target = LogTarget { path: path.clone(), socket: None, tty: false, max_size: 100, max_files: 3 };
        let mut writer = Writer::open(&target).unwrap();
        for n in 0..10 {
            writer.write(format!("{n}{}\n", "x".repeat(58)).as_bytes()).unwrap();
        }
        let left = files(&path).unwrap();
        assert_eq!(left.len(), 3);
        let firsts: Vec<_> =
            left.iter().map(|f| fs::read_to_string(f).unwrap().chars().next().unwrap()).collect();
        assert_eq!(firsts, ['7', '8', '9']);
    }

    #[test]
    fn the_uri_has_one_pair() {
        let target = LogTarget { path: "/a b".into(), socket: None, tty: false, max_size: 1, max_files: 1 };
        let uri = target.uri(Path::new("/usr/bin/skep"));
        assert!(uri.starts_with("binary:///usr/bin/skep?log-writer=%7B"), "{uri}");
        assert!(!uri.contains('&') && !uri.contains('"'));
    }
}
