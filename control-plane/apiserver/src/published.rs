//! What discovery and OpenAPI say now: made of the built-in kinds once, and of custom resources whenever
//! their definitions change. Only the documents of a group and version that changed are made again.
//! Documents are kept compressed: they are megabytes of text that repeats itself.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_machinery::kind::KindInfo;
use skep_machinery::openapi;
use skep_registry::strategy::Kind;
use skep_registry::{Registry, kinds};

use crate::version::VERSION;

/// The v3 documents of the built-in kinds.
static BUILT_IN_V3: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    let kinds: Vec<KindInfo> = kinds::TABLE.iter().map(|row| Kind::BuiltIn(row).info()).collect();
    let documents = openapi::v3_all(&kinds, VERSION);
    documents.into_iter().map(|(path, document)| (path, Document::new(&document, Vec::new()))).collect()
});

/// The v2 document of the built-in kinds.
static BUILT_IN_V2: LazyLock<(Packed, Packed)> = LazyLock::new(|| {
    let kinds: Vec<KindInfo> = kinds::TABLE.iter().map(|row| Kind::BuiltIn(row).info()).collect();
    both(&openapi::v2(&kinds, VERSION))
});

/// A document, compressed.
#[derive(Clone)]
pub(crate) struct Packed {
    pub(crate) gzip: Bytes,
    /// Of what was compressed.
    pub(crate) hash: String,
}

impl Packed {
    pub(crate) fn new(document: &[u8]) -> Self {
        let mut gzip = GzEncoder::new(Vec::with_capacity(document.len() / 8), Compression::default());
        // Writing to memory does not fail.
        let packed = gzip.write_all(document).and_then(|()| gzip.finish()).unwrap_or_default();
        Self { gzip: packed.into(), hash: openapi::hash(document) }
    }

    pub(crate) fn unpacked(&self) -> Result<Vec<u8>, ApiError> {
        let mut bytes = Vec::with_capacity(self.gzip.len() * 8);
        GzDecoder::new(&self.gzip[..]).read_to_end(&mut bytes).map_err(ApiError::internal)?;
        Ok(bytes)
    }
}

/// One v3 document.
#[derive(Clone)]
struct Document {
    /// What it was made of; empty for the built-in ones.
    of: Vec<KindInfo>,
    body: Packed,
}

impl Document {
    fn new(document: &Value, of: Vec<KindInfo>) -> Self {
        Self { of, body: Packed::new(document.to_string().as_bytes()) }
    }
}

/// All documents of one state of the resources.
pub(crate) struct Snapshot {
    generation: u64,
    kinds: Vec<KindInfo>,
    custom: Vec<KindInfo>,
    before: Mutex<Option<Arc<Snapshot>>>,
    v3: OnceLock<BTreeMap<String, Document>>,
    index: OnceLock<Bytes>,
    v2: OnceLock<(Packed, Packed)>,
}

impl Snapshot {
    /// What is served.
    pub(crate) fn kinds(&self) -> &[KindInfo] {
        &self.kinds
    }

    fn v3_documents(&self) -> &BTreeMap<String, Document> {
        self.v3.get_or_init(|| {
            let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut documents = BUILT_IN_V3.clone();
            let mut groups: BTreeMap<String, Vec<KindInfo>> = BTreeMap::new();
            for kind in &self.custom {
                let path = openapi::v3_path(&kind.gvk.group, &kind.gvk.version);
                groups.entry(path).or_default().push(kind.clone());
            }
            for (path, of) in groups {
                let known = before.as_ref().and_then(|before| before.v3.get()?.get(&path));
                let document = match known.filter(|known| known.of == of) {
                    Some(known) => known.clone(),
                    None => {
                        // A group that has built-in kinds too is described as a whole.
                        let built_in = self.kinds.iter().filter(|kind| {
                            kind.schema.is_none()
                                && openapi::v3_path(&kind.gvk.group, &kind.gvk.version) == path
                        });
                        let whole: Vec<KindInfo> = built_in.chain(&of).cloned().collect();
                        Document::new(&openapi::v3_group(&whole, VERSION), of)
                    }
                };
                documents.insert(path, document);
            }
            documents
        })
    }

    /// The v3 document of a path like `apis/apps/v1`.
    pub(crate) fn v3(&self, path: &str) -> Option<&Packed> {
        self.v3_documents().get(path).map(|document| &document.body)
    }

    /// Which v3 documents there are.
    pub(crate) fn v3_index(&self) -> Bytes {
        let make = || {
            let documents = self.v3_documents().iter();
            openapi::v3_index(documents.map(|(path, document)| (path.as_str(), document.body.hash.as_str())))
                .to_string()
                .into()
        };
        self.index.get_or_init(make).clone()
    }

    /// The v2 document, as JSON and as protobuf.
    pub(crate) fn v2(&self) -> &(Packed, Packed) {
        self.v2.get_or_init(|| {
            let built_in = BUILT_IN_V2.0.unpacked().ok().and_then(|json| serde_json::from_slice(&json).ok());
            let Some(mut whole) = built_in.filter(|_: &Value| !self.custom.is_empty()) else {
                return BUILT_IN_V2.clone();
            };
            let mut custom = openapi::v2(&self.custom, VERSION);
            for part in ["paths", "definitions"] {
                let (Some(whole), Some(custom)) = (whole[part].as_object_mut(), custom[part].as_object_mut())
                else {
                    continue;
                };
                for (name, value) in std::mem::take(custom) {
                    // What both have is of the built-in kinds.
                    whole.entry(name).or_insert(value);
                }
            }
            both(&whole)
        })
    }
}

fn both(document: &Value) -> (Packed, Packed) {
    (Packed::new(document.to_string().as_bytes()), Packed::new(&openapi::v2_protobuf(document)))
}

/// The documents as they are now.
#[derive(Default)]
pub(crate) struct Published {
    current: Mutex<Option<Arc<Snapshot>>>,
}

impl Published {
    /// The documents of what the registry serves. What is expensive about them is made when asked for.
    pub(crate) fn snapshot(&self, registry: &Registry) -> Arc<Snapshot> {
        let generation = registry.generation();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = current.as_ref().filter(|snapshot| snapshot.generation == generation) {
            return snapshot.clone();
        }
        let kinds: Vec<KindInfo> = registry.served().iter().map(Kind::info).collect();
        let custom: Vec<KindInfo> = kinds.iter().filter(|kind| kind.schema.is_some()).cloned().collect();
        // Documents that were never made are no help.
        let before = current.take().filter(|before| before.v3.get().is_some());
        let snapshot = Arc::new(Snapshot {
            generation,
            kinds,
            custom,
            before: Mutex::new(before),
            v3: OnceLock::new(),
            index: OnceLock::new(),
            v2: OnceLock::new(),
        });
        *current = Some(snapshot.clone());
        snapshot
    }
}
