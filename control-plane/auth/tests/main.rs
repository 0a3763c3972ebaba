//! Authentication and authorization end to end: certificates, tokens, the chain, nodes, roles.

mod authorizers;
mod pki;
mod tokens;
