//! Where changes come from: the informers, and the services that each of their changes concerns; and the host ports
//! of pods, of which the node agent tells.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use skep_client::{Client, Informer, ListParams, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ProxyConfig;
use super::dirty::Dirty;
use crate::host_ports::HostPorts;
use crate::objects::{ServiceView, SliceView};

/// Slices of headless services have nothing to balance.
const NOT_HEADLESS: &str = "!service.kubernetes.io/headless";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The informers' stores.
pub(super) struct Sources {
    pub(super) services: Store<ServiceView>,
    pub(super) slices: Store<SliceView>,
    pub(super) nodes: Store<Node>,
    host_ports: watch::Receiver<Option<Arc<HostPorts>>>,
    pub(super) dirty: Arc<Dirty>,
}

impl Sources {
    pub(super) fn start(
        client: &Client,
        config: &ProxyConfig,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        let dirty = Arc::new(Dirty::default());
        let (on_service, on_slice, on_node) = (Arc::clone(&dirty), Arc::clone(&dirty), Arc::clone(&dirty));
        let (service_metrics, slice_metrics) = (config.metrics.clone(), config.metrics.clone());
        let services = Informer::new(client.all::<Service>(), ListParams::default())
            .project(|service| ServiceView::of(&service))
            .on_change(move |old, new| {
                if let Some(service) = new.or(old) {
                    service_metrics.service_changes.inc();
                    service_metrics.service_changes_pending.inc();
                    service_metrics.queued_now();
                    on_service.add(service.name.clone(), None);
                }
            })
            .spawn(tracker, cancel.clone());
        let node = config.node_name.clone();
        let slices = Informer::new(client.all::<EndpointSlice>(), ListParams::labels(NOT_HEADLESS))
            .project(move |slice| SliceView::of(&slice, &node))
            .index_by(|slice| slice.service().map(|name| name.to_string()).into_iter().collect())
            .on_change(move |old, new| {
                // Both: a slice may be given to another service.
                for slice in old.into_iter().chain(new) {
                    if let Some(name) = slice.service() {
                        slice_metrics.endpoint_changes.inc();
                        slice_metrics.endpoint_changes_pending.inc();
                        slice_metrics.queued_now();
                        on_slice.add(name, new.and_then(|slice| slice.trigger));
                    }
                }
            })
            .spawn(tracker, cancel.clone());
        let own = ListParams::fields(format!("metadata.name={}", config.node_name));
        let nodes = Informer::new(client.all::<Node>(), own)
            .on_change(move |old, new| {
                if zone(old.map(AsRef::as_ref)) != zone(new.map(AsRef::as_ref)) {
                    on_node.add_all();
                }
            })
            .spawn(tracker, cancel.clone());
        let (host_ports, changed) = (config.host_ports.clone(), Arc::clone(&dirty));
        tracker.spawn(cancel.clone().run_until_cancelled_owned(follow(host_ports.clone(), changed)));
        Self { services, slices, nodes, host_ports, dirty }
    }

    pub(super) async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.nodes.synced().await;
        // An agent that ends without a word leaves the tables as they are.
        if self.host_ports.clone().wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The pods with host ports; none before they are known.
    pub(super) fn bound(&self) -> Arc<HostPorts> {
        self.host_ports.borrow().clone().unwrap_or_default()
    }
}

/// Notes pods whose host ports change.
async fn follow(mut host_ports: watch::Receiver<Option<Arc<HostPorts>>>, dirty: Arc<Dirty>) {
    let mut before = Arc::<HostPorts>::default();
    loop {
        let now = host_ports.borrow_and_update().clone().unwrap_or_default();
        now.changed(&before).for_each(|name| dirty.add(name.clone(), None));
        before = now;
        if host_ports.changed().await.is_err() {
            return;
        }
    }
}

/// The node's zone.
pub(super) fn zone(node: Option<&Node>) -> Option<String> {
    node?.metadata.labels.as_ref()?.get(ZONE_LABEL).cloned()
}
