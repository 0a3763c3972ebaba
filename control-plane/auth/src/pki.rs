//! The cluster's own certificate authority and what it signs.
//!
//! Everything lives in one folder: `ca.crt`/`ca.key`, the service-account signing key `sa.key`/`sa.pub`,
//! and a pair of files for each stored certificate. A second authority, `front-proxy-ca`, signs what the
//! API server shows to the servers it aggregates: they must not take an ordinary client for it. Files are written atomically with mode 0600, so a
//! crash leaves the old or the new pair. A stored certificate is issued again when it nears its end,
//! when its names changed, or when the authority did. Keys are ECDSA P-256.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

pub(crate) use tls::client_verifier;
pub use tls::{ClientAuth, ServingCertificate, TlsOptions, server_config, serving_config};

mod files;
mod inspect;
mod tls;
pub(crate) mod x509;

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// A leaf is renewed when less than this is left.
const RENEW: Duration = Duration::from_secs(60 * 24 * 3600);
/// Certificates are valid from a little before now: clocks differ.
const SKEW: Duration = Duration::from_secs(3600);

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read or written.
    #[error("can't access {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path} is not usable: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A certificate could not be made.
    #[error("can't issue a certificate")]
    Issue(#[from] rcgen::Error),
    /// A TLS configuration could not be made.
    #[error("can't configure TLS: {0}")]
    Tls(String),
}

/// A certificate with its key.
#[derive(Clone)]
pub struct CertPair {
    /// The certificate in PEM.
    pub cert_pem: String,
    /// The key in PEM (PKCS#8).
    pub key_pem: String,
}

impl std::fmt::Debug for CertPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertPair").finish_non_exhaustive()
    }
}

/// What the authority is for.
#[derive(Clone, Debug, Default)]
pub struct PkiOptions {
    /// DNS names the API server answers to.
    pub server_names: Vec<String>,
    /// Addresses the API server answers to.
    pub server_ips: Vec<IpAddr>,
}

/// A certificate that signs others, and its key.
struct Authority {
    pem: String,
    key: KeyPair,
}

impl Authority {
    fn load_or_create(dir: &Path, file: &str, name: &str) -> Result<Self, Error> {
        let pair = match files::read_pair(dir, file)? {
            Some(pair) => pair,
            None => files::write_pair(dir, file, new_authority(name)?)?,
        };
        let key = KeyPair::from_pem(&pair.key_pem)
            .map_err(|e| Error::Content { path: dir.join(format!("{file}.key")), why: e.to_string() })?;
        Ok(Self { pem: pair.cert_pem, key })
    }

    fn issue(&self, wanted: &Names<'_>) -> Result<CertPair, Error> {
        let authority = pem::parse(&self.pem).map_err(|e| Error::Tls(e.to_string()))?;
        let key = KeyPair::generate()?;
        let names = (!wanted.names.is_empty()).then(|| x509::alt_names(wanted.names));
        let now = SystemTime::now();
        let leaf = x509::Leaf {
            subject: &x509::subject(wanted.name, wanted.organizations),
            public_key: &rcgen::PublicKeyData::subject_public_key_info(&key),
            alt_names: names.as_deref(),
            key_usage: DIGITAL_SIGNATURE | KEY_ENCIPHERMENT,
            extended: match wanted.usage {
                Use::Client => &[CLIENT_AUTH],
                Use::Server => &[SERVER_AUTH, CLIENT_AUTH],
            },
            not_before: now - SKEW,
            not_after: now + LEAF_LIFE + DAY,
        };
        let der = leaf.sign(authority.contents(), &self.key, uuid::Uuid::new_v4().into_bytes())?;
        Ok(CertPair { cert_pem: x509::to_pem(der), key_pem: key.serialize_pem() })
    }
}

/// What a new certificate is to say.
struct Names<'a> {
    name: &'a str,
    organizations: &'a [&'a str],
    names: &'a [SanType],
    usage: Use,
}

const DIGITAL_SIGNATURE: u16 = 0x8000;
const KEY_ENCIPHERMENT: u16 = 0x2000;
const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

/// The authorities.
pub struct Pki {
    dir: PathBuf,
    cluster: Authority,
    front_proxy: Authority,
    front_proxy_client: CertPair,
    server: CertPair,
    service_account: CertPair,
}

/// The common name of the certificate that the API server shows to aggregated servers.
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";

impl Pki {
    /// Loads the authority from `dir`, making what is missing and renewing what nears its end.
    pub fn load_or_create(dir: &Path, options: &PkiOptions) -> Result<Self, Error> {
        files::make_dir(dir)?;
        let cluster = Authority::load_or_create(dir, "ca", "skep-ca")?;
        let front_proxy = Authority::load_or_create(dir, "front-proxy-ca", "skep-front-proxy-ca")?;
        let service_account = service_account_key(dir)?;
        let client = Names { name: FRONT_PROXY_CLIENT, organizations: &[], names: &[], usage: Use::Client };
        let front_proxy_client = stored(dir, "front-proxy-client", &front_proxy, &client)?;
        let names: Vec<SanType> = sans(&options.server_names, &options.server_ips)?;
        let server = Names { name: "kube-apiserver", organizations: &[], names: &names, usage: Use::Server };
        let server = stored(dir, "apiserver", &cluster, &server)?;
        Ok(Self { dir: dir.to_owned(), cluster, front_proxy, front_proxy_client, server, service_account })
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.cluster.pem
    }

