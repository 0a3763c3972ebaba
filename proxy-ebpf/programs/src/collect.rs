//! Removing flows that are over, inside the kernel: no system call per entry, and a flow that is used meanwhile is
//! judged by its time at that very moment. On the way it is counted how full the maps are that programs fill.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::{Flow, FlowKey};
use skep_ebpf_abi::policy::Verdict;

use crate::count::count;
use crate::flows::{node, same};
use crate::maps::{AFFINITY, CONNECTED, FLOW_INDEX, FLOWS, REVERSE};
use crate::policy::VERDICTS;
use crate::select::now;
use crate::skb::Skb;

/// Never attached; user space runs it with an empty packet, and finds in it how many elements there were of `flows`,
/// `flow_index`, `connected`, `affinity` and `reverse`. Needs `bpf_for_each_map_elem` (5.13).
#[classifier]
pub fn skep_collect(ctx: TcContext) -> i32 {
    let skb = Skb { raw: ctx.skb.skb };
    let tell = |index: u32, count: u32| {
        let _ = skb.store(index * 4, &count);
    };
    // SAFETY: the map's address is what the loader replaces by the map; the callbacks have the signature for hashes.
    unsafe {
        tell(0, each((&raw const FLOWS).cast(), visit as *mut c_void));
        tell(1, each((&raw const FLOW_INDEX).cast(), visit_index as *mut c_void));
        tell(2, each((&raw const CONNECTED).cast(), pass as *mut c_void));
        tell(3, each((&raw const AFFINITY).cast(), pass as *mut c_void));
        tell(4, each((&raw const REVERSE).cast(), pass as *mut c_void));
    }
    0
}

/// Never attached; user space runs it with an empty packet: removes what was decided about flows that are over.
/// Needs `bpf_for_each_map_elem` (5.13).
#[classifier]
pub fn skep_collect_verdicts(_ctx: TcContext) -> i32 {
    // SAFETY: the map's address is what the loader replaces by the map; the callback has the signature for hashes.
    unsafe {
        each((&raw const VERDICTS).cast(), visit_verdict as *mut c_void);
    }
    0
}

unsafe extern "C" fn visit_verdict(
    _map: *mut c_void,
    key: *const FlowKey,
    verdict: *const Verdict,
    _: *mut c_void,
) -> u64 {
    let Some(node) = node() else { return 1 };
    // SAFETY: the kernel passes a key and a value of the map's types.
    let (key, verdict) = unsafe { (*key, &*verdict) };
    if node.timeouts.expired(verdict.state, key.protocol, verdict.seen_ticks, now()) {
        let _ = VERDICTS.remove(key);
        count(Counter::FlowsCollected);
    }
    0
}

/// Calls back for each element; how many there were.
///
/// # Safety
/// `map` is the address of a hash, `visit` a function for its keys and values.
#[inline(always)]
unsafe fn each(map: *const c_void, visit: *mut c_void) -> u32 {
    // SAFETY: the caller's.
    unsafe { bpf_for_each_map_elem(map.cast_mut(), visit, core::ptr::null_mut(), 0) as u32 }
}

/// Counting only.
unsafe extern "C" fn pass(_map: *mut c_void, _: *const c_void, _: *const c_void, _: *mut c_void) -> u64 {
    0
}

unsafe extern "C" fn visit(_map: *mut c_void, key: *const FlowKey, flow: *const Flow, _: *mut c_void) -> u64 {
    let Some(node) = node() else { return 1 };
    // SAFETY: the kernel passes a key and a value of the map's types.
    let (key, flow) = unsafe { (*key, &*flow) };
    if !node.timeouts.expired(flow.state, key.protocol, flow.seen_ticks, now()) {
        return 0;
    }
    let outer = FlowKey::new(&flow.outer, key.protocol);
    // The index goes first: without it no packet of the client finds the flow that is about to go.
    let _ = FLOW_INDEX.remove(outer);
    let _ = FLOWS.remove(key);
    count(Counter::FlowsCollected);
    0
}

/// An index whose flow is gone, or belongs to another client now, leads nowhere.
unsafe extern "C" fn visit_index(
    _map: *mut c_void,
    key: *const FlowKey,
    inner: *const FlowKey,
    _: *mut c_void,
) -> u64 {
    // SAFETY: the kernel passes a key and a value of the map's types.
    let (key, inner) = unsafe { (*key, *inner) };
    // SAFETY: the value is only read.
    let leads = match unsafe { FLOWS.get(inner) } {
        Some(flow) => {
            let outer = FlowKey::new(&flow.outer, key.protocol);
            same_key(&outer, &key)
        }
        None => false,
    };
    if !leads {
        let _ = FLOW_INDEX.remove(key);
    }
    0
}

#[inline(always)]
fn same_key(a: &FlowKey, b: &FlowKey) -> bool {
    use skep_ebpf_abi::flow::Tuple;
    let tuple = |key: &FlowKey| Tuple {
        src: key.low,
        dst: key.high,
        src_port_be: key.low_port_be,
        dst_port_be: key.high_port_be,
    };
    same(&tuple(a), &tuple(b))
}
