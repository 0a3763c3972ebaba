//! The watcher: whoever deletes a route, a neighbour or an interface of ours sees it back within a second.
//!
//! Notifications only wake it; what to do comes from a look at the whole state, so a lost notification costs
//! at most [`PERIOD`].

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::MulticastGroup;
use tokio::{task::JoinSet, time};

use crate::{Error, Result, netns, plan::Strays, pod_network::Node};

/// The longest time between two passes.
const PERIOD: Duration = Duration::from_secs(5);
/// Changes come in bursts: wait a little so that a burst costs one pass.
const SETTLE: Duration = Duration::from_millis(50);
/// After a failed pass.
const BACK_OFF: Duration = Duration::from_millis(500);

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

/// Starts the watcher and the driver of its netlink socket in `tasks`.
pub(crate) async fn spawn(node: Arc<Node>, tasks: &mut JoinSet<()>) -> Result<()> {
    let runtime = tokio::runtime::Handle::current();
    let (driver, _handle, notices) = netns::inside(node.namespace(), move || {
        let _context = runtime.enter();
        rtnetlink::new_multicast_connection(&GROUPS)
    })
    .await?
    .map_err(|e| Error::namespace("watch", node.namespace().path(), e))?;
    tasks.spawn(driver);
    tasks.spawn(run(node, notices));
    Ok(())
}

async fn run<M>(node: Arc<Node>, mut notices: UnboundedReceiver<M>) {
    loop {
        // Both arms are cancel-safe: a notice lost here would only have woken us.
        tokio::select! {
            notice = notices.next() => {
                if notice.is_none() {
                    tracing::warn!("netlink notifications ended; looking at the network periodically only");
                    return periodically(&node).await;
                }
            }
            () = time::sleep(PERIOD) => {}
        }
        time::sleep(SETTLE).await;
        while notices.try_recv().is_ok() {}
        pass(&node).await;
    }
}

async fn periodically(node: &Node) {
    loop {
        time::sleep(BACK_OFF).await;
        pass(node).await;
    }
}

async fn pass(node: &Node) {
    if let Err(error) = node.repair(Strays::Keep).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "network repair failed; trying again");
        time::sleep(BACK_OFF).await;
    }
}