    /// The certificate of the authority behind [`Self::front_proxy_client`].
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy.pem
    }

    /// What the API server shows to aggregated servers: they believe the user names it hands on.
    pub fn front_proxy_client(&self) -> &CertPair {
        &self.front_proxy_client
    }

    /// The authority's key, for the controller that signs certificate requests.
    pub fn ca_key_pem(&self) -> String {
        self.cluster.key.serialize_pem()
    }

    /// The API server's serving certificate.
    pub fn server(&self) -> &CertPair {
        &self.server
    }

    /// The key service-account tokens are signed with, in PEM (PKCS#8).
    pub fn service_account_key_pem(&self) -> &str {
        &self.service_account.key_pem
    }

    /// The public half of [`Self::service_account_key_pem`].
    pub fn service_account_public_pem(&self) -> &str {
        &self.service_account.cert_pem
    }

    /// A client certificate for a user, kept nowhere.
    pub fn issue_client(&self, name: &str, organizations: &[&str]) -> Result<CertPair, Error> {
        self.cluster.issue(&Names { name, organizations, names: &[], usage: Use::Client })
    }

    /// A serving certificate for names and addresses, kept nowhere. It may be used as a client too.
    pub fn issue_server(&self, name: &str, names: &[String], ips: &[IpAddr]) -> Result<CertPair, Error> {
        let names = sans(names, ips)?;
        self.cluster.issue(&Names { name, organizations: &[], names: &names, usage: Use::Server })
    }

    /// A client certificate kept in `FILE.crt`/`FILE.key`, issued again when that is due.
    pub fn stored_client(&self, file: &str, name: &str, organizations: &[&str]) -> Result<CertPair, Error> {
        let names = Names { name, organizations, names: &[], usage: Use::Client };
        stored(&self.dir, file, &self.cluster, &names)
    }

    /// A serving certificate kept in `FILE.crt`/`FILE.key`, issued again when that is due.
    pub fn stored_server(
        &self,
        file: &str,
        name: &str,
        organizations: &[&str],
        names: &[String],
        ips: &[IpAddr],
    ) -> Result<CertPair, Error> {
        let names = sans(names, ips)?;
        let names = Names { name, organizations, names: &names, usage: Use::Server };
        stored(&self.dir, file, &self.cluster, &names)
    }

    /// A TLS configuration that serves `pair` and trusts clients of this authority.
    pub fn server_config(
        &self,
        pair: &CertPair,
        clients: ClientAuth,
    ) -> Result<Arc<rustls::ServerConfig>, Error> {
        server_config(self.ca_pem(), pair, clients)
    }
}

/// A certificate kept in files, issued again when that is due.
fn stored(dir: &Path, file: &str, authority: &Authority, names: &Names<'_>) -> Result<CertPair, Error> {
    if let Some(pair) = files::read_pair(dir, file)? {
        let wanted = inspect::Wanted {
            ca_pem: &authority.pem,
            name: names.name,
            organizations: names.organizations,
            names: names.names,
        };
        if inspect::still_good(&pair, &wanted, SystemTime::now() + RENEW) {
            return Ok(pair);
        }
        tracing::info!(file, "a certificate is issued again");
    }
    files::write_pair(dir, file, authority.issue(names)?)
}

#[derive(Clone, Copy)]
enum Use {
    Client,
    Server,
}

fn new_authority(name: &str) -> Result<CertPair, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_LIFE);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(CertPair { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

fn service_account_key(dir: &Path) -> Result<CertPair, Error> {
    let path = dir.join("sa.key");
    let key = match files::read(&path)? {
        Some(text) => KeyPair::from_pem(&text).map_err(|e| Error::Content { path, why: e.to_string() })?,
        None => {
            let key = KeyPair::generate()?;
            files::write(&path, &key.serialize_pem())?;
            key
        }
    };
    let public = key.public_key_pem();
    files::write(&dir.join("sa.pub"), &public)?;
    Ok(CertPair { cert_pem: public, key_pem: key.serialize_pem() })
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn sans(names: &[String], ips: &[IpAddr]) -> Result<Vec<SanType>, Error> {
    let mut out = Vec::with_capacity(names.len() + ips.len());
    for name in names {
        out.push(SanType::DnsName(name.as_str().try_into()?));
    }
    out.extend(ips.iter().copied().map(SanType::IpAddress));
    Ok(out)
}

fn valid_for(params: &mut CertificateParams, life: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + life + DAY).into();
}
