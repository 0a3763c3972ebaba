//! The documents as they are served: encoded once, when first asked for.

use super::{hash, v2, v2_protobuf, v3_all, v3_index};
use crate::kind::KindInfo;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// One encoded document.
#[derive(Clone, Debug)]
pub struct Document {
    /// The bytes.
    pub bytes: Bytes,
    /// Their hash, an entity tag and the `hash` of the address.
    pub hash: String,
}

impl Document {
    fn new(bytes: Vec<u8>) -> Self {
        Self { hash: hash(&bytes), bytes: bytes.into() }
    }
}

/// All documents of one set of kinds. Replace the whole when the kinds change.
#[derive(Debug)]
pub struct Documents {
    kinds: Vec<KindInfo>,
    version: String,
    v3: OnceLock<(Document, BTreeMap<String, Document>)>,
    v2: OnceLock<(Document, Document)>,
}

impl Documents {
    /// For these kinds; nothing is built yet.
    pub fn new(kinds: Vec<KindInfo>, version: &str) -> Self {
        Self { kinds, version: version.to_owned(), v3: OnceLock::new(), v2: OnceLock::new() }
    }

    /// `GET /openapi/v3`.
    pub fn v3_index(&self) -> &Document {
        &self.v3().0
    }

    /// `GET /openapi/v3/PATH`, the path as `api/v1` or `apis/apps/v1`.
    pub fn v3_document(&self, path: &str) -> Option<&Document> {
        self.v3().1.get(path)
    }

    /// `GET /openapi/v2`, JSON.
    pub fn v2_json(&self) -> &Document {
        &self.v2().0
    }

    /// `GET /openapi/v2`, protobuf.
    pub fn v2_protobuf(&self) -> &Document {
        &self.v2().1
    }

    fn v3(&self) -> &(Document, BTreeMap<String, Document>) {
        self.v3.get_or_init(|| {
            let documents: BTreeMap<String, Document> = v3_all(&self.kinds, &self.version)
                .into_iter()
                .map(|(path, document)| (path, Document::new(document.to_string().into_bytes())))
                .collect();
            let index = v3_index(documents.iter().map(|(path, document)| (path.as_str(), &*document.bytes)));
            (Document::new(index.to_string().into_bytes()), documents)
        })
    }

    fn v2(&self) -> &(Document, Document) {
        self.v2.get_or_init(|| {
            let document = v2(&self.kinds, &self.version);
            (Document::new(document.to_string().into_bytes()), Document::new(v2_protobuf(&document)))
        })
    }
}
