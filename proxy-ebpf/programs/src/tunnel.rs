//! The tunnel: one VXLAN device that knows no peers; who a packet is for is looked up here, and where it came from
//! is checked here.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::bindings::{
    BPF_F_DONT_FRAGMENT, BPF_F_NO_PREALLOC, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX,
    BPF_FIB_LKUP_RET_FRAG_NEEDED, TC_ACT_OK, TC_ACT_SHOT,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::Array;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::programs::TcContext;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::tunnel::{NETWORK, Remote, SMALLEST_MTU, TunnelConfig};
use skep_ebpf_abi::{Addr, TCP};

use crate::count::count;
use crate::flows::{node_source, same_addr};
use crate::hooks::{Origin, ingress};
use crate::packet::{Content, ETH_V4, ETH_V6, L3, parse};
use crate::route::{AF_INET, AF_INET6, fib_query};
use crate::skb::Skb;
use crate::too_big::{bounce, forbids_fragments};

/// Pod ranges of other nodes that are reached through the tunnel.
#[map(name = "tunnels")]
pub static TUNNELS: LpmTrie<Addr, Remote> = LpmTrie::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// This end of it.
#[map(name = "tunnel")]
pub static TUNNEL: Array<TunnelConfig> = Array::with_max_entries(1, 0);

/// `struct bpf_tunnel_key` in words: id, remote address, service class and hops, label, own address.
type TunnelKey = [u32; 11];
/// Its size before kernels took the own address (5.19).
const OLD_KEY: u32 = 28;

#[inline(always)]
fn remote_of(addr: &Addr) -> Option<&'static Remote> {
    TUNNELS.get(&Key::new(128, *addr))
}

/// The node's source of packets to `dst`: answers through the tunnel must come back through the tunnel.
#[inline(always)]
pub fn source_towards(dst: &Addr, v4: bool) -> Option<Addr> {
    if remote_of(dst).is_none() {
        return node_source(v4);
    }
    let tunnel = TUNNEL.get(0)?;
    let source = if v4 { tunnel.source_v4 } else { tunnel.source_v6 };
    if source.is_unspecified() { None } else { Some(source) }
}

/// To another node: names the node that the device shall send it to.
#[classifier]
pub fn skep_tunnel_out(ctx: TcContext) -> i32 {
    let skb = Skb { raw: ctx.skb.skb };
    let v4 = skb.protocol() == ETH_V4;
    // What is no IP has nobody to go to.
    let Some(dst) = address(skb, DESTINATION) else { return TC_ACT_SHOT };
    let Some(remote) = remote_of(&dst) else {
        count(Counter::DropNoTunnel);
        return TC_ACT_SHOT;
    };
    let whole = forbids_fragments(skb, v4);
    if whole
        && skb.length() - L3 + remote.overhead() > SMALLEST_MTU
        && let Some(mtu) = narrower(skb, remote)
    {
        return match parse(skb) {
            Some(work) if work.packet.content != Content::IcmpError => bounce(skb, v4, mtu),
            _ => TC_ACT_SHOT,
        };
    }
    if set_key(skb, remote, whole) { TC_ACT_OK } else { TC_ACT_SHOT }
}

/// Where IPv4 and IPv6 headers have an address.
type Places = (u32, u32);
const SOURCE: Places = (L3 + 12, L3 + 8);
const DESTINATION: Places = (L3 + 16, L3 + 24);

#[inline(always)]
fn address(skb: Skb, (v4, v6): Places) -> Option<Addr> {
    match skb.protocol() {
        ETH_V4 => Some(Addr::v4(skb.load(v4)?)),
        ETH_V6 => Some(Addr::v6(skb.load(v6)?)),
        _ => None,
    }
}

