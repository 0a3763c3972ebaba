//! Making maps larger while they are in use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::DataPlane;
use crate::error::{Error, Result};
use crate::links;
use crate::migrate::Migration;
use crate::migrate::layouts::Chain;
use crate::pins::{self, NEXT, OLD};
use crate::programs::{PINNED_MAPS, Programs};
use crate::raw_map::RawMap;
use crate::service_maps::KernelServiceMaps;
use crate::sizes::{self, START, Shape};

impl DataPlane {
    /// Makes maps hold as much as is asked for, by name, those that are too small. New maps are filled and programs
    /// that use them swapped in, without a connection noticing; what is written to the tables meanwhile would be lost,
    /// so nothing may be. Returns what has grown, with its limit now.
    ///
    /// # Errors
    /// When that would take more memory than maps may take, when the kernel cannot exchange programs, or refuses. What
    /// was there goes on then.
    pub fn make_room(&self, wanted: &BTreeMap<&str, u32>) -> Result<Vec<(&'static str, u32)>> {
        // Interfaces must not come and go meanwhile.
        let mut programs = self.programs();
        self.finish(&mut programs)?;
        let growing = self.growing(wanted)?;
        if growing.is_empty() {
            return Ok(Vec::new());
        }
        let names: BTreeSet<&str> = growing.iter().map(|(name, _)| *name).collect();
        let forget = |suffix: &str| names.iter().try_for_each(|name| self.pins.forget(name, suffix));
        forget(NEXT)?;
        match self.exchange(&mut programs, &growing, &names) {
            Ok(()) => {
                forget(OLD)?;
                tracing::info!(?growing, "maps have grown");
                Ok(growing)
            }
            Err(error) => {
                if let Err(left) = forget(NEXT) {
                    tracing::warn!(error = &left as &dyn std::error::Error, "what was begun stays");
                }
                Err(error)
            }
        }
    }

    fn exchange(
        &self,
        programs: &mut Programs,
        growing: &[(&'static str, u32)],
        names: &BTreeSet<&str>,
    ) -> Result<()> {
        let maps = self.pins.maps();
        let sizes = growing.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect();
        let mut fresh = Programs::load(self.object.as_deref(), &maps, &sizes, names)?;
        let paths: Vec<(&str, PathBuf, PathBuf)> =
            names.iter().map(|name| (*name, maps.join(name), maps.join(format!("{name}{NEXT}")))).collect();
        let pairs = paths.iter().map(|(name, from, to)| (*name, from.as_path(), to.as_path()));
        let mut migration = Migration::begin(pairs, &maps, &Chain::none())?.copied()?;
        migration.begin_swap()?;
        // From here on the larger maps are the true ones, whatever happens.
        names.iter().try_for_each(|name| self.pins.exchange(name))?;
        let swapped = self.swap(&mut fresh);
        let services = KernelServiceMaps::open(&maps)?;
        *self.services.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(services);
        *programs = fresh;
        // The hold is the same map for both: it ends when the last old program is gone.
        migration.release()?;
        migration.catch_up()?;
        swapped
    }

    /// Ends an exchange that was broken off: some links may still have programs of the smaller maps.
    fn finish(&self, programs: &mut Programs) -> Result<()> {
        let all = pins::names(&self.pins.maps())?;
        let mut old = all.iter().filter_map(|name| name.strip_suffix(OLD)).peekable();
        if old.peek().is_some() {
            self.swap(programs)?;
            old.try_for_each(|name| self.pins.forget(name, OLD))?;
        }
        Ok(())
    }

    /// Puts programs into every link.
    fn swap(&self, programs: &mut Programs) -> Result<()> {
        if self.serves_sockets() {
            self.attach_sockets(programs)?;
        }
        links::refresh_interfaces(programs, &self.pins, &Self::policed_interfaces(&self.policy.policed)?)
    }

    /// The maps that must grow, with their limits to be.
    fn growing(&self, wanted: &BTreeMap<&str, u32>) -> Result<Vec<(&'static str, u32)>> {
        let maps = self.pins.maps();
        let (mut growing, mut bytes) = (Vec::new(), 0);
        for name in PINNED_MAPS {
            let Some(map) = RawMap::open(&maps.join(name))? else { continue };
            // What cannot grow has its place already, and much of it is hardly ever used.
            let Some((name, _)) = START.into_iter().find(|(known, _)| *known == name) else { continue };
            let (key, value) = map.sizes();
            let mut shape = Shape { key: key as u32, value: value as u32, limit: map.limit() };
            if let Some(limit) = wanted.get(name).and_then(|wanted| sizes::grown(shape.limit, *wanted)) {
                shape.limit = limit;
                growing.push((name, limit));
            }
            bytes += shape.bytes();
        }
        // Each flow has an index, and one that has none is of no use.
        let limit_of =
            |list: &[(&str, u32)], of: &str| list.iter().find(|(name, _)| *name == of).map(|g| g.1);
        if let (Some(limit), None) = (limit_of(&growing, "flows"), limit_of(&growing, "flow_index")) {
            growing.push(("flow_index", limit));
        }
        if growing.is_empty() {
            return Ok(growing);
        }
        if !links::has_tcx() {
            return Err(Error::CannotExchange);
        }
        if bytes > self.cap {
            return Err(Error::NoMemory { wanted: bytes, cap: self.cap });
        }
        Ok(growing)
    }

    /// The limits of the maps that can grow.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limits(&self) -> Result<BTreeMap<&'static str, u32>> {
        let maps = self.pins.maps();
        let mut limits = BTreeMap::new();
        for (name, _) in START {
            if let Some(map) = RawMap::open(&maps.join(name))? {
                limits.insert(name, map.limit());
            }
        }
        Ok(limits)
    }
}
