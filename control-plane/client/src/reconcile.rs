//! Runs a reconcile function over the keys of a work queue.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::queue::WorkQueue;

/// What to do with a key that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until it is added again.
    Wait,
    /// Look again after this long.
    After(Duration),
}

/// How long a key in work may go on after the end was asked for. What is cut off is done again by the
/// next start: reconciling is from the state, not from what happened.
const GRACE: Duration = Duration::from_secs(2);

/// Runs `work` on the keys of `queue` with so many workers until cancelled. A failed key comes again
/// after a growing delay. Returns when all workers have ended the key they had, or a moment later.
pub async fn run<T, F, Fut>(
    name: &'static str,
    queue: &WorkQueue<T>,
    workers: usize,
    cancel: &CancellationToken,
    work: F,
) where
    T: Clone + Eq + Hash + Display,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<Next, Error>>,
{
    let worker = || async {
        // Cancel-safe: `next` takes a key and returns without a wait in between.
        while let Some(key) = cancel.run_until_cancelled(queue.next()).await {
            let ended = async {
                cancel.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            let outcome = tokio::select! {
                outcome = work(key.clone()) => outcome,
                () = ended => {
                    tracing::debug!(controller = name, key = %*key, "cut off by the end");
                    return;
                }
            };
            match outcome {
                Ok(next) => {
                    queue.forget(&key);
                    if let Next::After(delay) = next {
                        queue.add_after(key.clone(), delay);
                    }
                }
                Err(error) => {
                    // Conflicts and the like are the normal way to learn of a stale store.
                    if error.is_conflict() || error.is_not_found() || queue.failures(&key) < 3 {
                        tracing::debug!(controller = name, key = %*key, %error, "will try again");
                    } else {
                        tracing::warn!(controller = name, key = %*key, %error, "will try again");
                    }
                    queue.add_rate_limited(key.clone());
                }
            }
        }
    };
    join_all((0..workers.max(1)).map(|_| worker())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_that_takes_for_ever_does_not_hold_the_end_up() {
        let queue = WorkQueue::new();
        queue.add("key".to_owned());
        let cancel = CancellationToken::new();
        let began = tokio::time::Instant::now();
        let work = |_| async {
            cancel.cancel();
            tokio::time::sleep(Duration::from_secs(600)).await;
            Ok(Next::Wait)
        };
        run("test", &queue, 1, &cancel, work).await;
        assert_eq!(began.elapsed().as_secs(), GRACE.as_secs());
    }
}
