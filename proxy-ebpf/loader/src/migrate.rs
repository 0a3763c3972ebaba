//! Carrying what maps hold over to others: to those of another layout, or to larger ones, while programs work on.
//!
//! ```text
//! copy      everything, as it is
//! hold      the old programs open no flow for a moment; what they wrote meanwhile is copied
//! (swap)    the caller puts the new programs into the links
//! catch_up  what no connection depends on, and was written until then, is copied
//! ```
//! A flow that is opened by the old programs after its map was copied, and whose next packet meets the new ones, would
//! be nobody's: so none is opened between the last copy and the swap. Who tries meanwhile loses a packet and sends it
//! again. The hold ends by itself, whatever becomes of us: after two seconds while programs have one set of maps, after
//! ten once some may have the other.

mod before;
pub(crate) mod layouts;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use skep_ebpf_abi::conntrack::ticks_of_seconds;

use crate::error::{Error, Result};
use crate::raw_map::RawMap;
pub(crate) use before::Before;
use layouts::{Chain, Element};

/// Where programs look whether they may open flows: the time until which they may not.
pub(crate) const HOLD: &str = "hold";
/// Programs that looked before the hold are done by then.
const UNDER_WAY: Duration = Duration::from_millis(5);

/// How a map is to be carried over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The agent alone writes it, and writes nothing meanwhile.
    Tables,
    /// Flows, which programs open and change.
    Flows,
    /// Sockets, whose entries programs add and remove; without one, only a name is lost.
    Sockets,
    /// What programs remember, and may forget.
    Memory,
    /// What it holds is not worth a copy.
    Moment,
}

impl Kind {
    fn of(name: &str) -> Self {
        match name {
            "flows" | "flow_index" | "verdicts" => Self::Flows,
            "connected" => Self::Sockets,
            "affinity" | "reverse" | "policy_pairs" | "denied" => Self::Memory,
            HOLD | "counters" => Self::Moment,
            _ => Self::Tables,
        }
    }
}

/// What became of an element: the digest of what was copied, and its key there if that is another one.
struct Copied {
    digest: u64,
    key: Option<Box<[u8]>>,
}

/// A map and where its elements go.
struct Pair {
    kind: Kind,
    from: RawMap,
    to: RawMap,
    chain: Chain,
    copied: HashMap<Box<[u8]>, Copied>,
}

/// A carrying over under way. Dropped half way, it releases the old programs.
pub(crate) struct Migration {
    pairs: Vec<Pair>,
    hold: Option<RawMap>,
}

/// The time that programs see, in their ticks.
fn now() -> Result<u32> {
    let read = std::fs::read_to_string("/proc/uptime").map_err(Error::on("reading /proc/uptime"))?;
    let seconds = read.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(ticks_of_seconds(seconds))
}

