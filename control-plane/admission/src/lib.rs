//! The admission chain and its built-in plug-ins.
