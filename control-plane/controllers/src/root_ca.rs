//! Publishes the cluster's certificate authority to every namespace, for pods to trust the API server.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skep_client::reconcile::Next;
use skep_client::{Client, Error, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::namespace::is_alive;
use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};

/// The ConfigMap.
pub(crate) const NAME: &str = "kube-root-ca.crt";
const DATA: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "The certificate authority of the API server, for clients that reach it by its in-cluster addresses.",
);

/// The controller. Keys are namespaces.
pub(crate) struct RootCas {
    client: Client,
    pem: String,
    namespaces: Store<Namespace>,
    maps: Store<ConfigMap>,
    queue: WorkQueue<Key>,
}

impl RootCas {
    pub(crate) fn new(client: &Client, pem: &str, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.namespaces, &queue);
        enqueue_for(&mut sources.root_cas, &queue, |map| {
            map.metadata.namespace.as_deref().map(|n| Key::new("", n)).into_iter().collect()
        });
        Self {
            client: client.clone(),
            pem: pem.to_owned(),
            namespaces: sources.namespaces.store(),
            maps: sources.root_cas.store(),
            queue,
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("root-ca", &self.queue, 2, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        if !self.namespaces.get("", &key.name).is_some_and(|n| is_alive(&n)) {
            return Ok(Next::Wait);
        }
        let data = BTreeMap::from([(DATA.to_owned(), self.pem.clone())]);
        let api = self.client.namespaced::<ConfigMap>(&key.name);
        let result = match self.maps.get(&key.name, NAME) {
            Some(map) if map.data.as_ref() == Some(&data) => return Ok(Next::Wait),
            Some(map) => {
                let mut map = ConfigMap::clone(&map);
                map.data = Some(data);
                api.replace(NAME, &map).await
            }
            None => {
                let (about, text) = DESCRIPTION;
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(NAME.into()),
                        namespace: Some(key.name.clone()),
                        annotations: Some(BTreeMap::from([(about.to_owned(), text.to_owned())])),
                        ..ObjectMeta::default()
                    },
                    data: Some(data),
                    ..ConfigMap::default()
                };
                api.create(&map).await
            }
        };
        match result {
            Err(e) if !e.is_already_exists() && !e.is_namespace_terminating() => Err(e),
            _ => Ok(Next::Wait),
        }
    }
}
