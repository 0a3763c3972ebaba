//! The provider `kms` (v2): seeds that a plug-in encrypts, over gRPC on a Unix socket.
//!
//! One seed is in use until the plug-in names another key; then a new one is made and encrypted. The
//! plug-in is asked for its state again and again ([`Kms::probe`]): as long as it answers, the seed may
//! write; three minutes after it stopped, writes fail, so that a migration to a new key can rely on it. What
//! is stored is read without an end: seeds that were decrypted once are kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prost::Message;
use tokio::time::Instant;

use super::envelope::{self, EncryptedObject, Source};

pub(super) use client::Endpoint;
use client::{Client, Status};

mod client;

/// Between two looks at a plug-in that answers.
pub(super) const HEALTHY: Duration = Duration::from_secs(60);
/// Between two looks at one that does not.
pub(super) const UNHEALTHY: Duration = Duration::from_secs(10);
/// What a look found is believed for so long by those who ask for the health.
const BELIEVED: Duration = Duration::from_secs(20);
const DISBELIEVED: Duration = Duration::from_secs(3);
/// A seed writes for so long after the plug-in confirmed it last.
const LIFE: Duration = Duration::from_secs(180);
/// So many decrypted sources are kept. There is one for each key of the plug-in and start of a server.
const SOURCES: usize = 4096;

/// A plug-in and the seed in use.
pub(super) struct Kms {
    name: String,
    prefix: String,
    endpoint: Endpoint,
    client: Client,
    writing: ArcSwapOption<Writing>,
    sources: Mutex<HashMap<[u8; 32], Source>>,
    /// Held while the plug-in is asked: one does it for all.
    looked: tokio::sync::Mutex<Looked>,
    /// How often another key came into use.
    rotations: AtomicU64,
}

/// What writes.
struct Writing {
    source: Source,
    /// Everything of what is stored but the data.
    head: EncryptedObject,
    until: Instant,
}

#[derive(Default)]
struct Looked {
    /// When, and what was wrong.
    last: Option<(Instant, Option<String>)>,
    version: String,
}

/// A value whose source must be decrypted before it can be opened.
#[derive(Clone)]
pub(super) struct Needed {
    kms: Arc<Kms>,
    object: EncryptedObject,
}

/// What opening a value came to.
pub(super) enum Opening {
    /// It is open, and whether another key than the one in use wrote it.
    Open(Vec<u8>, bool),
    /// The plug-in must decrypt its source first.
    Needs(Box<Needed>),
}

impl Kms {
    pub(super) fn new(name: &str, endpoint: Endpoint, timeout: Duration) -> Self {
        Self {
            name: name.to_owned(),
            prefix: format!("k8s:enc:kms:v2:{name}:"),
            client: Client::new(endpoint.clone(), timeout),
            endpoint,
            writing: ArcSwapOption::empty(),
            sources: Mutex::default(),
            looked: tokio::sync::Mutex::default(),
            rotations: AtomicU64::new(0),
        }
    }

    /// Is it the same plug-in, asked the same way.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.name == other.name
            && self.endpoint == other.endpoint
            && self.client.timeout() == other.client.timeout()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn rotations(&self) -> u64 {
        self.rotations.load(Ordering::Relaxed)
    }

