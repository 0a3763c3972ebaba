//! Mirrors hand-made Endpoints of Services without selector into EndpointSlices.

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use skep_client::reconcile::Next;
use skep_client::{Client, Error, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use super::desired::Family;
use super::slices::Group;
use super::{Writer, header, service_of};
use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that only elect a leader are no endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses mirrored of one subset.
const MAX_PER_SUBSET: usize = 1_000;

/// The controller.
pub(crate) struct Mirror {
    services: Store<Service>,
    endpoints: Store<Endpoints>,
    queue: WorkQueue<Key>,
    writer: Writer,
}

impl Mirror {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.services, &queue);
        enqueue_self(&mut sources.endpoints, &queue);
        enqueue_for(&mut sources.slices, &queue, |slice| service_of(slice, MANAGER).into_iter().collect());
        Self {
            services: sources.services.store(),
            endpoints: sources.endpoints.store(),
            queue,
            writer: Writer::new(client, sources.slices.store(), MANAGER),
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("endpointslicemirroring", &self.queue, 2, cancel, |k| self.sync(k)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let service = self.services.get(&key.namespace, &key.name).filter(|s| is_selectorless(s));
        let endpoints = self.endpoints.get(&key.namespace, &key.name).filter(|e| is_mirrored(e));
        let (Some(service), Some(endpoints)) = (service, endpoints) else {
            return self.writer.clear(&key).await;
        };
        let mut header = header(&service, MANAGER);
        header.owner = crate::owners::controller_ref(&*endpoints);
        self.writer.write(&key, &header, groups(&endpoints)).await
    }
}

fn is_selectorless(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.selector.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
        && spec.type_.as_deref() != Some("ExternalName")
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    meta.labels.as_ref().and_then(|l| l.get(SKIP)).map(String::as_str) != Some("true")
        && !meta.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER))
}

fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|p| EndpointPort {
                name: Some(p.name.clone().unwrap_or_default()),
                port: Some(p.port),
                protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: p.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let all = ready.chain(subset.not_ready_addresses.iter().flatten().map(|a| (a, false)));
        let all: Vec<_> = all.take(MAX_PER_SUBSET).collect();
        for family in [Family::V4, Family::V6] {
            let here = all.iter().filter(|(a, _)| family.has(&a.ip));
            let list: Vec<Endpoint> = here.map(|(address, ready)| endpoint(address, *ready)).collect();
            if list.is_empty() {
                continue;
            }
            let same = groups.iter_mut().find(|g: &&mut Group| g.family == family && g.ports == ports);
            match same {
                Some(group) => group.endpoints.extend(list),
                None => groups.push(Group { family, ports: ports.clone(), endpoints: list }),
            }
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
