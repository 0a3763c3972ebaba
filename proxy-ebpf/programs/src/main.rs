//! The eBPF programs.
#![no_std]
#![no_main]
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
/// x
#[cgroup_sock_addr(connect4)]
pub fn skep_connect4(_ctx: SockAddrContext) -> i32 {
    1
}
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
