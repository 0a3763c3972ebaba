//! Admission webhooks: MutatingAdmissionWebhook and ValidatingAdmissionWebhook.
//!
//! The configurations are read from the cache and compiled once per change (`hooks`); a review is built
//! and an answer judged by pure functions (`review`); `call` joins them with the network. Mutating
//! webhooks are called one after the other, each seeing what those before it did; validating ones all at
//! once. The objects that configure admission are never sent to a webhook, so that a broken one can be
//! removed.

mod call;
mod hooks;
mod metrics;
mod mutating;
mod review;
mod validating;

pub use metrics::Metrics;
pub use mutating::MutatingAdmissionWebhook;
pub use validating::ValidatingAdmissionWebhook;
