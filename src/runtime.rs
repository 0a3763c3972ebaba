//! Runs a command's future until it ends or is told to stop by SIGINT or SIGTERM.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs `work` on a new runtime. The token is cancelled by the first signal; a second one ends the
/// process at once.
pub(crate) fn run<F: Future<Output = Result<()>>>(work: impl FnOnce(CancellationToken) -> F) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let cancel = CancellationToken::new();
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let stop = cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stop.cancel();
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            eprintln!("skep: told twice to stop, ending at once");
            std::process::exit(130);
        });
        work(cancel).await
    })
}
