//! Why packets and connects were dropped or passed on, counted per processor.

/// An index into the counters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum Counter {
    /// A connect or datagram was sent to a backend.
    SocketTranslated = 0,
    /// A connect to a service without backends was refused.
    SocketNoBackend = 1,
    /// A set's slot or backend was missing although its count promised it.
    SocketInconsistent = 2,
    /// A packet's destination was translated.
    PacketTranslated = 3,
    /// A packet's answer was translated back.
    PacketReply = 4,
    /// A pod's packet got the node's address.
    Masqueraded = 5,
    /// An ICMP error was translated.
    IcmpTranslated = 6,
    /// Dropped: no backend.
    DropNoBackend = 7,
    /// Dropped: the source is not in the service's ranges.
    DropSourceRange = 8,
    /// Dropped: the table of flows is full.
    DropFlowsFull = 9,
    /// Dropped: no free source port.
    DropNoPort = 10,
    /// Dropped: no source address of the packet's family.
    DropNoSource = 11,
    /// Dropped: rewriting the packet failed.
    DropRewrite = 12,
    /// Dropped: no route to the backend or client.
    DropNoRoute = 13,
    /// Refused towards the client: no backend.
    Rejected = 14,
    /// Flows that ended and were collected.
    FlowsCollected = 15,
    /// Dropped: a later fragment to a service, of no flow.
    DropFragment = 16,
    /// Too big for its way: the sender was told so.
    TooBig = 17,
    /// Dropped: no node is known that has the destination in its pod range.
    DropNoTunnel = 18,
    /// Dropped: it came through the tunnel from a node that does not have its source.
    DropTunnelSource = 19,
    /// Fragments that came before the first of their datagram, and were held for it.
    FragmentHeld = 20,
    /// Dropped: a new flow, while other maps took over.
    DropHold = 21,
    /// Packets that went out again where they came in, without the host's stack.
    XdpForwarded = 22,
    /// Dropped: no network policy allows it.
    DropPolicy = 23,
    /// Dropped: the table of flows that policies have decided is full.
    DropVerdictsFull = 24,
    /// Dropped: it pretends to come from another pod.
    DropSpoofed = 25,
}

impl Counter {
    /// How many there are.
    pub const COUNT: u32 = 26;

    /// All of them with their names in metrics and tables.
    pub const ALL: [(Self, &'static str); Self::COUNT as usize] = [
        (Self::SocketTranslated, "socket_translated"),
        (Self::SocketNoBackend, "socket_no_backend"),
        (Self::SocketInconsistent, "socket_inconsistent"),
        (Self::PacketTranslated, "packet_translated"),
        (Self::PacketReply, "packet_reply"),
        (Self::Masqueraded, "masqueraded"),
        (Self::IcmpTranslated, "icmp_translated"),
        (Self::DropNoBackend, "drop_no_backend"),
        (Self::DropSourceRange, "drop_source_range"),
        (Self::DropFlowsFull, "drop_flows_full"),
        (Self::DropNoPort, "drop_no_port"),
        (Self::DropNoSource, "drop_no_source"),
        (Self::DropRewrite, "drop_rewrite"),
        (Self::DropNoRoute, "drop_no_route"),
        (Self::Rejected, "rejected"),
        (Self::FlowsCollected, "flows_collected"),
        (Self::DropFragment, "drop_fragment"),
        (Self::TooBig, "too_big"),
        (Self::DropNoTunnel, "drop_no_tunnel"),
        (Self::DropTunnelSource, "drop_tunnel_source"),
        (Self::FragmentHeld, "fragment_held"),
        (Self::DropHold, "drop_hold"),
        (Self::XdpForwarded, "xdp_forwarded"),
        (Self::DropPolicy, "drop_policy"),
        (Self::DropVerdictsFull, "drop_verdicts_full"),
        (Self::DropSpoofed, "drop_spoofed"),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_in_order() {
        for (index, (counter, _)) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }
}
