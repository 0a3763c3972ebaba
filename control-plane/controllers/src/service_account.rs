//! Every namespace has the ServiceAccount `default`.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skep_client::reconcile::Next;
use skep_client::{Client, Error, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::namespace::is_alive;
use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};

const NAME: &str = "default";

/// The controller. Keys are namespaces.
pub(crate) struct ServiceAccounts {
    client: Client,
    namespaces: Store<Namespace>,
    accounts: Store<ServiceAccount>,
    queue: WorkQueue<Key>,
}

impl ServiceAccounts {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.namespaces, &queue);
        enqueue_for(&mut sources.service_accounts, &queue, |account| {
            let ours = account.metadata.name.as_deref() == Some(NAME);
            let namespace = account.metadata.namespace.as_deref().filter(|_| ours);
            namespace.map(|n| Key::new("", n)).into_iter().collect()
        });
        Self {
            client: client.clone(),
            namespaces: sources.namespaces.store(),
            accounts: sources.service_accounts.store(),
            queue,
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("serviceaccount", &self.queue, 2, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let alive = self.namespaces.get("", &key.name).is_some_and(|n| is_alive(&n));
        if !alive || self.accounts.get(&key.name, NAME).is_some() {
            return Ok(Next::Wait);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(key.name.clone()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match self.client.namespaced::<ServiceAccount>(&key.name).create(&account).await {
            Err(e) if !e.is_already_exists() && !e.is_namespace_terminating() => Err(e),
            _ => Ok(Next::Wait),
        }
    }
}
