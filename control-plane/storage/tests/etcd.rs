//! The etcd engine on a real etcd that the test starts on loopback, and removes afterwards.

use std::sync::Arc;

use async_trait::async_trait;
use skep_storage::{Etcd, Storage};

use crate::conformance::{self, Factory, PATIENCE, commit, get, put};
use crate::etcd_process::{Cluster, config, connect};

struct OnEtcd(Cluster);

#[async_trait]
impl Factory for OnEtcd {
    async fn open(&self) -> Arc<dyn Storage> {
        connect(self.0.config("/skep-test")).await
    }

    async fn restart(&self, store: Arc<dyn Storage>) -> Arc<dyn Storage> {
        self.0.restart();
        // The same handle must find its way back.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Err(error) = store.current_revision().await {
            assert!(tokio::time::Instant::now() < deadline, "the handle does not come back: {error}");
        }
        store
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_conforms() {
    let Some(cluster) = Cluster::start(1) else { return };
    conformance::run(&OnEtcd(cluster)).await;
}

#[tokio::test]
async fn stores_of_two_prefixes_do_not_meet() {
    let Some(cluster) = Cluster::start(1) else { return };
    let left = connect(cluster.config("/left")).await;
    let right = connect(cluster.config("/right")).await;
    commit(&*left, vec![put("/registry/a", "left")]).await;
    assert!(get(&*right, "/registry/a").await.is_none());
    commit(&*right, vec![put("/registry/a", "right")]).await;
    assert_eq!(get(&*left, "/registry/a").await.map(|kv| kv.value), Some("left".into()));
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("has an address").port();
    drop(listener);
    let connected = Etcd::connect(config(&[port], "")).await;
    assert!(matches!(connected, Err(skep_storage::Error::Unavailable(_))), "{:?}", connected.err());
}
