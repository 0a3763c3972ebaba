//! Room in the maps: seen to before services come in, when a map is full, and as programs fill theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ebpf::Ebpf;
use crate::error::{Error, Result};
use crate::metrics::MapLabels;

/// What services take, by kind of entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Need {
    pub(crate) frontends: u32,
    pub(crate) sets: u32,
    pub(crate) slots: u32,
    pub(crate) backends: u32,
    pub(crate) affinity: u32,
    pub(crate) ranges: u32,
}

impl Ebpf {
    /// Makes the maps large enough for what is about to come. What does not fit is refused later, service by service.
    pub(crate) async fn expect(&mut self, need: Need) -> Result<()> {
        let wanted = [
            ("frontends", need.frontends),
            ("sets", need.sets),
            ("slots", need.slots),
            ("backends", need.backends),
            ("affinity_match", need.affinity),
            ("source_ranges", need.ranges),
        ];
        match self.make_room(wanted.into()).await {
            Err(error) if error.is_full() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "not all services may find room");
                Ok(())
            }
            done => done.map(|_| ()),
        }
    }

    /// After a map was full: whether there is more room now.
    pub(super) async fn make_more(&mut self, error: &Error) -> Result<bool> {
        let Error::DataPlane(skep_ebpf_loader::Error::Full { name, limit }) = error else { return Ok(false) };
        let Some(name) = self.limits.keys().copied().find(|known| known == name) else { return Ok(false) };
        match self.make_room([(name, limit.saturating_add(1))].into()).await {
            Ok(grown) => Ok(grown),
            // The reason that is told is the full map.
            Err(error) if error.is_full() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a full map cannot grow");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Counts what programs have put into their maps, and makes those larger that are three quarters full.
    pub(super) async fn watch_room(&mut self, counts: &[(&'static str, u32)]) -> Result<()> {
        let model = self.reconciler.model();
        let own = [
            ("frontends", model.frontends.len()),
            ("sets", model.sets.len()),
            ("slots", model.slots.len()),
            ("backends", model.backends.len()),
            ("affinity_match", model.affinity.len()),
            ("source_ranges", model.ranges.len()),
        ];
        let own = own.map(|(map, count)| (map, u32::try_from(count).unwrap_or(u32::MAX)));
        let mut wanted = BTreeMap::new();
        for (map, count) in own.into_iter().chain(counts.iter().copied()) {
            let limit = self.limits.get(map).copied().unwrap_or(0);
            let labels = MapLabels { map };
            self.metrics.map_entries.get_or_create(&labels).set(i64::from(count));
            self.metrics.map_limit.get_or_create(&labels).set(i64::from(limit));
            if limit > 0 && u64::from(count) * 4 >= u64::from(limit) * 3 {
                wanted.insert(map, limit.saturating_add(1));
            }
        }
        self.make_room(wanted).await.map(|_| ())
    }

    /// Whether maps have grown.
    async fn make_room(&mut self, mut wanted: BTreeMap<&'static str, u32>) -> Result<bool> {
        wanted.retain(|map, count| self.limits.get(map).is_some_and(|limit| *count > *limit));
        if wanted.is_empty() {
            return Ok(false);
        }
        let plane = Arc::clone(&self.plane);
        let made = tokio::task::spawn_blocking(move || {
            let grown = plane.make_room(&wanted)?;
            Ok::<_, skep_ebpf_loader::Error>((grown, plane.limits()?))
        });
        let (grown, limits) = match made.await {
            Ok(made) => made?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        self.limits = limits;
        self.metrics.maps_grown.inc_by(grown.len() as u64);
        Ok(!grown.is_empty())
    }
}
