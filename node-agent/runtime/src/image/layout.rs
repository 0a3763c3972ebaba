//! An OCI image layout on disk as a source of images, for air-gapped nodes and for tests.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::Stream;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::{
    Image,
    manifest::MAX_DOCUMENT,
    pull::{self, Source},
    reference::is_digest,
};
use crate::{Error, Reference, Result, rpc::Rpc};

/// A folder with `index.json` and `blobs/sha256/`.
struct Layout {
    root: PathBuf,
}

impl Layout {
    fn blob_path(&self, digest: &str) -> Result<PathBuf> {
        if !is_digest(digest) {
            return Err(Error::BadImage {
                image: self.root.display().to_string(),
                message: "malformed digest".to_owned(),
            });
        }
        Ok(self.root.join("blobs/sha256").join(&digest["sha256:".len()..]))
    }

    async fn small(&self, path: &Path) -> Result<Bytes> {
        let file = tokio::fs::File::open(path).await.map_err(Error::io("open", path))?;
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT as u64).read_to_end(&mut bytes).await.map_err(Error::io("read", path))?;
        Ok(bytes.into())
    }
}

impl Source for Layout {
    async fn document(&self, target: &str) -> Result<(String, Bytes)> {
        if is_digest(target) {
            return Ok((String::new(), self.small(&self.blob_path(target)?).await?));
        }
        // The layout's index is wrapped: its only entry is the image.
        let index = self.small(&self.root.join("index.json")).await?;
        let index = super::manifest::Document::parse(target, &index)?;
        let entry =
            index.manifests.first().ok_or_else(|| Error::ImageNotFound(self.root.display().to_string()))?;
        Ok((entry.media_type.clone(), self.small(&self.blob_path(&entry.digest)?).await?))
    }

    async fn blob(
        &self,
        digest: &str,
        offset: u64,
    ) -> Result<(impl Stream<Item = Result<Bytes>> + Unpin + Send, bool)> {
        let path = self.blob_path(digest)?;
        let mut file = tokio::fs::File::open(&path).await.map_err(Error::io("open", &path))?;
        file.seek(std::io::SeekFrom::Start(offset)).await.map_err(Error::io("seek", &path))?;
        let stream = ReaderStream::with_capacity(file, 1 << 20);
        let stream = futures::TryStreamExt::map_err(stream, move |e| Error::io("read", &path)(e));
        Ok((stream, true))
    }
}

/// Imports the (first) image of a layout under `reference`.
pub(crate) async fn import(rpc: &Rpc, root: &Path, reference: &Reference) -> Result<Image> {
    pull::fetch(rpc, &Layout { root: root.to_path_buf() }, reference).await
}
