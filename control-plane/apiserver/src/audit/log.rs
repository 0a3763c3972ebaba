//! The log back end: a line of JSON for each event, in a file that is turned over before it grows too
//! large.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Events;

/// Where the log is and how much of it is kept.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// The file; `-` is the standard output.
    pub path: PathBuf,
    /// A file is turned over before it has more bytes; 0 is never.
    pub max_bytes: u64,
    /// Old files are kept for so long; zero is for ever.
    pub max_age: Duration,
    /// So many old files are kept; 0 is all.
    pub max_files: usize,
}

enum Target {
    Stdout(io::Stdout),
    File(BufWriter<File>),
}

struct Log {
    options: LogOptions,
    target: Target,
    size: u64,
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    fs::create_dir_all(folder(path))?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((BufWriter::new(file), size))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Log {
    fn new(options: LogOptions) -> io::Result<Self> {
        if options.path.as_os_str() == "-" {
            return Ok(Self { options, target: Target::Stdout(io::stdout()), size: 0 });
        }
        let (file, size) = open(&options.path)?;
        Ok(Self { options, target: Target::File(file), size })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        let full = self.options.max_bytes > 0 && self.size > 0 && self.size + length > self.options.max_bytes;
        if full && matches!(self.target, Target::File(_)) {
            self.turn_over()?;
        }
        self.size += length;
        match &mut self.target {
            Target::Stdout(out) => out.write_all(line),
            Target::File(file) => file.write_all(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Stdout(out) => out.flush(),
            Target::File(file) => file.flush(),
        }
    }

    fn turn_over(&mut self) -> io::Result<()> {
        self.flush()?;
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.6f").to_string();
        fs::rename(&self.options.path, aside(&self.options.path, &now))?;
        let (file, size) = open(&self.options.path)?;
        self.target = Target::File(file);
        self.size = size;
        self.prune()
    }

    /// Removes old files: those too old, and those too many.
    fn prune(&self) -> io::Result<()> {
        let mut old = Vec::new();
        for entry in fs::read_dir(folder(&self.options.path))? {
            let path = entry?.path();
            if is_aside(&self.options.path, &path) {
                old.push(path);
            }
        }
        // Names sort by time.
        old.sort();
        let keep = if self.options.max_files == 0 { old.len() } else { self.options.max_files };
        let excess = old.len().saturating_sub(keep);
        let age = Some(self.options.max_age).filter(|age| !age.is_zero());
        let oldest = age.and_then(|age| SystemTime::now().checked_sub(age));
        for (index, path) in old.iter().enumerate() {
            let aged = match oldest {
                Some(oldest) => fs::metadata(path)?.modified()? < oldest,
                None => false,
            };
            if index < excess || aged {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// What a file's name begins and ends with.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let extension = text(path.extension());
    (text(path.file_stem()), if extension.is_empty() { extension } else { format!(".{extension}") })
}

/// `audit.log` becomes `audit-TIME.log`.
fn aside(path: &Path, time: &str) -> PathBuf {
    let (stem, extension) = parts(path);
    path.with_file_name(format!("{stem}-{time}{extension}"))
}

fn is_aside(path: &Path, other: &Path) -> bool {
    let (stem, extension) = parts(path);
    let name = other.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let rest = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
    rest.is_some_and(|time| time.starts_with("20") && time.contains('T'))
}

/// Opens the log. What is returned writes events until there are no more; it is for a thread of its own,
/// since files block.
pub fn write_log(options: LogOptions, mut events: Events) -> io::Result<impl FnOnce() + Send + 'static> {
    let mut log = Log::new(options)?;
    Ok(move || {
        let mut failing = false;
        while let Some(event) = events.blocking_recv() {
            let mut outcome = Ok(());
            let mut next = Some(event);
            // What is waiting is written in one go.
            while let Some(event) = next.take() {
                let mut line = event.to_string().into_bytes();
                line.push(b'\n');
                outcome = outcome.and_then(|()| log.write(&line));
                next = events.try_recv().ok();
            }
            match outcome.and_then(|()| log.flush()) {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(%error, "the audit log can't be written");
                }
                Err(_) => {}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Auditor, WAITING};
    use super::*;

    #[test]
    fn files_are_turned_over_and_old_ones_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        fs::write(folder.path().join("audit-notes.log"), "mine").expect("written");
        let mut auditor = Auditor::default();
        let events = auditor.sink("log");
        let options =
            LogOptions { path: path.clone(), max_bytes: 100, max_files: 2, ..LogOptions::default() };
        let write = write_log(options, events).expect("opens");
        for n in 0..20 {
            auditor.emit(json!({"n": n, "text": "x".repeat(40)}));
        }
        drop(auditor);
        write();
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .expect("lists")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "the log, two old ones and what is somebody else's: {names:?}");
        let text = fs::read_to_string(&path).expect("reads");
        assert!(text.ends_with('\n') && text.contains("\"n\":19") && text.len() <= 120, "{text}");
    }

    #[test]
    fn what_finds_no_place_is_counted() {
        let mut auditor = Auditor::default();
        let events = auditor.sink("log");
        for n in 0..WAITING + 3 {
            auditor.emit(json!({"n": n}));
        }
        assert_eq!(auditor.lost.get_or_create(&super::super::Labels { plugin: "log" }).get(), 3);
        drop(events);
    }
}
