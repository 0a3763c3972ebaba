//! What an earlier agent left: maps of other layouts, and an exchange of maps that was broken off.
//!
//! Maps of an earlier layout whose elements mean the same in this one are used on, so nothing is copied, and no program
//! is ever without what another wrote. The others are made anew and filled. All of it happens in a folder aside, which
//! takes its name when it is whole: a load that comes to nothing leaves nothing that a later one could take for true.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aya::maps::MapData;

use super::layouts::Chain;
use super::{HOLD, Migration, release};
use crate::error::{Error, Result};
use crate::pins::{OLD, Pins};
use crate::programs::PINNED_MAPS;
use crate::raw_map::RawMap;

/// What there was before this build's programs.
pub(crate) struct Before {
    /// Folders of maps of earlier layouts, the newest first.
    older: Vec<(Chain, PathBuf)>,
    /// Maps, by folder, whose smaller ones may hold what they lack.
    interrupted: Vec<(PathBuf, Vec<String>)>,
    /// Where this build's maps are until its programs are in the links.
    maps: PathBuf,
}

impl Before {
    /// Looks, and sees to it that maps that are used on are this build's too.
    pub(crate) fn look(pins: &Pins) -> Result<Self> {
        let older = pins.older()?;
        let maps = pins.stage(!older.is_empty())?;
        let mut interrupted = Vec::new();
        for folder in older.iter().map(|(_, folder)| folder).chain([&maps]) {
            let names = pins.recover(folder)?;
            if !names.is_empty() {
                interrupted.push((folder.clone(), names));
            }
        }
        let mut chained = Vec::new();
        for (layout, folder) in older {
            tracing::info!(layout, "carrying over what maps of an earlier layout hold");
            let chain = Chain::from(layout)?;
            for name in PINNED_MAPS.into_iter().filter(|name| chain.of(name).is_empty()) {
                use_on(&folder.join(name), &maps.join(name))?;
            }
            chained.push((chain, folder));
        }
        Ok(Self { older: chained, interrupted, maps })
    }

    /// The folder of this build's maps.
    pub(crate) fn maps(&self) -> &Path {
        &self.maps
    }

    /// `sizes`, but no map smaller than the one whose elements it is to take.
    pub(crate) fn sizes(&self, mut sizes: BTreeMap<String, u32>) -> Result<BTreeMap<String, u32>> {
        for (_, folder) in &self.older {
            for name in PINNED_MAPS {
                if let (Some(map), Some(size)) = (RawMap::open(&folder.join(name))?, sizes.get_mut(name)) {
                    *size = (*size).max(map.limit());
                }
            }
        }
        Ok(sizes)
    }

    /// Copies what there was, and holds the programs that use it; to be ended by [`end`](Self::end) once no link has
    /// them any more.
    pub(crate) fn carry_over(&mut self, pins: &Pins) -> Result<Vec<Migration>> {
        let mut carried = Vec::new();
        for (folder, names) in &self.interrupted {
            let paths =
                names.iter().map(|name| (name, folder.join(format!("{name}{OLD}")), folder.join(name)));
            let paths: Vec<(&String, PathBuf, PathBuf)> = paths.collect();
            let pairs = paths.iter().map(|(name, from, to)| (name.as_str(), from.as_path(), to.as_path()));
            carried.push(Migration::begin(pairs, folder, &Chain::none())?.copied()?);
        }
        for (chain, folder) in &self.older {
            let changed = PINNED_MAPS.into_iter().filter(|name| !chain.of(name).is_empty());
            let paths = changed.map(|name| (name, folder.join(name), self.maps.join(name)));
            let paths: Vec<(&str, PathBuf, PathBuf)> = paths.collect();
            let pairs = paths.iter().map(|(name, from, to)| (*name, from.as_path(), to.as_path()));
            carried.push(Migration::begin(pairs, folder, chain)?.copied()?);
        }
        carried.iter().try_for_each(Migration::begin_swap)?;
        self.maps = pins.publish(&self.maps)?;
        Ok(carried)
    }

    /// Forgets what was begun, as nothing came of it.
    pub(crate) fn abandon(&self, pins: &Pins) {
        if self.maps != pins.maps()
            && let Err(error) = pins.unstage()
        {
            // The next start removes it.
            tracing::debug!(error = &error as &dyn std::error::Error, "removing maps that are not used");
        }
    }

    /// Ends it: the old programs are gone.
    pub(crate) fn end(&self, pins: &Pins, carried: Vec<Migration>) -> Result<()> {
        for mut migration in carried {
            migration.release()?;
            migration.catch_up()?;
        }
        // Who died may have left a hold.
        if let Some(hold) = RawMap::open(&self.maps.join(HOLD))? {
            release(&hold)?;
        }
        for (folder, names) in &self.interrupted {
            // In a folder of an earlier layout they go with it.
            let own = *folder == pins.maps();
            names.iter().filter(|_| own).try_for_each(|name| pins.forget(name, OLD))?;
        }
        pins.remove_other_layouts()
    }
}

/// Pins a map at a second place, if it is there and nothing is at that place.
fn use_on(from: &Path, to: &Path) -> Result<()> {
    if to.exists() || !from.exists() {
        return Ok(());
    }
    let failed = |error| Error::Object(Box::new(aya::EbpfError::MapError(error)));
    MapData::from_pin(from)
        .map_err(failed)?
        .pin(to)
        .map_err(|error| Error::kernel(format!("pinning {}", to.display()), std::io::Error::other(error)))
}