#[inline(always)]
fn set_key(skb: Skb, remote: &Remote, whole: bool) -> bool {
    let mut key: TunnelKey = [0; 11];
    key[0] = NETWORK;
    key[5] = u32::from_ne_bytes([0, 64, 0, 0]);
    let mut flags = if whole { u64::from(BPF_F_DONT_FRAGMENT) } else { 0 };
    if remote.addr.is_v4() {
        // The helper wants IPv4 addresses in the machine's order. The inner checksum is enough.
        key[1] = u32::from_be(remote.addr.v4_word_be());
        key[7] = u32::from_be(remote.local.v4_word_be());
        flags |= u64::from(BPF_F_ZERO_CSUM_TX);
    } else {
        [key[1], key[2], key[3], key[4]] = remote.addr.words_be;
        [key[7], key[8], key[9], key[10]] = remote.local.words_be;
        flags |= u64::from(BPF_F_TUNINFO_IPV6);
    }
    // SAFETY: the key is as large as either size says.
    let set = |key: &mut TunnelKey, size| unsafe {
        bpf_skb_set_tunnel_key(skb.raw, key.as_mut_ptr().cast(), size, flags) == 0
    };
    set(&mut key, core::mem::size_of::<TunnelKey>() as u32) || set(&mut key, OLD_KEY)
}

/// What fits through the tunnel, if this packet does not: by the kernel's route to the other end, with what it has
/// learned of the path's MTU.
#[inline(always)]
fn narrower(skb: Skb, remote: &Remote) -> Option<u32> {
    let length = if skb.gso_size() == 0 { skb.length() - L3 } else { segment(skb)? };
    let wanted = (length + remote.overhead()) as u16;
    let [low, high] = wanted.to_ne_bytes();
    let query = fib_query()?;
    let v4 = remote.addr.is_v4();
    query[0] = u32::from_ne_bytes([if v4 { AF_INET } else { AF_INET6 }, skep_ebpf_abi::UDP, 0, 0]);
    query[1] = u32::from_ne_bytes([0, 0, low, high]);
    query[2] = skb.ifindex();
    if v4 {
        query[4] = remote.local.v4_word_be();
        query[8] = remote.addr.v4_word_be();
    } else {
        [query[4], query[5], query[6], query[7]] = remote.local.words_be;
        [query[8], query[9], query[10], query[11]] = remote.addr.words_be;
    }
    // SAFETY: the query is as large as the helper's structure.
    let found = unsafe { bpf_fib_lookup(skb.raw.cast(), query.as_mut_ptr().cast(), 64, 0) };
    if found != i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
        return None;
    }
    let [_, _, low, high] = query[1].to_ne_bytes();
    let mtu = u16::from_ne_bytes([low, high]);
    // Kernels before 5.12 do not say what fits.
    let mtu = if mtu == wanted { SMALLEST_MTU } else { u32::from(mtu) };
    Some(mtu.saturating_sub(remote.overhead()))
}

/// The length of each packet that a large one will become.
#[inline(always)]
fn segment(skb: Skb) -> Option<u32> {
    let packet = &parse(skb)?.packet;
    let header = if packet.protocol == TCP {
        let offset: u8 = skb.load(packet.l4 + 12)?;
        u32::from(offset >> 4) * 4
    } else {
        8
    };
    Some(packet.l4 - L3 + header + skb.gso_size())
}

/// From another node.
#[classifier]
pub fn skep_tunnel_in(ctx: TcContext) -> i32 {
    let skb = Skb { raw: ctx.skb.skb };
    // What did not come through the tunnel is an error that `bounce` has put in here.
    if let Some(outer) = sender(skb) {
        let Some(src) = address(skb, SOURCE) else { return TC_ACT_SHOT };
        // Whoever can reach the port could put in packets; only a node that has the source may.
        let is_known = match remote_of(&src) {
            Some(remote) => same_addr(&remote.addr, &outer),
            None => false,
        };
        if !is_known {
            count(Counter::DropTunnelSource);
            return TC_ACT_SHOT;
        }
    }
    ingress(skb, Origin::Tunnel)
}

/// The address of the node that sent a packet through the tunnel.
#[inline(always)]
fn sender(skb: Skb) -> Option<Addr> {
    let mut key: TunnelKey = [0; 11];
    // SAFETY: the key is as large as the size says.
    let got = |key: &mut TunnelKey, flags| unsafe {
        bpf_skb_get_tunnel_key(skb.raw, key.as_mut_ptr().cast(), OLD_KEY, flags) == 0
    };
    if got(&mut key, 0) {
        return Some(Addr::v4(key[1].to_be()));
    }
    if got(&mut key, u64::from(BPF_F_TUNINFO_IPV6)) {
        return Some(Addr::v6([key[1], key[2], key[3], key[4]]));
    }
    None
}
