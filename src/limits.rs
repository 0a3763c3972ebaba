//! Options of the server under load: how much at once, how long, and who waits for whom.

use std::time::Duration;

use clap::{ArgAction, Args};
use skep_apiserver::Config;

/// How much the server takes on.
#[derive(Args, Clone, Debug)]
pub(crate) struct Limits {
    /// Requests that read, at the same time.
    #[arg(long, default_value_t = 400, value_name = "N")]
    pub(crate) max_requests_inflight: usize,
    /// Requests that write, at the same time. With priority and fairness both numbers together are the
    /// seats that its levels share.
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub(crate) max_mutating_requests_inflight: usize,
    /// FlowSchemas and priority levels decide which request waits for which.
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) enable_priority_and_fairness: bool,
    /// A request that is no watch and no stream must be done by then.
    #[arg(long, default_value = "1m0s", value_parser = duration, value_name = "DURATION")]
    pub(crate) request_timeout: Duration,
    /// When told to end, the server is not ready for so long before it stops to take connections.
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "DURATION")]
    pub(crate) shutdown_delay_duration: Duration,
    /// While it ends, the server tells new requests to come again later.
    #[arg(long)]
    pub(crate) shutdown_send_retry_after: bool,
    /// The part (0 to 0.02) of HTTP/2 requests whose client is told to connect anew, which spreads clients
    /// over several servers.
    #[arg(long, default_value_t = 0.0, value_parser = chance, value_name = "PART")]
    pub(crate) goaway_chance: f64,
}

/// Reads a small part.
fn chance(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|_| "a number like 0.001".to_owned())?;
    if (0.0..=0.02).contains(&part) { Ok(part) } else { Err("between 0 and 0.02".to_owned()) }
}

/// Reads `90s`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    skep_api::duration::parse(text).ok_or_else(|| "a duration is written like 90s or 1m30s".to_owned())
}

impl Limits {
    /// Puts the options into a server's configuration.
    pub(crate) fn apply(&self, config: &mut Config) {
        config.max_reads = self.max_requests_inflight;
        config.max_writes = self.max_mutating_requests_inflight;
        config.priority_and_fairness = self.enable_priority_and_fairness;
        config.request_timeout = self.request_timeout;
        config.shutdown_delay = self.shutdown_delay_duration;
        config.shutdown_retry_after = self.shutdown_send_retry_after;
        config.goaway_chance = self.goaway_chance;
    }
}
