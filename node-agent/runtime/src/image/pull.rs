//! From a registry (or a layout on disk) to an image that can be run.
//!
//! Everything is written under a lease, so that garbage collection cannot take half of it, and the lease
//! is deleted only after the image has its name and its labels.

use std::collections::HashMap;

use bytes::Bytes;
use containerd_client::{
    services::v1::{
        CreateImageRequest, CreateRequest, DeleteRequest, Image as StoredImage, UpdateImageRequest,
    },
    tonic::metadata::AsciiMetadataValue,
    types,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use http_body_util::BodyExt as _;

use super::{
    Image, content,
    manifest::{ConfigDocument, Descriptor, Document, digest_of},
    registry::{RegistryClient, Session},
    store, unpack,
};
use crate::{
    Error, Keyring, Reference, Result, labels,
    rpc::{Named, Rpc, existing_is_fine, optional},
};

/// A layer larger than this is refused.
const MAX_BLOB: i64 = 64 << 30;
/// Layers fetched at once.
const PARALLEL: usize = 3;
const ATTEMPTS: u32 = 3;

/// Where blobs come from.
pub(crate) trait Source: Sync {
    /// The document that `target` (a tag or a digest) names.
    fn document(&self, target: &str) -> impl Future<Output = Result<(String, Bytes)>> + Send;
    /// A blob from `offset` on; the flag says whether the offset was honoured.
    fn blob(
        &self,
        digest: &str,
        offset: u64,
    ) -> impl Future<Output = Result<(impl Stream<Item = Result<Bytes>> + Unpin + Send, bool)>> + Send;
}

impl Source for Session<'_> {
    async fn document(&self, target: &str) -> Result<(String, Bytes)> {
        self.manifest(target).await
    }

    async fn blob(
        &self,
        digest: &str,
        offset: u64,
    ) -> Result<(impl Stream<Item = Result<Bytes>> + Unpin + Send, bool)> {
        let (body, partial) = Session::blob(self, digest, offset).await?;
        let digest = digest.to_owned();
        let stream = body
            .into_data_stream()
            .map_err(move |e| Error::BadImage { image: digest.clone(), message: e.to_string() });
        Ok((stream, partial))
    }
}

/// Pulls `reference`, trying mirrors first.
pub(crate) async fn pull(
    rpc: &Rpc,
    registries: &RegistryClient,
    reference: &Reference,
    keyring: &Keyring,
) -> Result<Image> {
    let mut last = Error::ImageNotFound(reference.to_string());
    for host in registries.hosts(&reference.host) {
        let session = registries.session(host.clone(), reference, keyring);
        match fetch(rpc, &session, reference).await {
            Ok(image) => return Ok(image),
            Err(error) => {
                tracing::debug!(%host, image = %reference, %error, "pull failed");
                last = error;
            }
        }
    }
    Err(last)
}

/// Brings an image from `source` into the store under the name `reference`.
pub(crate) async fn fetch(rpc: &Rpc, source: &impl Source, reference: &Reference) -> Result<Image> {
    let expire = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let request = rpc.request(CreateRequest {
        id: String::new(),
        labels: HashMap::from([(labels::GC_EXPIRE.to_owned(), expire.to_string())]),
    });
    // containerd wants an id: derive one from the moment, two pulls must not share it.
    let mut request = request;
    request.get_mut().id = format!("skep-pull-{}-{:x}", expire.as_nanosecond(), fastrand_like());
    let lease = rpc.leases().create(request).await.named("lease create")?.lease.unwrap_or_default();
    let header =
        AsciiMetadataValue::try_from(lease.id.as_str()).map_err(|e| Error::Invalid(e.to_string()))?;
    let result = fetch_leased(rpc, source, reference, &header).await;
    let request = rpc.request(DeleteRequest { id: lease.id, sync: true });
    if let Err(error) = optional(rpc.leases().delete(request).await.named("lease delete")) {
        // It expires by itself.
        tracing::warn!(%error, "lease stays until it expires");
    }
    result
}

fn fastrand_like() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let hash = std::collections::hash_map::RandomState::new().build_hasher().finish();
    u32::try_from(hash & 0xffff_ffff).unwrap_or(0)
}

