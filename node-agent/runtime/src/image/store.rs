//! The images that are there: get, list, remove.

use containerd_client::services::v1::{DeleteImageRequest, GetImageRequest, ListImagesRequest};

use super::{
    Image, content,
    manifest::{ConfigDocument, Document, chain_ids},
    unpack,
};
use crate::{
    Error, Reference, Result,
    rpc::{Named, Rpc, optional},
};

/// The image under exactly this reference, if it is there and complete.
pub(crate) async fn get(rpc: &Rpc, reference: &Reference) -> Result<Option<Image>> {
    let name = reference.to_string();
    let request = rpc.request(GetImageRequest { name: name.clone() });
    let answer = optional(rpc.images().get(request).await.named("image get"))?;
    let Some(target) = answer.and_then(|a| a.image).and_then(|i| i.target) else { return Ok(None) };
    match describe(rpc, &name, &target.digest).await {
        // Content without its blobs (an interrupted removal) is no image: it is pulled again.
        Err(error) if error.is_not_found() => Ok(None),
        other => other,
    }
}

/// Reads manifest and configuration of a stored image; `None` when a layer is not unpacked.
pub(crate) async fn describe(rpc: &Rpc, name: &str, target: &str) -> Result<Option<Image>> {
    let mut bytes = content::read(rpc, target).await?;
    let mut document = Document::parse(name, &bytes)?;
    if let Some(selected) = document.select(name)?.cloned() {
        bytes = content::read(rpc, &selected.digest).await?;
        document = Document::parse(name, &bytes)?;
    }
    let bad = |message: &str| Error::BadImage { image: name.to_owned(), message: message.to_owned() };
    let config = document.config.as_ref().ok_or_else(|| bad("manifest without a configuration"))?;
    let raw = content::read(rpc, &config.digest).await?;
    let parsed: ConfigDocument = serde_json::from_slice(&raw).map_err(|_| bad("malformed configuration"))?;
    let chain_id = chain_ids(&parsed.rootfs.diff_ids).pop().unwrap_or_default();
    if !chain_id.is_empty() && !unpack::committed(rpc, &chain_id).await? {
        return Ok(None);
    }
    let blobs: i64 = document.layers.iter().map(|l| l.size).sum::<i64>() + config.size;
    Ok(Some(Image {
        name: name.to_owned(),
        digest: target.to_owned(),
        id: config.digest.clone(),
        chain_id,
        size: u64::try_from(blobs).unwrap_or(0) + bytes.len() as u64,
        config: parsed.config.unwrap_or_default(),
    }))
}

/// Names and digests of all stored images.
pub(crate) async fn names(rpc: &Rpc) -> Result<Vec<(String, String)>> {
    let request = rpc.request(ListImagesRequest { filters: Vec::new() });
    let images = rpc.images().list(request).await.named("image list")?.images;
    Ok(images.into_iter().map(|i| (i.name, i.target.map(|t| t.digest).unwrap_or_default())).collect())
}

/// All complete images.
pub(crate) async fn list(rpc: &Rpc) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for (name, target) in names(rpc).await? {
        match describe(rpc, &name, &target).await {
            Ok(image) => images.extend(image),
            Err(error) => tracing::warn!(image = name, %error, "stored image cannot be read"),
        }
    }
    Ok(images)
}

/// Removes a name; containerd collects what nothing refers to any more.
pub(crate) async fn remove(rpc: &Rpc, name: &str) -> Result<()> {
    let request = rpc.request(DeleteImageRequest { name: name.to_owned(), sync: true, target: None });
    optional(rpc.images().delete(request).await.named("image delete")).map(drop)
}
