//! The cluster as the API server knows it, for questions.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use skep_api::resource::GroupVersionResource;
use skep_client::{Client, ListParams};

use crate::brief::PodBrief;
use crate::explain::Cluster;
use crate::model::{ClusterDns, ObjectName};
use crate::read;

impl Cluster {
    /// Asks the API server.
    ///
    /// # Errors
    /// When it does not answer, or the client may not list what is needed.
    pub async fn load(client: &Client, dns_port: u16) -> skep_client::Result<Self> {
        let all = ListParams::default();
        let policies = client.all::<NetworkPolicy>().list(&all).await?.items;
        let namespaces = client.all::<Namespace>().list(&all).await?.items;
        let nodes = client.all::<Node>().list(&all).await?.items;
        let pods = client.resource::<PodBrief>(GroupVersionResource::new("", "v1", "pods"), None);
        let pods = pods.list(&all).await?.items;
        let addresses = |node: &Node| -> Vec<IpAddr> {
            let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
            listed.filter_map(|address| address.address.parse().ok()).collect()
        };
        let mut cluster = Self { dns: ClusterDns { port: dns_port }, ..Self::default() };
        cluster.nodes = nodes.iter().flat_map(&addresses).collect();
        cluster.namespaces = namespaces.iter().map(read::namespace).collect();
        let policy =
            |object: &NetworkPolicy| Arc::new(read::policy(object).unwrap_or_else(|_| read::closed(object)));
        cluster.policies = policies.iter().map(policy).collect();
        for object in &pods {
            let Some(pod) = read::pod(object) else { continue };
            let name = ObjectName {
                namespace: object.metadata.namespace.clone().unwrap_or_default(),
                name: object.metadata.name.clone().unwrap_or_default(),
            };
            let own = nodes.iter().find(|node| node.metadata.name == object.spec.node_name);
            cluster.own_nodes.insert(name.clone(), own.map(&addresses).unwrap_or_default());
            cluster.pods.insert(name, pod);
        }
        Ok(cluster)
    }
}
