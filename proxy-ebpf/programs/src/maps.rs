//! All maps. Their sizes are defaults that the loader overrides; `NO_PREALLOC` makes a large limit cost nothing
//! until it is used.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::{Flow, FlowKey};
use skep_ebpf_abi::maglev::{PAGES, Page, PageKey};
use skep_ebpf_abi::node::{Endpoint, NodeConfig};
use skep_ebpf_abi::service::{
    Affinity, AffinityKey, AffinityMatch, Backend, Connected, Frontend, FrontendKey, Reverse, ReverseKey,
    Set, SlotKey, SourceRange,
};

/// What clients dial.
#[map(name = "frontends")]
pub static FRONTENDS: HashMap<FrontendKey, Frontend> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// The groups of backends.
#[map(name = "sets")]
pub static SETS: HashMap<u32, Set> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// Their members.
#[map(name = "slots")]
pub static SLOTS: HashMap<SlotKey, u32> = HashMap::with_max_entries(1_048_576, BPF_F_NO_PREALLOC);

/// Members by the hash of a flow, where nodes shall choose alike; for 512 sets.
#[map(name = "maglev")]
pub static MAGLEV: HashMap<PageKey, Page> = HashMap::with_max_entries(512 * PAGES as u32, BPF_F_NO_PREALLOC);

/// The backends by id.
#[map(name = "backends")]
pub static BACKENDS: HashMap<u32, Backend> = HashMap::with_max_entries(524_288, BPF_F_NO_PREALLOC);

/// Which backend a client sticks to. The least recently used are forgotten when it is full.
#[map(name = "affinity")]
pub static AFFINITY: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(65_536, 0);

/// Which backends a client may stick to.
#[map(name = "affinity_match")]
pub static AFFINITY_MATCH: HashMap<AffinityMatch, u32> =
    HashMap::with_max_entries(524_288, BPF_F_NO_PREALLOC);

/// Connected sockets that were translated. An entry goes with its socket, so none is ever evicted, and a connect
/// does not pay for making room.
#[map(name = "connected")]
pub static CONNECTED: HashMap<u64, Connected> = HashMap::with_max_entries(1_048_576, BPF_F_NO_PREALLOC);

/// Peers of unconnected sockets: one may have many, and none is told when it ends.
#[map(name = "reverse")]
pub static REVERSE: LruHashMap<ReverseKey, Reverse> = LruHashMap::with_max_entries(131_072, 0);

/// Cookies of the network namespaces whose sockets are left alone.
#[map(name = "skip_socket")]
pub static SKIP_SOCKET: HashMap<u64, u32> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);

/// The flows. Never evicted: a live flow is worth more than a new one, which is refused when this is full.
#[map(name = "flows")]
pub static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// The way from a flow's other side to its key.
#[map(name = "flow_index")]
pub static FLOW_INDEX: HashMap<FlowKey, FlowKey> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// Addresses on this node.
#[map(name = "endpoints")]
pub static ENDPOINTS: HashMap<Addr, Endpoint> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);

/// Allowed sources; the value is always 1.
#[map(name = "source_ranges")]
pub static SOURCE_RANGES: LpmTrie<SourceRange, u32> = LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Networks that pods reach with their own address; the value says who wants it, see `skep_ebpf_abi::node::keep`.
#[map(name = "keep_source")]
pub static KEEP_SOURCE: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(4_096, BPF_F_NO_PREALLOC);

/// The node.
#[map(name = "node")]
pub static NODE: Array<NodeConfig> = Array::with_max_entries(1, 0);

/// Until when no flow may be opened, in ticks; 0 is never. Set for a moment while larger maps, or those of another
/// layout, take the place of these.
#[map(name = "hold")]
pub static HOLD: Array<u32> = Array::with_max_entries(1, 0);

/// Counters, with room for those of later builds, as a pinned map keeps its size.
#[map(name = "counters")]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(64, 0);
const _: () = assert!(Counter::COUNT <= 64);
