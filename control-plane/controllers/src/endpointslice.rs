//! EndpointSlices of Services: from the pods a Service selects, and, for Services without selector, from
//! hand-made Endpoints (mirroring). `desired` says which endpoints there should be, `slices` packs them
//! with as few writes as possible.

mod desired;
mod mirror;
mod slices;

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::expectations::Expectations;
use crate::owners::controller_ref;
use crate::sources::{Sources, by_service};
use crate::work::{Key, enqueue_for, enqueue_self};
pub(crate) use desired::{Family, serves, target_port};
pub(crate) use mirror::Mirror;
use slices::{Changes, Group, Header};

/// Label: the Service of a slice.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label: who writes a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label: the Service has no cluster IP.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const WORKERS: usize = 5;

/// The controller for Services with a selector.
pub(crate) struct Slices {
    services: Store<Service>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    queue: WorkQueue<Key>,
    writer: Writer,
}

/// Writes the slices of one manager.
struct Writer {
    client: Client,
    slices: Store<EndpointSlice>,
    expectations: Expectations,
    manager: &'static str,
}

impl Writer {
    fn new(client: &Client, slices: Store<EndpointSlice>, manager: &'static str) -> Self {
        Self { client: client.clone(), slices, expectations: Expectations::default(), manager }
    }

    fn ours(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.slices.indexed(&by_service(&key.namespace, &key.name));
        slices.retain(|s| managed_by(&s.metadata) == Some(self.manager));
        slices
    }

    /// Brings the slices of a Service to these groups of endpoints.
    async fn write(&self, key: &Key, header: &Header, groups: Vec<Group>) -> Result<Next, Error> {
        let owner = header.owner.uid.clone();
        if !self.expectations.met(&owner, &self.slices) {
            return Ok(Next::After(std::time::Duration::from_millis(50)));
        }
        let changes = slices::plan(header, groups, &self.ours(key));
        self.apply(key, &owner, changes).await?;
        Ok(Next::Wait)
    }

    /// Deletes the slices of a Service that is gone or no longer ours.
    async fn clear(&self, key: &Key) -> Result<Next, Error> {
        let changes = Changes { delete: self.ours(key), ..Changes::default() };
        self.apply(key, "", changes).await?;
        Ok(Next::Wait)
    }

    async fn apply(&self, key: &Key, owner: &str, changes: Changes) -> Result<(), Error> {
        let api = self.client.namespaced::<EndpointSlice>(&key.namespace);
        let create = join_all(changes.create.iter().map(|slice| api.create(slice)));
        let update = join_all(
            changes
                .update
                .iter()
                .map(|slice| api.replace(slice.metadata.name.as_deref().unwrap_or_default(), slice)),
        );
        let (created, updated) = futures::join!(create, update);
        let mut failed = None;
        for result in created.into_iter().chain(updated) {
            match result {
                Ok(slice) => self.expectations.created(owner, &slice),
                Err(e) if e.is_namespace_terminating() => return Ok(()),
                Err(e) => failed = Some(e),
            }
        }
        // New addresses are in before old ones go.
        if let Some(error) = failed {
            return Err(error);
        }
        for slice in &changes.delete {
            let params = DeleteParams::uid(slice.metadata.uid.clone().unwrap_or_default());
            match api.delete(slice.metadata.name.as_deref().unwrap_or_default(), &params).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => self.expectations.deleted(owner, &**slice),
            }
        }
        Ok(())
    }
}

fn managed_by(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(MANAGED_BY).map(String::as_str)
}

/// The Service a slice belongs to, when this manager writes it.
fn service_of(slice: &EndpointSlice, manager: &str) -> Option<Key> {
    if managed_by(&slice.metadata) != Some(manager) {
        return None;
    }
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name))
}

impl Slices {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.services, &queue);
        enqueue_for(&mut sources.slices, &queue, |slice| service_of(slice, MANAGER).into_iter().collect());
        let services = sources.services.store();
        let wake = queue.clone();
        let known = services.clone();
        sources.pods.add_callback(move |old, new| {
            if let (Some(old), Some(new)) = (old, new)
                && desired::same_for_services(old, new)
            {
                return;
            }
            for pod in old.into_iter().chain(new) {
                for key in desired::services_of(pod, &known) {
                    wake.add(key);
                }
            }
        });
        // Zones come from nodes: a change of one touches every Service with pods there, so all.
        let (wake, known) = (queue.clone(), services.clone());
        sources.nodes.add_callback(move |old, new| {
            let zone = |node: Option<&Arc<Node>>| node.and_then(|n| desired::zone(n).map(str::to_owned));
            if old.is_some() && new.is_some() && zone(old) != zone(new) {
                known.list().iter().for_each(|s| wake.add(Key::of(&s.metadata)));
            }
        });
        Self {
            services,
            pods: sources.pods.store(),
            nodes: sources.nodes.store(),
            queue,
            writer: Writer::new(client, sources.slices.store(), MANAGER),
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("endpointslice", &self.queue, WORKERS, cancel, |k| self.sync(k)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let service = self.services.get(&key.namespace, &key.name);
        let Some(service) = service.filter(|s| desired::has_endpoints(s)) else {
            return self.writer.clear(&key).await;
        };
        let pods = self.pods.list_namespace(&key.namespace);
        let node = |name: &str| self.nodes.get("", name);
        let groups = desired::groups(&service, &pods, node);
        self.writer.write(&key, &header(&service, MANAGER), groups).await
    }
}

/// What all slices of a Service have in common.
fn header(service: &Service, manager: &str) -> Header {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| !matches!(key.as_str(), SERVICE_NAME | MANAGED_BY | HEADLESS));
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), manager.into());
    Header {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        prefix: service.metadata.name.clone().unwrap_or_default(),
        labels,
        owner: controller_ref(service),
    }
}
