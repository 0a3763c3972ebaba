//! Reading logs: tail, since, limit, follow, across rotation.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::mpsc,
    time,
};

use super::{
    files,
    format::{Line, Stream},
};
use crate::{Error, Result};

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(100);
const BLOCK: usize = 64 << 10;
/// A line longer than this is handed on in pieces; the writer never makes one.
const MAX_LINE: usize = 1 << 20;

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// Stop after this many bytes.
    pub limit_bytes: Option<u64>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only this stream.
    pub stream: Option<Stream>,
}

/// Sends the log in pieces to `out`. With `follow` it goes on until the flag becomes true (the container
/// ended) and everything is read, or until nobody listens.
pub async fn read(
    log: &Path,
    options: &LogOptions,
    follow: Option<tokio::sync::watch::Receiver<bool>>,
    out: &mpsc::Sender<Bytes>,
) -> Result<()> {
    let mut filter = Filter::new(options);
    let mut pending = files(log)?;
    if let Some(lines) = options.tail {
        pending = seek_tail(pending, lines, options.stream, &mut filter).await?;
    }
    let mut follow = follow;
    let current = log.to_path_buf();
    let mut last: Option<(PathBuf, File, Vec<u8>)> = None;
    for path in pending {
        let Some(mut file) = open(&path).await? else { continue };
        if let Some(offset) = filter.start.take() {
            file.seek(SeekFrom::Start(offset)).await.map_err(Error::io("seek", &path))?;
        }
        let mut rest = Vec::new();
        if !drain(&path, &mut file, &mut rest, &mut filter, out).await? {
            return Ok(());
        }
        last = Some((path, file, rest));
    }
    let Some(ended) = follow.as_mut() else { return Ok(()) };
    loop {
        // Order matters: what was written before the container ended is read after the flag was seen.
        let finished = *ended.borrow();
        if let Some((path, file, rest)) = &mut last {
            if !drain(path, file, rest, &mut filter, out).await? {
                return Ok(());
            }
            if rotated(file, &current).await? {
                last = None;
            }
        }
        if last.is_none()
            && let Some(file) = open(&current).await?
        {
            last = Some((current.clone(), file, Vec::new()));
            continue;
        }
        if finished {
            return Ok(());
        }
        // Cancel-safe: waits only.
        tokio::select! {
            () = time::sleep(POLL) => {}
            () = out.closed() => return Ok(()),
            changed = ended.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

async fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path).await {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("open", path)(e)),
    }
}

/// The name no longer leads to the open file.
async fn rotated(file: &File, path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let open = file.metadata().await.map_err(Error::io("stat", path))?;
    match tokio::fs::metadata(path).await {
        Ok(named) => Ok(named.ino() != open.ino()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("stat", path)(e)),
    }
}

/// Reads to the end of the file; false when reading is over for good.
async fn drain(
    path: &Path,
    file: &mut File,
    rest: &mut Vec<u8>,
    filter: &mut Filter<'_>,
    out: &mpsc::Sender<Bytes>,
) -> Result<bool> {
    let mut block = vec![0; BLOCK];
    loop {
        let n = file.read(&mut block).await.map_err(Error::io("read", path))?;
        if n == 0 {
            return Ok(true);
        }
        rest.extend_from_slice(&block[..n]);
        let Some(end) = rest.iter().rposition(|b| *b == b'\n') else {
            if rest.len() > MAX_LINE {
                rest.clear();
            }
            continue;
        };
        let mut piece = Vec::with_capacity(end);
        let more = rest[..end].split(|b| *b == b'\n').all(|line| filter.push(line, &mut piece));
        rest.drain(..=end);
        if !piece.is_empty() && out.send(piece.into()).await.is_err() {
            return Ok(false);
        }
        if !more {
            return Ok(false);
        }
    }
}

struct Filter<'a> {
    options: &'a LogOptions,
    left: u64,
    start: Option<u64>,
    /// The next line continues the one before, of each stream.
    continued: [bool; 2],
}

impl<'a> Filter<'a> {
    fn new(options: &'a LogOptions) -> Self {
        Self { options, left: options.limit_bytes.unwrap_or(u64::MAX), start: None, continued: [false; 2] }
    }

