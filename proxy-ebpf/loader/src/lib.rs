//! Loads, pins, attaches and upgrades the eBPF programs; typed maps.
