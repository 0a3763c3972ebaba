//! Layers to snapshots: prepare on the parent, apply the diff, verify, commit under the chain id.

use std::collections::HashMap;

use containerd_client::{
    services::v1::{
        ApplyRequest,
        snapshots::{
            CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
        },
    },
    tonic::metadata::AsciiMetadataValue,
    types,
};

use super::{
    content,
    manifest::{Descriptor, chain_ids},
};
use crate::{
    Error, Result, labels,
    rpc::{Named, Rpc, SNAPSHOTTER, existing_is_fine, optional},
};

/// Unpacks what is not unpacked yet; the name of the topmost snapshot.
pub(crate) async fn unpack(
    rpc: &Rpc,
    lease: &AsciiMetadataValue,
    image: &str,
    layers: &[Descriptor],
    diff_ids: &[String],
) -> Result<String> {
    let bad = |message: String| Error::BadImage { image: image.to_owned(), message };
    if layers.len() != diff_ids.len() {
        return Err(bad(format!("{} layers but {} diff ids", layers.len(), diff_ids.len())));
    }
    let chain = chain_ids(diff_ids);
    let mut parent = String::new();
    for ((layer, diff_id), name) in layers.iter().zip(diff_ids).zip(&chain) {
        if !committed(rpc, name).await? {
            let key = format!("extract-{}-{name}", uuid_like());
            let result = apply(rpc, lease, layer, diff_id, &key, &parent, name).await;
            if let Err(error) = result {
                let request = rpc
                    .request(RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.clone() });
                if let Err(cleanup) = optional(rpc.snapshots().remove(request).await.named("snapshot remove"))
                {
                    tracing::warn!(error = %cleanup, key, "leftover snapshot");
                }
                return Err(error);
            }
        }
        content::label(
            rpc,
            &layer.digest,
            HashMap::from([(labels::UNCOMPRESSED.to_owned(), diff_id.clone())]),
        )
        .await?;
        parent.clone_from(name);
    }
    Ok(parent)
}

async fn apply(
    rpc: &Rpc,
    lease: &AsciiMetadataValue,
    layer: &Descriptor,
    diff_id: &str,
    key: &str,
    parent: &str,
    name: &str,
) -> Result<()> {
    let prepare = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        labels: HashMap::new(),
    };
    let mounts = rpc.snapshots().prepare(rpc.leased(prepare, lease)).await.named("snapshot prepare")?.mounts;
    let descriptor = types::Descriptor {
        media_type: layer.media_type.clone(),
        digest: layer.digest.clone(),
        size: layer.size,
        annotations: HashMap::new(),
    };
    let request = ApplyRequest { diff: Some(descriptor), mounts, ..Default::default() };
    let applied = rpc.diff().apply(rpc.leased(request, lease)).await.named("diff apply")?.applied;
    let digest = applied.map(|d| d.digest).unwrap_or_default();
    if digest != diff_id {
        return Err(Error::BadImage {
            image: layer.digest.clone(),
            message: format!("layer unpacks to {digest}, its configuration says {diff_id}"),
        });
    }
    let commit = CommitSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
        labels: HashMap::new(),
    };
    // Another pull may have committed the same layer meanwhile.
    let result = rpc.snapshots().commit(rpc.leased(commit, lease)).await.named("snapshot commit");
    let lost = result.as_ref().is_err_and(Error::is_already_exists);
    existing_is_fine(result)?;
    if lost {
        let request =
            rpc.request(RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() });
        optional(rpc.snapshots().remove(request).await.named("snapshot remove"))?;
    }
    Ok(())
}

pub(crate) async fn committed(rpc: &Rpc, name: &str) -> Result<bool> {
    let request =
        rpc.request(StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: name.to_owned() });
    Ok(optional(rpc.snapshots().stat(request).await.named("snapshot stat"))?.is_some())
}

/// Two pulls of one layer must not share a key.
fn uuid_like() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let nanos =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{nanos:x}-{}", COUNTER.fetch_add(1, Ordering::Relaxed))
}
