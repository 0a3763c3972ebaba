//! One generic store, one strategy per kind, and the watch cache.
