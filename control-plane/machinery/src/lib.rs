//! What is done to objects in transit: decoding, defaulting, patches, server-side apply, tables, OpenAPI. Pure.
