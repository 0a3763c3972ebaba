//! Removing flows that are over from user space, for kernels before 5.13: they have no helper that walks a map.
//!
//! A flow may be used between being judged and being removed. It is judged by its entry at that moment, so what can
//! be lost is a flow that was silent for its whole timeout and wakes within microseconds; its next packet opens a
//! new one.

use std::os::fd::AsFd;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};
use skep_ebpf_abi::conntrack::ticks;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::{Flow, FlowKey};
use skep_ebpf_abi::node::NodeConfig;

use crate::error::{Error, Result};
use crate::inspect::possible_processors;
use crate::kernel_map::KernelMap;
use crate::sys;

/// Does what the program `skep_collect` does elsewhere.
pub(crate) fn collect(maps: &Path, node: &NodeConfig) -> Result<()> {
    let flows: KernelMap<FlowKey, Flow> = KernelMap::open(maps, "flows")?;
    let index: KernelMap<FlowKey, FlowKey> = KernelMap::open(maps, "flow_index")?;
    let mut collected = 0;
    for (key, _) in flows.entries()? {
        // Listing took its time: judged by what is there now.
        let Some(flow) = flows.get(&key)? else { continue };
        if !node.timeouts.expired(flow.state, key.protocol, flow.seen_ticks, now()?) {
            continue;
        }
        // The index goes first: without it no packet of the client finds the flow that is about to go.
        index.remove(&FlowKey::new(&flow.outer, key.protocol))?;
        flows.remove(&key)?;
        collected += 1;
    }
    // An index whose flow is gone, or belongs to another client now, leads nowhere.
    for (key, inner) in index.entries()? {
        let leads = |flow: Flow| FlowKey::new(&flow.outer, key.protocol) == key;
        if !flows.get(&inner)?.is_some_and(leads) {
            index.remove(&key)?;
        }
    }
    count(maps, collected)
}

/// The programs' clock.
fn now() -> Result<u32> {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_err(|errno| Error::kernel("reading the boot clock", errno.into()))?;
    let (seconds, nanoseconds) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
    Ok(ticks(seconds * 1_000_000_000 + nanoseconds))
}

/// Adds to the counter of collected flows. Where flows are collected here, no program writes it.
fn count(maps: &Path, collected: u64) -> Result<()> {
    if collected == 0 {
        return Ok(());
    }
    let path = maps.join("counters");
    let action = || format!("counting in pinned map {}", path.display());
    let map = sys::open_pinned(&path).map_err(Error::on(action()))?;
    let (key, mut values) = (Counter::FlowsCollected as u32, vec![0; possible_processors()?]);
    sys::map_get_per_cpu(map.as_fd(), key, &mut values).map_err(Error::on(action()))?;
    values[0] += collected;
    sys::map_put_per_cpu(map.as_fd(), key, &values).map_err(Error::on(action()))
}
