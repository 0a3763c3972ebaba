//! The envelope of protobuf objects: four magic bytes, then `runtime.Unknown` (type, raw message, encodings).

use super::wire::{Fields, Payload, WireError, put_bytes, put_nested};

/// What every protobuf object starts with.
pub(crate) const MAGIC: &[u8] = b"k8s\0";

/// An opened envelope.
pub(crate) struct Unknown {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) raw: Vec<u8>,
    pub(crate) content_encoding: String,
    pub(crate) content_type: String,
}

/// Opens an envelope.
pub(crate) fn open(bytes: &[u8]) -> Result<Unknown, WireError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(WireError::Illegal)?;
    let mut unknown = Unknown {
        api_version: String::new(),
        kind: String::new(),
        raw: Vec::new(),
        content_encoding: String::new(),
        content_type: String::new(),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut reader = Fields::new(body);
    while let Some((number, payload)) = reader.next_field()? {
        let Payload::Bytes(bytes) = payload else { continue };
        match number {
            1 => {
                let mut meta = Fields::new(bytes);
                while let Some((number, payload)) = meta.next_field()? {
                    match (number, payload) {
                        (1, Payload::Bytes(bytes)) => unknown.api_version = text(bytes),
                        (2, Payload::Bytes(bytes)) => unknown.kind = text(bytes),
                        _ => {}
                    }
                }
            }
            2 => unknown.raw = bytes.to_vec(),
            3 => unknown.content_encoding = text(bytes),
            4 => unknown.content_type = text(bytes),
            _ => {}
        }
    }
    Ok(unknown)
}

/// Closes a message in an envelope.
pub(crate) fn close(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 24);
    out.extend_from_slice(MAGIC);
    let meta: Result<(), std::convert::Infallible> = put_nested(&mut out, 1, |out| {
        put_bytes(out, 1, api_version.as_bytes());
        put_bytes(out, 2, kind.as_bytes());
        Ok(())
    });
    let Ok(()) = meta;
    put_bytes(&mut out, 2, raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}
