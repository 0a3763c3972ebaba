//! The tc programs on crafted packets.