fn digest(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

impl Migration {
    /// Between maps given by the pins of both; `hold` is the folder with the old programs' maps.
    pub(crate) fn begin<'a>(
        maps: impl IntoIterator<Item = (&'a str, &'a Path, &'a Path)>,
        hold: &Path,
        chain: &Chain,
    ) -> Result<Self> {
        let mut pairs = Vec::new();
        for (name, from, to) in maps {
            if let (Some(from), Some(to)) = (RawMap::open(from)?, RawMap::open(to)?) {
                pairs.push(Pair {
                    kind: Kind::of(name),
                    from,
                    to,
                    chain: chain.of(name),
                    copied: HashMap::new(),
                });
            }
        }
        let has_flows = pairs.iter().any(|pair: &Pair| pair.kind == Kind::Flows);
        let hold = if has_flows { RawMap::open(&hold.join(HOLD))? } else { None };
        Ok(Self { pairs, hold })
    }

    /// Copies everything; then holds the old programs, and copies what they wrote since the first copy.
    pub(crate) fn copied(mut self) -> Result<Self> {
        self.pairs.iter_mut().try_for_each(Pair::copy)?;
        // Programs from before there was a hold open flows to the last moment; those few are lost.
        self.hold(2)?;
        std::thread::sleep(UNDER_WAY);
        let mut flows = self.pairs.iter_mut().filter(|pair| pair.kind == Kind::Flows);
        flows.try_for_each(Pair::settle)?;
        Ok(self)
    }

    /// Before programs get the other maps, some of them first: should we die then, the next agent has time to go on.
    pub(crate) fn begin_swap(&self) -> Result<()> {
        self.hold(10)
    }

    fn hold(&self, seconds: u32) -> Result<()> {
        let Some(hold) = &self.hold else { return Ok(()) };
        let until = now()?.wrapping_add(ticks_of_seconds(seconds));
        hold.put(&0_u32.to_ne_bytes(), &until.to_ne_bytes())
    }

    /// Lets the old programs open flows again, as nothing came of it.
    pub(crate) fn release(&mut self) -> Result<()> {
        self.hold.take().map_or(Ok(()), |hold| release(&hold))
    }

    /// After the swap: copies what was added to memories until then.
    pub(crate) fn catch_up(mut self) -> Result<()> {
        // The old programs are gone; nobody looks at their hold.
        self.hold = None;
        let mut memories =
            self.pairs.iter_mut().filter(|pair| matches!(pair.kind, Kind::Sockets | Kind::Memory));
        memories.try_for_each(Pair::catch_up)
    }
}

/// Lets programs open flows.
pub(crate) fn release(hold: &RawMap) -> Result<()> {
    hold.put(&0_u32.to_ne_bytes(), &0_u32.to_ne_bytes())
}

impl Drop for Migration {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            // It ends by itself.
            tracing::debug!(error = &error as &dyn std::error::Error, "releasing the old programs");
        }
    }
}

impl Pair {
    fn copy(&mut self) -> Result<()> {
        if self.kind == Kind::Moment {
            return Ok(());
        }
        let Self { kind, from, to, chain, copied } = self;
        let is_array = to.is_array();
        from.visit(|key, value| {
            let Some((new_key, new_value)) = chain.convert(key, value)? else { return Ok(()) };
            // What is there already is newer: it came by an earlier, interrupted try.
            let is_there = to.get(&new_key)?.is_some_and(|there| !is_array || there.iter().any(|b| *b != 0));
            if !is_there {
                to.put(&new_key, &new_value)?;
            }
            if *kind != Kind::Tables {
                let moved = (*new_key != *key).then(|| new_key.as_ref().into());
                copied.insert(key.into(), Copied { digest: digest(key, value), key: moved });
            }
            Ok(())
        })
    }

    /// Makes the copy equal to what it was copied from.
    fn settle(&mut self) -> Result<()> {
        let Self { from, to, chain, copied, .. } = self;
        let mut left = std::mem::take(copied);
        from.visit(|key, value| {
            let before = left.remove(key);
            if before.as_ref().is_some_and(|before| before.digest == digest(key, value)) {
                return Ok(());
            }
            match chain.convert(key, value)? {
                Some((new_key, new_value)) => to.put(&new_key, &new_value),
                None => Ok(()),
            }
        })?;
        // What is left ended meanwhile.
        left.iter().try_for_each(|(key, copied)| to.remove(copied.key.as_deref().unwrap_or(key)))
    }

    /// Adds what came after the copy, and removes what the old programs removed.
    fn catch_up(&mut self) -> Result<()> {
        let Self { kind, from, to, chain, copied } = self;
        let mut left = std::mem::take(copied);
        from.visit(|key, value| {
            if left.remove(key).is_some() {
                return Ok(());
            }
            match chain.convert(key, value)? {
                Some((new_key, new_value)) if to.get(&new_key)?.is_none() => to.put(&new_key, &new_value),
                _ => Ok(()),
            }
        })?;
        if *kind == Kind::Sockets {
            left.iter().try_for_each(|(key, copied)| to.remove(copied.key.as_deref().unwrap_or(key)))?;
        }
        Ok(())
    }
}

/// A converted key and value.
pub(crate) type Converted<'a> = Option<(Element<'a>, Element<'a>)>;
