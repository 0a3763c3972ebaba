//! Following a configuration file: what it says takes effect while the server runs, or is refused and what
//! was before stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// What was refused is tried again so often: it may name a server that was only away.
const AGAIN: Duration = Duration::from_secs(60);
/// No configuration is longer, in bytes.
const LONGEST: u64 = 4 << 20;

/// How often the file of a configuration was used and refused since the server began.
#[derive(Debug, Default)]
pub struct Reloads {
    used: Outcome,
    refused: Outcome,
}

#[derive(Debug, Default)]
struct Outcome {
    count: AtomicU64,
    /// Seconds since 1970; 0 is never.
    last: AtomicU64,
}

impl Outcome {
    fn now(&self) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        self.last.store(now, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.count.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed))
    }
}

impl Reloads {
    /// How often a change was used, and when last, in seconds since 1970.
    pub fn used(&self) -> (u64, u64) {
        self.used.read()
    }

    /// How often a change was refused, and when last.
    pub fn refused(&self) -> (u64, u64) {
        self.refused.read()
    }
}

async fn read(path: &Path) -> Result<String, String> {
    let length = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?.len();
    if length > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    tokio::fs::read_to_string(path).await.map_err(|error| error.to_string())
}

/// Calls `apply` with what the file says whenever that changes; `current` is what is in effect. What
/// `apply` refuses it must not have used in part. Ends never: drop it.
pub async fn follow(
    path: PathBuf,
    mut current: String,
    reloads: Arc<Reloads>,
    mut apply: impl AsyncFnMut(&str) -> Result<(), String> + Send,
) {
    let path_text = path.display().to_string();
    let mut refused: Option<(String, Instant)> = None;
    let mut unreadable = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let text = match read(&path).await {
            Ok(text) => text,
            Err(error) => {
                if !unreadable {
                    tracing::warn!(
                        error,
                        path = path_text,
                        "a configuration can't be read; the one before stays"
                    );
                }
                unreadable = true;
                continue;
            }
        };
        unreadable = false;
        if text == current {
            refused = None;
            continue;
        }
        if refused.as_ref().is_some_and(|(before, at)| *before == text && at.elapsed() < AGAIN) {
            continue;
        }
        match apply(&text).await {
            Ok(()) => {
                reloads.used.now();
                tracing::info!(path = path_text, "a configuration has changed");
                current = text;
                refused = None;
            }
            Err(error) => {
                reloads.refused.now();
                tracing::error!(error, path = path_text, "a configuration is not used; the one before stays");
                refused = Some((text, Instant::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_used_once_and_a_refused_one_is_tried_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write("one");
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let reloads = Arc::new(Reloads::default());
        let into = Arc::clone(&seen);
        let task =
            tokio::spawn(follow(path.clone(), "one".into(), Arc::clone(&reloads), async move |text| {
                into.lock().expect("unpoisoned").push(text.to_owned());
                if text == "bad" { Err("it is bad".to_owned()) } else { Ok(()) }
            }));
        let after = async |seconds| {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            // Reading a file takes its own time, which the paused clock does not know.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            seen.lock().expect("unpoisoned").clone()
        };
        assert!(after(21).await.is_empty(), "nothing has changed");
        write("two");
        assert_eq!(after(20).await, ["two"]);
        write("bad");
        assert_eq!(after(30).await, ["two", "bad"]);
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(after(60).await.len(), 2, "a file that is gone changes nothing");
        write("bad");
        assert_eq!(after(20).await, ["two", "bad", "bad"], "it is tried again, not at once");
        write("two");
        assert_eq!(after(20).await.len(), 3, "what is in effect is not used anew");
        write("three");
        assert_eq!(after(20).await.last().map(String::as_str), Some("three"));
        assert_eq!((reloads.used().0, reloads.refused().0), (2, 2));
        assert!(reloads.used().1 > 0);
        task.abort();
    }
}
