//! Streams: SPDY, channels over WebSocket, pages behind a proxy.

use crate::Target;

/// SPDY/3.1: frames and packed headers.
pub(crate) const SPDY: Target = Target {
    name: "spdy",
    about: "SPDY connections of exec, attach and port-forward",
    run: skep_node_agent::server::fuzz_spdy,
    seeds: &[
        // A ping, data in two pieces, a window update, a reset, the end.
        b"\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x03abc\x00\x00\x00\x01\x01\x00\x00\x01d",
        b"\x80\x03\x00\x09\x00\x00\x00\x08\x00\x00\x00\x01\x00\x01\x00\x00\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x05",
        b"\x80\x03\x00\x07\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x80\x03\x00\x04\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x07\x00\x01\x00\x00",
        // A list of headers as it is before it is packed.
        b"\x00\x00\x00\x02\x00\x00\x00\x0astreamtype\x00\x00\x00\x05error\x00\x00\x00\x04port\x00\x00\x00\x0280",
        // A stream is opened; its headers are stored, not compressed (the dictionary is named first).
        b"\x80\x03\x00\x01\x00\x00\x00\x25\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x78\xbb\xe3\xc6\xa7\xc2\x00\x0d\x00\xf2\xff\x00\x00\x00\x01\x00\x00\x00\x01a\x00\x00\x00\x00",
    ],
};

/// Messages of streams over WebSocket.
pub(crate) const CHANNELS: Target = Target {
    name: "channels",
    about: "messages of streams over WebSocket",
    run: skep_node_agent::server::fuzz_channels,
    seeds: &[
        b"\x00stdin",
        b"\x04{\"Width\":80,\"Height\":24}",
        b"\xff\x00",
        b"0aGVsbG8=",
        b"4eyJXaWR0aCI6MX0=",
    ],
};

/// Pages that are made to lead back through a proxy.
pub(crate) const PAGES: Target = Target {
    name: "pages",
    about: "HTML behind /proxy",
    run: skep_apiserver::proxy::fuzz_page,
    seeds: &[
        b"<html><a href=\"/x\">y</a><img src='http://here/z' usemap=#m><!-- <a href=/c> --></html>",
        b"<script>if (a < b) { c(\"</p>\") }</script><a href=/d",
        b"http://here/a?b#c",
        b"//here/x",
    ],
};