    /// Appends what of the line is wanted; false when the limit is reached.
    fn push(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = Line::parse(line) else { return true };
        if self.options.stream.is_some_and(|s| s != line.stream)
            || self.options.since.is_some_and(|since| line.time < since)
        {
            return true;
        }
        let before = out.len();
        let continued = &mut self.continued[usize::from(line.stream == Stream::Stderr)];
        if self.options.timestamps && !*continued {
            out.extend_from_slice(line.time_text.as_bytes());
            out.push(b' ');
        }
        *continued = line.partial;
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        let added = (out.len() - before) as u64;
        if added >= self.left {
            out.truncate(before + usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left = 0;
            return false;
        }
        self.left -= added;
        true
    }
}

/// Finds from which file and offset the last `lines` lines begin.
async fn seek_tail(
    all: Vec<PathBuf>,
    lines: u64,
    stream: Option<Stream>,
    filter: &mut Filter<'_>,
) -> Result<Vec<PathBuf>> {
    let mut wanted = lines;
    let mut chosen = Vec::new();
    for path in all.into_iter().rev() {
        let Some(mut file) = open(&path).await? else { continue };
        let length = file.metadata().await.map_err(Error::io("stat", &path))?.len();
        chosen.insert(0, path.clone());
        if wanted == 0 {
            filter.start = Some(length);
            return Ok(chosen);
        }
        let (mut position, mut tail) = (length, Vec::new());
        while position > 0 {
            let step = position.min(BLOCK as u64);
            position -= step;
            file.seek(SeekFrom::Start(position)).await.map_err(Error::io("seek", &path))?;
            let mut block = vec![0; usize::try_from(step).unwrap_or(BLOCK)];
            file.read_exact(&mut block).await.map_err(Error::io("read", &path))?;
            block.extend_from_slice(&tail);
            tail = block;
            // Complete lines in the tail, last first; the first piece may be cut unless at the start.
            let first = if position == 0 {
                0
            } else {
                tail.iter().position(|b| *b == b'\n').map_or(tail.len(), |p| p + 1)
            };
            let mut count = 0;
            let mut end = tail.len();
            while end > first {
                let body = &tail[..end - 1];
                let begin = body[first..].iter().rposition(|b| *b == b'\n').map_or(first, |p| first + p + 1);
                let counts = Line::parse(&tail[begin..end - 1])
                    .is_some_and(|l| !l.partial && stream.is_none_or(|s| s == l.stream));
                if counts {
                    count += 1;
                    if count > wanted {
                        filter.start = Some(position + end as u64);
                        return Ok(chosen);
                    }
                }
                end = begin;
            }
            if position == 0 {
                wanted -= count.min(wanted);
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::format;

    async fn collect(log: &Path, options: &LogOptions) -> String {
        let (sender, mut receiver) = mpsc::channel(64);
        read(log, options, None, &sender).await.unwrap();
        drop(sender);
        let mut all = Vec::new();
        while let Some(piece) = receiver.recv().await {
            all.extend_from_slice(&piece);
        }
        String::from_utf8(all).unwrap()
    }

    fn line(n: i64, partial: bool, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let stream = if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
        format::print(&mut out, Timestamp::from_second(n).unwrap(), stream, partial, text.as_bytes());
        out
    }

    #[tokio::test]
    async fn tails_cross_rotation_and_limits_cut() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let old: Vec<u8> =
            (0..1000).flat_map(|n| line(n, false, &format!("old{n} {}", "x".repeat(100)))).collect();
        std::fs::write(dir.path().join("0.log.20260101-000000"), old).unwrap();
        std::fs::write(
            &log,
            [line(1000, true, "a"), line(1000, false, "b"), line(1001, false, "c")].concat(),
        )
        .unwrap();
        let tail = |n| LogOptions { tail: Some(n), ..LogOptions::default() };
        assert_eq!(collect(&log, &tail(0)).await, "");
        assert_eq!(collect(&log, &tail(1)).await, "c\n");
        assert_eq!(collect(&log, &tail(2)).await, "ab\nc\n");
        let three = collect(&log, &tail(3)).await;
        assert!(three.starts_with("old999 ") && three.ends_with("x\nab\nc\n"), "{three}");
        assert_eq!(collect(&log, &tail(5000)).await.lines().count(), 1002);
        let limited = LogOptions { limit_bytes: Some(4), ..LogOptions::default() };
        assert_eq!(collect(&log, &limited).await, "old0");
        let since = LogOptions {
            since: Some(Timestamp::from_second(1001).unwrap()),
            timestamps: true,
            ..LogOptions::default()
        };
        assert_eq!(collect(&log, &since).await, "1970-01-01T00:16:41.000000000Z c\n");
        let errors = LogOptions { stream: Some(Stream::Stderr), tail: Some(1), ..LogOptions::default() };
        assert_eq!(collect(&log, &errors).await, "c\n");
    }

    #[tokio::test]
    async fn following_sees_what_was_written_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        std::fs::write(&log, line(0, false, "a")).unwrap();
        let (ended, receiver) = tokio::sync::watch::channel(false);
        let (sender, mut pieces) = mpsc::channel(64);
        let path = log.clone();
        let reader =
            tokio::spawn(async move { read(&path, &LogOptions::default(), Some(receiver), &sender).await });
        assert_eq!(pieces.recv().await.unwrap(), "a\n");
        std::fs::rename(&log, dir.path().join("0.log.1")).unwrap();
        std::fs::write(&log, line(2, false, "b")).unwrap();
        ended.send(true).unwrap();
        assert_eq!(pieces.recv().await.unwrap(), "b\n");
        assert_eq!(pieces.recv().await, None);
        reader.await.unwrap().unwrap();
    }
}
