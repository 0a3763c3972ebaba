//! Services as calls out of the server find them: in the caches, without asking the store.

use std::net::SocketAddr;

use async_trait::async_trait;
use skep_admission::Reader;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_webhook::{Destination, Error, ServiceResolver, destination};

use super::ClusterReader;

#[async_trait]
impl ServiceResolver for ClusterReader {
    async fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let failed = |error: skep_api::error::ApiError| Error::Resolve(error.message);
        let services = GroupVersionResource::new("", "v1", "services");
        let service = self.get(&services, Some(namespace), name).await.map_err(failed)?;
        let service = service.ok_or_else(|| Error::Resolve(format!("service {name:?} not found")))?;
        let slices = GroupVersionResource::new("discovery.k8s.io", "v1", "endpointslices");
        let slices = self.cached_in(&slices, namespace);
        let own = slices
            .iter()
            .filter(|slice| slice.label("kubernetes.io/service-name") == Some(name))
            .map(|slice| &**slice);
        match destination(&service, own, port)? {
            Destination::Addresses(addresses) => Ok(addresses),
            Destination::Name(host, port) => {
                let missing = || Error::Resolve(format!("dial tcp: lookup {host}: no such host"));
                let found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(|_| missing())?;
                let found: Vec<SocketAddr> = found.collect();
                if found.is_empty() { Err(missing()) } else { Ok(found) }
            }
        }
    }
}
