//! HTTP: negotiation, discovery, watches, tables and streams over the registry.
