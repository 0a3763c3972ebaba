//! A watch through a lens.
//!
//! Where selectors can be decided on what is stored, the cache's own filter does it. Where they can't
//! (selectable fields, conversion by webhook), everything is taken and filtered after it was converted.

use std::sync::Arc;

use skep_api::error::ApiError;

use super::Lens;
use crate::cache::{EventType, Filter, Object, Seen, Watch, WatchItem};

/// An open watch on any resource.
pub struct Stream {
    watch: Watch,
    through: Option<Through>,
}

struct Through {
    lens: Arc<Lens>,
    /// What is to be filtered after conversion.
    filter: Option<Filter>,
    failed: bool,
}

impl From<Watch> for Stream {
    fn from(watch: Watch) -> Self {
        Self { watch, through: None }
    }
}

impl Stream {
    /// A watch whose objects are seen through a lens; `filter` is applied to what is seen.
    pub(crate) fn through(watch: Watch, lens: Arc<Lens>, filter: Option<Filter>) -> Self {
        Self { watch, through: Some(Through { lens, filter, failed: false }) }
    }

    /// The next item; nothing after the end, after a failure, or when the version is served no longer.
    pub async fn next(&mut self) -> Option<WatchItem> {
        let Some(through) = &mut self.through else { return self.watch.next().await };
        loop {
            if through.failed {
                return None;
            }
            let item = tokio::select! {
                biased;
                () = through.lens.closed() => None,
                item = self.watch.next() => item,
            }?;
            let WatchItem::Event(seen) = item else { return Some(item) };
            match through.see(seen).await {
                Ok(Some(seen)) => return Some(WatchItem::Event(seen)),
                Ok(None) => {}
                Err(error) => {
                    through.failed = true;
                    return Some(WatchItem::Failed(error));
                }
            }
        }
    }

    /// What can be had without waiting.
    pub fn try_next(&mut self) -> Option<WatchItem> {
        match &mut self.through {
            None => self.watch.try_next(),
            Some(through) if through.filter.is_none() && !through.failed && through.lens.is_plain() => {
                match self.watch.try_next()? {
                    WatchItem::Event(seen) => Some(through.see_now(seen)),
                    other => Some(other),
                }
            }
            Some(_) => None,
        }
    }
}

impl Through {
    fn see_now(&mut self, seen: Seen) -> WatchItem {
        match self.lens.see_now(&seen.object) {
            Some(Ok(object)) => WatchItem::Event(shown(seen, object)),
            other => {
                self.failed = true;
                let error = other.and_then(Result::err);
                WatchItem::Failed(error.unwrap_or_else(|| ApiError::internal("the conversion has changed")))
            }
        }
    }

    async fn see(&self, seen: Seen) -> Result<Option<Seen>, ApiError> {
        let object = self.lens.see(&seen.object).await?;
        let Some(filter) = &self.filter else { return Ok(Some(shown(seen, object))) };
        let now = seen.kind != EventType::Deleted && filter.matches(&object);
        let previous = match seen.event.as_ref().and_then(|event| event.previous.as_ref()) {
            Some(previous) => Some(self.lens.see(previous).await?),
            None => None,
        };
        let before = previous.as_ref().is_some_and(|previous| filter.matches(previous));
        let kind = match (before, now) {
            (false, true) => EventType::Added,
            (true, true) => EventType::Modified,
            (true, false) => EventType::Deleted,
            (false, false) => return Ok(None),
        };
        if kind == seen.kind {
            return Ok(Some(shown(seen, object)));
        }
        let object = match (previous, kind) {
            // It left the selector: the watcher is shown what it knew, at the time it left.
            (Some(previous), EventType::Deleted) => Arc::new(previous.at(object.revision)),
            _ => object,
        };
        Ok(Some(Seen { kind, object, event: None }))
    }
}

/// The same event of the object as it is seen. The encoded frame is shared when it is the same object.
fn shown(seen: Seen, object: Arc<Object>) -> Seen {
    let event = seen.event.filter(|_| Arc::ptr_eq(&seen.object, &object));
    Seen { kind: seen.kind, object, event }
}
