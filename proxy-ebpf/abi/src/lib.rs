#![no_std]
//! What the eBPF programs and user space share: map keys and values. `no_std`.
