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

/// Runs `work` on the keys of `queue` with so many workers until cancelled. A failed key comes again
/// after a growing delay. Returns when all workers have ended the key they had.
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
            match work(key.clone()).await {
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
