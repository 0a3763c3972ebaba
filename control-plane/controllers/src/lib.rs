//! The controllers: pure plans over snapshots, applied through the API.
