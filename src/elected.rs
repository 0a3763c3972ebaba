//! A part of the control plane that runs in one server at a time: whoever holds its lease.

use skep_client::Client;
use skep_client::leader::{self, LeaderConfig};
use tokio_util::sync::CancellationToken;

/// Runs `work` whenever this server leads, until cancelled. The token given to it is cancelled when the
/// lease is lost; then this server is a candidate again.
pub(crate) async fn run<F: Future<Output = ()>>(
    lease: &'static str,
    client: Client,
    cancel: CancellationToken,
    mut work: impl FnMut(Client, CancellationToken) -> F,
) {
    let host = crate::host::name().unwrap_or_else(|_| "server".to_owned());
    let identity = format!("{host}_{}_{}", std::process::id(), jitter());
    let config = LeaderConfig::new("kube-system", lease, identity);
    while !cancel.is_cancelled() {
        leader::run(&client, &config, &cancel, |leading| work(client.clone(), leading)).await;
    }
}

/// Tells apart processes of the same number on machines of the same name.
fn jitter() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().subsec_nanos()
}
