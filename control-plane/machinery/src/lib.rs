//! What is done to objects in transit: decoding, patches, server-side apply, tables, OpenAPI, discovery. Pure.
//!
//! Everything is driven by one table of the API's messages ([`schema`]). Objects are `serde_json::Value`.
//! Nothing here panics on hostile input: depth and size are bounded where bytes come in ([`codec`]).

pub mod apply;
pub mod codec;
pub mod discovery;
pub mod error;
pub mod kind;
pub mod openapi;
pub mod patch;
pub mod schema;
pub mod table;

pub use error::{Error, Result};
