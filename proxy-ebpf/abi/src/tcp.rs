//! The flags of a TCP header.

/// No more data.
pub const FIN: u8 = 0x01;
/// A connection's first packet each way.
pub const SYN: u8 = 0x02;
/// The connection is dead.
pub const RST: u8 = 0x04;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;
