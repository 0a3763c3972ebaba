//! Quotas as admission charges them: their status, written by compare-and-swap past admission itself.

use async_trait::async_trait;
use serde_json::Value;
use skep_admission::plugins::resource_quota::Ledger;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::commit::{self, Committed};
use super::{ClusterReader, meta};

#[async_trait]
impl Ledger for ClusterReader {
    async fn charge(&self, quota: &Value) -> Result<bool, ApiError> {
        let resource = self.resource(&GroupVersionResource::new("", "v1", "resourcequotas"))?;
        let revision = meta::sent_revision(quota)?;
        if revision == 0 {
            // Zero would mean to create it.
            return Ok(false);
        }
        let key = resource.key(quota.namespace(), quota.name());
        let put = commit::Write::Put(resource.encode(quota).await?);
        let done = commit::commit(self.freshness.storage(), &key, revision, put, None).await?;
        Ok(matches!(done, Committed::Yes(_)))
    }
}
