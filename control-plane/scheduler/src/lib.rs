//! Binds pods to nodes: queue, snapshot, filters, scores.
