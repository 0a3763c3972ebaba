//! The older Endpoints object beside the slices: one per Service, first address family only.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::endpointslice::{Family, HEADLESS, serves, target_port};
use crate::pods;
use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};

/// More addresses are cut off, and an annotation says so.
const MAX_ADDRESSES: usize = 1_000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// The controller.
pub(crate) struct EndpointsController {
    client: Client,
    services: Store<Service>,
    pods: Store<Pod>,
    endpoints: Store<Endpoints>,
    queue: WorkQueue<Key>,
}

impl EndpointsController {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.services, &queue);
        enqueue_self(&mut sources.endpoints, &queue);
        let known = sources.services.store();
        enqueue_for(&mut sources.pods, &queue, move |pod: &Arc<Pod>| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let all = known.list_namespace(namespace);
            all.iter().filter(|s| serves(s, pod)).map(|s| Key::of(&s.metadata)).collect()
        });
        Self {
            client: client.clone(),
            services: sources.services.store(),
            pods: sources.pods.store(),
            endpoints: sources.endpoints.store(),
            queue,
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("endpoints", &self.queue, 5, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let api = self.client.namespaced::<Endpoints>(&key.namespace);
        let live = self.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            // Endpoints without a Service that somebody else made (leader election) are theirs.
            if let Some(live) = live.filter(|e| is_ours(e)) {
                let params = DeleteParams::uid(live.metadata.uid.clone().unwrap_or_default());
                match api.delete(&key.name, &params).await {
                    Err(e) if !e.is_not_found() && !e.is_conflict() => return Err(e),
                    _ => {}
                }
            }
            return Ok(Next::Wait);
        };
        let spec = service.spec.clone().unwrap_or_default();
        if spec.selector.is_none_or(|s| s.is_empty()) || spec.type_.as_deref() == Some("ExternalName") {
            return Ok(Next::Wait);
        }
        let wanted = wanted(&service, &self.pods.list_namespace(&key.namespace));
        let result = match live {
            Some(live) if is_same(&live, &wanted) => return Ok(Next::Wait),
            Some(live) => {
                let mut next = Endpoints::clone(&live);
                next.subsets = wanted.subsets;
                next.metadata.labels = wanted.metadata.labels;
                let annotations = next.metadata.annotations.get_or_insert_default();
                annotations.remove(OVER_CAPACITY);
                annotations.extend(wanted.metadata.annotations.unwrap_or_default());
                api.replace(&key.name, &next).await
            }
            None => api.create(&wanted).await,
        };
        match result {
            Err(e) if e.is_namespace_terminating() => Ok(Next::Wait),
            result => result.map(|_| Next::Wait),
        }
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|l| l.get(MANAGED_BY)).map(String::as_str) == Some(MANAGER)
}

fn is_same(live: &Endpoints, wanted: &Endpoints) -> bool {
    let over = |e: &Endpoints| e.metadata.annotations.as_ref().and_then(|a| a.get(OVER_CAPACITY)).cloned();
    live.subsets.as_deref().unwrap_or_default() == wanted.subsets.as_deref().unwrap_or_default()
        && live.metadata.labels == wanted.metadata.labels
        && over(live) == over(wanted)
}

/// The Endpoints a Service should have. Pure.
fn wanted(service: &Service, pods: &[Arc<Pod>]) -> Endpoints {
    let spec = service.spec.clone().unwrap_or_default();
    let unready_too = spec.publish_not_ready_addresses.unwrap_or(false);
    let family = Family::of(service)[0];
    let mut by_ports: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let mut left = MAX_ADDRESSES;
    let mut cut = false;
    let mut serving: Vec<&Arc<Pod>> = pods.iter().filter(|p| serves(service, p)).collect();
    serving.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for pod in serving {
        let leaving = pod.metadata.deletion_timestamp.is_some();
        if pods::is_finished(pod) || leaving && !unready_too {
            continue;
        }
        let Some(address) = address(service, pod, family) else { continue };
        if left == 0 {
            cut = true;
            break;
        }
        left -= 1;
        let ports: Vec<EndpointPort> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: port.name.clone().filter(|n| !n.is_empty()),
                    port: target_port(port, pod)?,
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        if ports.is_empty() && spec.ports.as_ref().is_some_and(|p| !p.is_empty()) {
            continue;
        }
        let id = format!("{ports:?}");
        let subset = by_ports.entry(id).or_default();
        subset.ports = (!ports.is_empty()).then_some(ports);
        if unready_too || pods::is_ready(pod) {
            subset.addresses.get_or_insert_default().push(address);
        } else {
            subset.not_ready_addresses.get_or_insert_default().push(address);
        }
    }
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let annotations = cut.then(|| BTreeMap::from([(OVER_CAPACITY.to_owned(), "truncated".to_owned())]));
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations,
            ..ObjectMeta::default()
        },
        subsets: (!by_ports.is_empty()).then(|| by_ports.into_values().collect()),
    }
}

fn address(service: &Service, pod: &Pod, family: Family) -> Option<EndpointAddress> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let ip = all.chain(status.pod_ip.as_deref()).find(|ip| family.has(ip))?.to_owned();
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    Some(EndpointAddress {
        ip,
        hostname: spec.hostname.clone().filter(|h| named && !h.is_empty()),
        node_name: pods::node_name(pod).map(str::to_owned),
        target_ref: Some(pods::reference(pod)),
    })
}
