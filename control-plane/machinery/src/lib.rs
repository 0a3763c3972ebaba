//! What is done to objects in transit: decoding, patches, server-side apply, tables, OpenAPI, discovery. Pure.
//!
//! Everything is driven by one table of the API's messages ([`schema`]). Objects are `serde_json::Value`.
//! Nothing here panics on hostile input: depth and size are bounded where bytes come in ([`codec`]).

pub mod codec;
pub mod error;
pub mod schema;

pub use error::{Error, Result};
