//! How many requests are served at the same time. Long ones (watches, streams) do not count.

use std::sync::Arc;

use skep_api::error::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The two pools of places.
pub(crate) struct Limits {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Limits {
    pub(crate) fn new(reads: usize, writes: usize) -> Self {
        Self { reads: Arc::new(Semaphore::new(reads)), writes: Arc::new(Semaphore::new(writes)) }
    }

    /// A place for a request, or 429.
    pub(crate) fn enter(&self, verb: &str) -> Result<OwnedSemaphorePermit, ApiError> {
        let pool =
            if matches!(verb, "get" | "list" | "head" | "options") { &self.reads } else { &self.writes };
        pool.clone()
            .try_acquire_owned()
            .map_err(|_| ApiError::too_many_requests(1, "Too many requests, please try again later."))
    }
}
