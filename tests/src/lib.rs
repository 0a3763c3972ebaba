//! Boxes, clusters and clients for the tests and benchmarks.