async fn fetch_leased(
    rpc: &Rpc,
    source: &impl Source,
    reference: &Reference,
    lease: &AsciiMetadataValue,
) -> Result<Image> {
    let image = reference.to_string();
    let bad = |message: &str| Error::BadImage { image: image.clone(), message: message.to_owned() };
    let (media_type, bytes) = source.document(reference.target()).await?;
    let top = Document::parse(&image, &bytes)?;
    let top_descriptor = describe(&image, &media_type, &top, &bytes, reference.digest.as_deref())?;
    let (manifest_descriptor, manifest_bytes, manifest) = match top.select(&image)?.cloned() {
        Some(selected) => {
            let (_, bytes) = source.document(&selected.digest).await?;
            let manifest = Document::parse(&image, &bytes)?;
            let descriptor =
                describe(&image, &selected.media_type, &manifest, &bytes, Some(&selected.digest))?;
            (descriptor, bytes, Some(manifest))
        }
        None => (top_descriptor.clone(), bytes.clone(), None),
    };
    let nested = manifest.is_some();
    let manifest = manifest.unwrap_or(top);
    let config = manifest.config.clone().ok_or_else(|| bad("manifest without a configuration"))?;
    if config.size > i64::try_from(super::manifest::MAX_DOCUMENT).unwrap_or(i64::MAX) {
        return Err(bad("configuration too large"));
    }

    let mut downloads: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(manifest.layers.len() + 1);
    for descriptor in manifest.layers.iter().chain([&config]) {
        downloads.push(Box::pin(fetch_blob(rpc, source, lease, descriptor)));
    }
    stream::iter(downloads).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;

    let raw = content::read(rpc, &config.digest).await?;
    let parsed: ConfigDocument = serde_json::from_slice(&raw).map_err(|_| bad("malformed configuration"))?;
    let chain_id = unpack::unpack(rpc, lease, &image, &manifest.layers, &parsed.rootfs.diff_ids).await?;

    if !chain_id.is_empty() {
        let reference = HashMap::from([(labels::GC_REF_SNAPSHOT.to_owned(), chain_id)]);
        content::label(rpc, &config.digest, reference).await?;
    }
    let mut references =
        HashMap::from([(format!("{}.config", labels::GC_REF_CONTENT), config.digest.clone())]);
    for (index, layer) in manifest.layers.iter().enumerate() {
        references.insert(format!("{}.l.{index}", labels::GC_REF_CONTENT), layer.digest.clone());
    }
    put(rpc, lease, &manifest_descriptor, manifest_bytes, references).await?;
    if nested {
        let reference =
            HashMap::from([(format!("{}.m.0", labels::GC_REF_CONTENT), manifest_descriptor.digest.clone())]);
        put(rpc, lease, &top_descriptor, bytes, reference).await?;
    }
    name(rpc, lease, &image, &top_descriptor).await?;
    store::describe(rpc, &image, &top_descriptor.digest)
        .await?
        .ok_or_else(|| bad("layers vanished while pulling"))
}

/// Checks a document against the digest it was asked by and makes its descriptor.
fn describe(
    image: &str,
    media_type: &str,
    document: &Document,
    bytes: &Bytes,
    expected: Option<&str>,
) -> Result<Descriptor> {
    let digest = digest_of(bytes);
    if expected.is_some_and(|e| e != digest) {
        return Err(Error::BadImage {
            image: image.to_owned(),
            message: format!("digest mismatch: got {digest}"),
        });
    }
    let media_type = if document.media_type.is_empty() { media_type } else { &document.media_type };
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    Ok(Descriptor { media_type: media_type.to_owned(), digest, size, ..Descriptor::default() })
}

async fn put(
    rpc: &Rpc,
    lease: &AsciiMetadataValue,
    descriptor: &Descriptor,
    bytes: Bytes,
    references: HashMap<String, String>,
) -> Result<()> {
    if !content::exists(rpc, &descriptor.digest).await? {
        let body = stream::iter([Ok::<_, Error>(bytes)]);
        content::write(rpc, lease, descriptor, references.clone(), 0, body).await?;
    }
    content::label(rpc, &descriptor.digest, references).await
}

async fn fetch_blob(
    rpc: &Rpc,
    source: &impl Source,
    lease: &AsciiMetadataValue,
    descriptor: &Descriptor,
) -> Result<()> {
    if descriptor.size > MAX_BLOB {
        return Err(Error::BadImage {
            image: descriptor.digest.clone(),
            message: "layer too large".to_owned(),
        });
    }
    let mut attempt = 0;
    loop {
        attempt += 1;
        match try_blob(rpc, source, lease, descriptor).await {
            Ok(()) => return Ok(()),
            Err(error @ Error::ImageNotFound(_)) => return Err(error),
            Err(error) if attempt >= ATTEMPTS => return Err(error),
            Err(error) => {
                tracing::debug!(%error, digest = descriptor.digest, "download interrupted; continuing it");
            }
        }
    }
}

async fn try_blob(
    rpc: &Rpc,
    source: &impl Source,
    lease: &AsciiMetadataValue,
    descriptor: &Descriptor,
) -> Result<()> {
    if content::exists(rpc, &descriptor.digest).await? {
        return Ok(());
    }
    let reference = content::write_reference(&descriptor.digest);
    let have = content::offset(rpc, &reference).await?;
    let (body, partial) = source.blob(&descriptor.digest, have).await?;
    // A source without ranges sends all again; containerd truncates to offset 0.
    let start = if partial { have } else { 0 };
    content::write(rpc, lease, descriptor, HashMap::new(), start, body).await
}

/// Gives the image its name, or moves the name.
async fn name(rpc: &Rpc, lease: &AsciiMetadataValue, image: &str, target: &Descriptor) -> Result<()> {
    let target = types::Descriptor {
        media_type: target.media_type.clone(),
        digest: target.digest.clone(),
        size: target.size,
        annotations: HashMap::new(),
    };
    let stored = StoredImage {
        name: image.to_owned(),
        target: Some(target),
        labels: HashMap::from([(labels::LAST_USED.to_owned(), jiff::Timestamp::now().to_string())]),
        ..Default::default()
    };
    let create = rpc.leased(CreateImageRequest { image: Some(stored.clone()), ..Default::default() }, lease);
    let result = rpc.images().create(create).await.named("image create");
    if result.as_ref().is_err_and(Error::is_already_exists) {
        let update = rpc.leased(UpdateImageRequest { image: Some(stored), ..Default::default() }, lease);
        return rpc.images().update(update).await.named("image update").map(drop);
    }
    existing_is_fine(result)
}
