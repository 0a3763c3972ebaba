//! How long flows live: as the node's sysctls of conntrack say, where it has them, or as the options do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use skep_ebpf_abi::conntrack::{Timeouts, ticks_of_seconds};

use crate::options::TimeoutOptions;

const FOLDER: &str = "/proc/sys/net/netfilter";
/// kube-proxy's. The kernel's own is five days, which fills a table that evicts nothing.
const LONGEST_ESTABLISHED: u32 = 24 * 60 * 60;

/// As this network namespace has them now.
pub(crate) fn current(options: &TimeoutOptions) -> Timeouts {
    timeouts(options, |name| fs::read_to_string(Path::new(FOLDER).join(name)).ok()?.trim().parse().ok())
}

fn timeouts(options: &TimeoutOptions, sysctl: impl Fn(&str) -> Option<u32>) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let set = |ticks: &mut u32, name: &str, longest: u32, option: Option<Duration>| {
        let chosen = option.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        let seconds = chosen.or_else(|| Some(sysctl(name)?.min(longest)));
        // Nothing lives for no time at all, whatever a file says.
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 0) {
            *ticks = ticks_of_seconds(seconds.min(i32::MAX.unsigned_abs()));
        }
    };
    let longest = u32::MAX;
    set(&mut timeouts.tcp_opening, "nf_conntrack_tcp_timeout_syn_sent", longest, None);
    set(
        &mut timeouts.tcp_established,
        "nf_conntrack_tcp_timeout_established",
        LONGEST_ESTABLISHED,
        options.tcp_established,
    );
    set(&mut timeouts.tcp_closing, "nf_conntrack_tcp_timeout_close", longest, None);
    set(&mut timeouts.udp, "nf_conntrack_udp_timeout", longest, options.udp);
    set(&mut timeouts.udp_replied, "nf_conntrack_udp_timeout_stream", longest, options.udp_stream);
    set(&mut timeouts.icmp, "nf_conntrack_icmp_timeout", longest, None);
    set(&mut timeouts.other, "nf_conntrack_generic_timeout", longest, None);
    timeouts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds KP-51.
    #[test]
    fn options_come_before_sysctls_and_those_before_defaults() {
        let sysctl = |name: &str| match name {
            "nf_conntrack_udp_timeout" => Some(7),
            "nf_conntrack_udp_timeout_stream" => Some(0),
            "nf_conntrack_tcp_timeout_established" => Some(432_000),
            "nf_conntrack_tcp_timeout_close" => Some(20),
            _ => None,
        };
        let none = timeouts(&TimeoutOptions::default(), |_| None);
        assert_eq!(none, Timeouts::default());
        let some = timeouts(&TimeoutOptions::default(), sysctl);
        assert_eq!(some.udp, ticks_of_seconds(7));
        assert_eq!(some.udp_replied, Timeouts::default().udp_replied, "nothing is no time");
        assert_eq!(some.tcp_established, ticks_of_seconds(LONGEST_ESTABLISHED));
        assert_eq!(some.tcp_closing, ticks_of_seconds(20));
        assert_eq!(some.icmp, Timeouts::default().icmp);
        let options = TimeoutOptions {
            tcp_established: Some(Duration::from_secs(432_000)),
            udp: Some(Duration::from_secs(5)),
            udp_stream: Some(Duration::from_secs(9)),
        };
        let chosen = timeouts(&options, sysctl);
        assert_eq!(chosen.udp, ticks_of_seconds(5));
        assert_eq!(chosen.udp_replied, ticks_of_seconds(9));
        assert_eq!(chosen.tcp_established, ticks_of_seconds(432_000), "who asks for it gets it");
    }
}