    pub(super) fn strip<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        value.strip_prefix(self.prefix.as_bytes())
    }

    pub(super) fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
        let writing = self.writing.load_full();
        let writing = writing.ok_or_else(|| format!("the KMS plug-in {} has not answered yet", self.name))?;
        if Instant::now() > writing.until {
            return Err(format!("the KMS plug-in {} has not answered for too long to write", self.name));
        }
        let data = writing.source.seal(plain, context).ok_or("the seed does not encrypt")?;
        let mut out = self.prefix.clone().into_bytes();
        EncryptedObject { data, ..writing.head.clone() }.encode_raw(&mut out);
        Ok(out)
    }

    /// `sealed` is what follows the prefix.
    pub(super) fn open(self: &Arc<Self>, sealed: &[u8], context: &[u8]) -> Result<Opening, String> {
        let object = EncryptedObject::read(sealed)?;
        let source = self.lock().get(&object.fingerprint()).cloned();
        let Some(source) = source else {
            let object = EncryptedObject { data: Vec::new(), ..object };
            return Ok(Opening::Needs(Box::new(Needed { kms: Arc::clone(self), object })));
        };
        let plain = source.open(&object.data, context).ok_or("its key does not open it")?;
        Ok(Opening::Open(plain, self.is_stale(&object)))
    }

    fn is_stale(&self, object: &EncryptedObject) -> bool {
        self.writing.load().as_ref().is_none_or(|writing| {
            writing.head.key_id != object.key_id || writing.head.source_type != object.source_type
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, object: &EncryptedObject, source: Source) {
        let mut sources = self.lock();
        if sources.len() >= SOURCES {
            // Nobody comes near so many; whoever does pays with calls to the plug-in.
            sources.clear();
        }
        sources.insert(object.fingerprint(), source);
    }

    /// Asks the plug-in how it is and which key is in use, and follows it to that key. The error says what
    /// is wrong; no secret.
    pub(super) async fn probe(&self) -> Result<(), String> {
        let mut looked = self.looked.lock().await;
        self.look(&mut looked).await
    }

    /// The same, unless somebody did it just now.
    pub(super) async fn health(&self) -> Result<(), String> {
        let mut looked = self.looked.lock().await;
        if let Some((at, wrong)) = &looked.last {
            let believed = if wrong.is_none() { BELIEVED } else { DISBELIEVED };
            if at.elapsed() < believed {
                return wrong.clone().map_or(Ok(()), Err);
            }
        }
        self.look(&mut looked).await
    }

    async fn look(&self, looked: &mut Looked) -> Result<(), String> {
        let outcome = match self.client.status().await {
            Ok(status) => self.follow(&status, &mut looked.version).await,
            Err(error) => Err(format!(
                "failed to perform status section of the healthz check for KMS Provider {}, error: {error}",
                self.name
            )),
        };
        looked.last = Some((Instant::now(), outcome.clone().err()));
        outcome
    }

    async fn follow(&self, status: &Status, version: &mut String) -> Result<(), String> {
        let mut wrong = Vec::new();
        if status.healthz != "ok" {
            wrong.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            wrong.push(format!("expected KMSv2 API version v2, got {}", status.version));
        } else if version.is_empty() {
            version.clone_from(&status.version);
        } else if *version != status.version {
            wrong.push(format!(
                "KMSv2 API version should not change after the initial status response version {version}, got {}",
                status.version
            ));
        }
        let rotated = match envelope::check_key_id(&status.key_id) {
            Ok(()) => self.rotate(&status.key_id).await,
            Err(why) => Err(format!("got invalid KMSv2 KeyID: {why}")),
        };
        wrong.extend(rotated.err());
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("kmsv2 Provider {} is not healthy, error: {}", self.name, wrong.join(", ")))
    }

    /// Extends the life of the seed, or makes one under the new key. When that fails the old seed stays,
    /// until its life ends.
    async fn rotate(&self, key_id: &str) -> Result<(), String> {
        // Counted from before the call: the life is an upper bound.
        let until = Instant::now() + LIFE;
        let writing = self.writing.load_full();
        if let Some(writing) = writing.as_ref().filter(|writing| writing.head.key_id == key_id) {
            let same = Writing { source: writing.source.clone(), head: writing.head.clone(), until };
            self.writing.store(Some(Arc::new(same)));
            return Ok(());
        }
        let seed = Source::fresh();
        let made = self.client.encrypt(&seed).await;
        let made = made.map_err(|error| format!("failed to encrypt DEK, error: {error}"))?;
        let head = EncryptedObject {
            data: Vec::new(),
            key_id: made.key_id,
            source: made.ciphertext,
            annotations: made.annotations,
            source_type: envelope::DERIVED,
        };
        head.check()?;
        if head.key_id != key_id {
            return Err("the key that encrypts is not the one that the status names".to_owned());
        }
        let source = Source::new(envelope::DERIVED, &seed)?;
        self.keep(&head, source.clone());
        self.writing.store(Some(Arc::new(Writing { source, head, until })));
        if writing.is_some() {
            self.rotations.fetch_add(1, Ordering::Relaxed);
            tracing::info!(
                provider = self.name,
                "the KMS plug-in uses another key; so do values from now on"
            );
        }
        Ok(())
    }
}

impl Needed {
    /// Has the source decrypted, and keeps it. The error says what is wrong.
    pub(super) async fn fetch(&self) -> Result<(), String> {
        let Self { kms, object } = self;
        let secret = kms.client.decrypt(object).await;
        let secret = secret.map_err(|error| format!("failed to decrypt DEK, error: {error}"))?;
        kms.keep(object, Source::new(object.source_type, &secret)?);
        Ok(())
    }
}
