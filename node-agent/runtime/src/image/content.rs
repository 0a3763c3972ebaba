//! Blobs in containerd's content store: write, read, label.

use std::collections::HashMap;

use bytes::Bytes;
use containerd_client::{
    services::v1::{
        Info, InfoRequest, ReadContentRequest, StatusRequest, UpdateRequest, WriteAction, WriteContentRequest,
    },
    tonic::metadata::AsciiMetadataValue,
};
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::manifest::{Descriptor, MAX_DOCUMENT};
use crate::{
    Error, Result,
    rpc::{Named, Rpc, existing_is_fine, optional},
};

const CHUNK: usize = 1 << 20;

/// Whether the blob is there, complete.
pub(crate) async fn exists(rpc: &Rpc, digest: &str) -> Result<bool> {
    let request = rpc.request(InfoRequest { digest: digest.to_owned() });
    Ok(optional(rpc.content().info(request).await.named("content info"))?.is_some())
}

/// How much of an interrupted write is there.
pub(crate) async fn offset(rpc: &Rpc, reference: &str) -> Result<u64> {
    let request = rpc.request(StatusRequest { r#ref: reference.to_owned() });
    let status = optional(rpc.content().status(request).await.named("content status"))?;
    Ok(status.and_then(|s| s.status).map_or(0, |s| u64::try_from(s.offset).unwrap_or(0)))
}

/// Reads a small blob.
pub(crate) async fn read(rpc: &Rpc, digest: &str) -> Result<Vec<u8>> {
    let request = rpc.request(ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 });
    let mut stream = rpc.content().read(request).await.named("content read")?;
    let mut bytes = Vec::new();
    while let Some(part) = stream
        .message()
        .await
        .map_err(|source| Error::Rpc { op: "content read", source: Box::new(source) })?
    {
        bytes.extend_from_slice(&part.data);
        if bytes.len() > MAX_DOCUMENT {
            return Err(Error::BadImage {
                image: digest.to_owned(),
                message: "document too large".to_owned(),
            });
        }
    }
    Ok(bytes)
}

/// Adds labels to a blob.
pub(crate) async fn label(rpc: &Rpc, digest: &str, labels: HashMap<String, String>) -> Result<()> {
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let info = Info { digest: digest.to_owned(), labels, ..Default::default() };
    let request =
        rpc.request(UpdateRequest { info: Some(info), update_mask: Some(prost_types::FieldMask { paths }) });
    rpc.content().update(request).await.named("content update").map(drop)
}

/// The reference under which a blob is being written: the same for every attempt, so that a new attempt
/// continues an interrupted one.
pub(crate) fn write_reference(digest: &str) -> String {
    format!("skep-{digest}")
}

/// Writes a blob from `start` on and commits it; containerd verifies size and digest.
pub(crate) async fn write<S, E>(
    rpc: &Rpc,
    lease: &AsciiMetadataValue,
    descriptor: &Descriptor,
    labels: HashMap<String, String>,
    start: u64,
    body: S,
) -> Result<()>
where
    S: Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    let reference = write_reference(&descriptor.digest);
    let size = descriptor.size;
    let message = |action: WriteAction, offset: i64, data: Vec<u8>| WriteContentRequest {
        action: action.into(),
        r#ref: reference.clone(),
        total: size,
        expected: descriptor.digest.clone(),
        offset,
        data,
        labels: HashMap::new(),
    };
    let (sender, receiver) = mpsc::channel(2);
    let mut client = rpc.content();
    let call = client.write(rpc.leased(ReceiverStream::new(receiver), lease));
    let feed = async {
        let mut body = body;
        let mut at = i64::try_from(start).map_err(|_| "offset overflow".to_owned())?;
        let mut buffer = Vec::with_capacity(CHUNK.min(usize::try_from(size).unwrap_or(CHUNK)));
        loop {
            let chunk = body.next().await;
            let end = chunk.is_none();
            if let Some(chunk) = chunk {
                buffer.extend_from_slice(&chunk.map_err(|e| e.to_string())?);
            }
            while buffer.len() >= CHUNK || (end && !buffer.is_empty()) {
                let rest = buffer.split_off(buffer.len().min(CHUNK));
                let data = std::mem::replace(&mut buffer, rest);
                let length = i64::try_from(data.len()).map_err(|e| e.to_string())?;
                if at + length > size {
                    return Err("blob is larger than its descriptor says".to_owned());
                }
                // A closed receiver means that containerd refused; its answer says why.
                if sender.send(message(WriteAction::Write, at, data)).await.is_err() {
                    return Ok(());
                }
                at += length;
            }
            if end {
                break;
            }
        }
        let mut commit = message(WriteAction::Commit, at, Vec::new());
        commit.labels = labels;
        let closed = sender.send(commit).await.is_err();
        drop(sender);
        if closed {
            tracing::debug!("containerd closed the write early");
        }
        Ok(())
    };
    let answers = async {
        let mut stream = call.await.named("content write")?;
        let mut last = None;
        loop {
            match stream.message().await {
                Ok(Some(answer)) => last = Some(answer),
                Ok(None) => break,
                Err(source) => return Err(Error::Rpc { op: "content write", source: Box::new(source) }),
            }
        }
        Ok(last)
    };
    let (fed, answered) = tokio::join!(feed, answers);
    existing_is_fine(answered)?;
    fed.map_err(|message| Error::BadImage { image: descriptor.digest.clone(), message })
}
