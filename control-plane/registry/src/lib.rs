//! One generic store, one strategy per kind, and the watch cache.

pub mod kinds;
pub mod strategy;
