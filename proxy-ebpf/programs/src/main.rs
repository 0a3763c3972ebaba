//! The eBPF programs: thin hooks around the decisions of `skep-ebpf-abi`.
//!
//! Entry points, each in the module named:
//! - `socket`: connect, sendmsg, recvmsg and getpeername of both families; a virtual address becomes a backend once.
//! - `bind`: keeps node ports for services.
//! - `hooks`: tc programs of the uplink (both ways) and of the host's end of a pod's interface pair.
//! - `policy`: the same for pods that network policies select, which ask about each flow.
//! - `xdp`: what comes in over an uplink and goes out again over the same one.
//! - `tunnel`: tc programs of the device that leads to nodes on other segments.
//! - `collect`: walks the flows and removes those that are over; run by user space through a test run.
//!
//! Invariants: an internal error never breaks a connect (the hook passes it unchanged) and never leaks a packet in
//! the wrong form (tc drops and counts it); no loop without a small constant bound; no slice indexing, as a panic
//! is a loop that the verifier refuses.

#![no_std]
#![no_main]

mod bind;
mod collect;
mod count;
mod flows;
mod fragment;
mod hooks;
mod icmp;
mod limit;
mod maps;
mod packet;
mod policy;
mod refuse;
mod rewrite;
mod route;
mod select;
mod skb;
mod socket;
mod too_big;
mod tunnel;
mod work;
mod xdp;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: code that could come here does not pass the verifier.
    #[allow(clippy::empty_loop)]
    loop {}
}

// Several helpers are reserved for programs that call themselves GPL-compatible.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
