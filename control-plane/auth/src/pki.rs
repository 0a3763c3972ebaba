//! The cluster's own certificate authority and what it signs.
//!
//! Everything lives in one folder: `ca.crt`/`ca.key`, the service-account signing key `sa.key`/`sa.pub`,
//! and a pair of files for each stored certificate. Files are written atomically with mode 0600, so a
//! crash leaves the old or the new pair. A stored certificate is issued again when it nears its end,
//! when its names changed, or when the authority did. Keys are ECDSA P-256.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;

mod files;
mod inspect;

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
    /// More organizations than a subject of ours can hold.
    #[error("a certificate holds one organization at most")]
    Organizations,
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

/// Does a TLS server ask clients for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It is checked when there is one.
    Optional,
    /// There must be one.
    Required,
}

/// The authority.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    ca_key: KeyPair,
    server: CertPair,
    service_account: CertPair,
}

impl Pki {
    /// Loads the authority from `dir`, making what is missing and renewing what nears its end.
    pub fn load_or_create(dir: &Path, options: &PkiOptions) -> Result<Self, Error> {
        files::make_dir(dir)?;
        let ca = match files::read_pair(dir, "ca")? {
            Some(pair) => pair,
            None => files::write_pair(dir, "ca", new_authority()?)?,
        };
        let ca_key = KeyPair::from_pem(&ca.key_pem)
            .map_err(|e| Error::Content { path: dir.join("ca.key"), why: e.to_string() })?;
        let service_account = service_account_key(dir)?;
        let placeholder = CertPair { cert_pem: String::new(), key_pem: String::new() };
        let mut pki =
            Self { dir: dir.to_owned(), ca_pem: ca.cert_pem, ca_key, server: placeholder, service_account };
        let names: Vec<SanType> = sans(&options.server_names, &options.server_ips)?;
        pki.server = pki.stored("apiserver", "kube-apiserver", &[], names, Use::Server)?;
        Ok(pki)
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority's key, for the controller that signs certificate requests.
    pub fn ca_key_pem(&self) -> String {
        self.ca_key.serialize_pem()
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
        self.issue(name, organizations, Vec::new(), Use::Client)
    }

    /// A serving certificate for names and addresses, kept nowhere. It may be used as a client too.
    pub fn issue_server(&self, name: &str, names: &[String], ips: &[IpAddr]) -> Result<CertPair, Error> {
        self.issue(name, &[], sans(names, ips)?, Use::Server)
    }

    /// A client certificate kept in `FILE.crt`/`FILE.key`, issued again when that is due.
    pub fn stored_client(&self, file: &str, name: &str, organizations: &[&str]) -> Result<CertPair, Error> {
        self.stored(file, name, organizations, Vec::new(), Use::Client)
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
        self.stored(file, name, organizations, sans(names, ips)?, Use::Server)
    }

    /// A TLS configuration that serves `pair` and trusts clients of this authority.
    pub fn server_config(
        &self,
        pair: &CertPair,
        clients: ClientAuth,
    ) -> Result<Arc<rustls::ServerConfig>, Error> {
        server_config(&self.ca_pem, pair, clients)
    }

    fn stored(
        &self,
        file: &str,
        name: &str,
        organizations: &[&str],
        names: Vec<SanType>,
        usage: Use,
    ) -> Result<CertPair, Error> {
        if let Some(pair) = files::read_pair(&self.dir, file)? {
            let wanted = inspect::Wanted { ca_pem: &self.ca_pem, name, organizations, names: &names };
            if inspect::still_good(&pair, &wanted, SystemTime::now() + RENEW) {
                return Ok(pair);
            }
            tracing::info!(file, "a certificate is issued again");
        }
        files::write_pair(&self.dir, file, self.issue(name, organizations, names, usage)?)
    }

    fn issue(
        &self,
        name: &str,
        organizations: &[&str],
        names: Vec<SanType>,
        usage: Use,
    ) -> Result<CertPair, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, organizations)?;
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match usage {
            Use::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Use::Server => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, LEAF_LIFE);
        let key = KeyPair::generate()?;
        let issuer = Issuer::from_ca_cert_pem(&self.ca_pem, &self.ca_key)?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(CertPair { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

#[derive(Clone, Copy)]
enum Use {
    Client,
    Server,
}

/// A TLS configuration that serves `pair` and trusts clients of the authority `ca_pem`: for the kubelet
/// API too, which has the certificates but not the authority's key.
pub fn server_config(
    ca_pem: &str,
    pair: &CertPair,
    clients: ClientAuth,
) -> Result<Arc<rustls::ServerConfig>, Error> {
    let tls = |e: &dyn std::fmt::Display| Error::Tls(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|e| tls(&e))?).map_err(|e| tls(&e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = match clients {
        ClientAuth::Optional => verifier.allow_unauthenticated(),
        ClientAuth::Required => verifier,
    };
    let verifier = verifier.build().map_err(|e| tls(&e))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| tls(&e))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).map_err(|e| tls(&e))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| tls(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| tls(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn new_authority() -> Result<CertPair, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject("skep-ca", &[])?;
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

fn subject(name: &str, organizations: &[&str]) -> Result<DistinguishedName, Error> {
    let mut subject = DistinguishedName::new();
    match organizations {
        [] => {}
        [organization] => subject.push(DnType::OrganizationName, *organization),
        _ => return Err(Error::Organizations),
    }
    subject.push(DnType::CommonName, name);
    Ok(subject)
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
