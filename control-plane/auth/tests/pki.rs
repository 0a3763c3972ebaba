//! The authority on disk, and the users in its certificates.

use std::os::unix::fs::PermissionsExt;

use http::HeaderMap;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use skep_auth::authentication::{
    Authenticator, Chain, ClientCertificate, Credentials, FrontProxy, FrontProxyHeaders,
};
use skep_auth::pki::{CertPair, ClientAuth, Error, FRONT_PROXY_CLIENT, Pki, PkiOptions};

fn options(names: &[&str]) -> PkiOptions {
    PkiOptions {
        server_names: names.iter().map(|name| (*name).to_owned()).collect(),
        server_ips: vec!["127.0.0.1".parse().expect("an address"), "fd00::1".parse().expect("an address")],
    }
}

#[test]
fn everything_stays_until_its_names_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("pki");
    let first = Pki::load_or_create(&dir, &options(&["localhost"])).expect("makes");
    let second = Pki::load_or_create(&dir, &options(&["localhost"])).expect("loads");
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(first.server().cert_pem, second.server().cert_pem);
    assert_eq!(first.service_account_key_pem(), second.service_account_key_pem());
    let third = Pki::load_or_create(&dir, &options(&["localhost", "api.test"])).expect("renews");
    assert_eq!(first.ca_pem(), third.ca_pem());
    assert_ne!(first.server().cert_pem, third.server().cert_pem);
    for entry in std::fs::read_dir(&dir).expect("lists") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("has a mode").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        assert!(!entry.file_name().to_string_lossy().ends_with(".new"));
    }
}

#[test]
fn a_certificate_of_another_authority_or_a_broken_one_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let pki = Pki::load_or_create(dir, &options(&[])).expect("makes");
    let stored = pki.stored_client("admin", "kubernetes-admin", &["system:masters"]).expect("issues");
    let again = pki.stored_client("admin", "kubernetes-admin", &["system:masters"]).expect("loads");
    assert_eq!(stored.cert_pem, again.cert_pem);
    let other = pki.stored_client("admin", "kubernetes-admin", &["people"]).expect("issues");
    assert_ne!(stored.cert_pem, other.cert_pem);
    std::fs::write(dir.join("admin.key"), "not a key").expect("writes");
    let healed = pki.stored_client("admin", "kubernetes-admin", &["people"]).expect("issues");
    assert_ne!(healed.cert_pem, other.cert_pem);
    std::fs::remove_file(dir.join("ca.crt")).expect("removes");
    let anew = Pki::load_or_create(dir, &options(&[])).expect("makes");
    assert_ne!(anew.server().cert_pem, pki.server().cert_pem);
    std::fs::write(dir.join("ca.key"), "not a key").expect("writes");
    assert!(matches!(Pki::load_or_create(dir, &options(&[])), Err(Error::Content { .. })));
}

#[tokio::test]
async fn a_client_certificate_names_its_user() {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::load_or_create(folder.path(), &options(&[])).expect("makes");
    let pair = pki.issue_client("system:node:one", &["system:nodes", "more"]).expect("issues");
    let leaf = CertificateDer::from_pem_slice(pair.cert_pem.as_bytes()).expect("reads");
    let headers = HeaderMap::new();
    let chain = [leaf];
    let credentials = Credentials { certificates: &chain, headers: &headers };
    let certificates = ClientCertificate::new(pki.ca_pem()).expect("an authority");
    let user = certificates.authenticate(&credentials).await.expect("works").expect("is known");
    let again = certificates.authenticate(&credentials).await.expect("works").expect("is known");
    assert_eq!(user, again);
    assert_eq!(user.name, "system:node:one");
    assert_eq!(user.groups, ["system:nodes", "more", "system:authenticated"]);
    pki.server_config(pki.server(), ClientAuth::Optional).expect("serves");
    pki.server_config(&pair, ClientAuth::Required).expect("serves");
}

#[tokio::test]
async fn a_front_proxy_says_who_asks_and_nobody_else_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::load_or_create(folder.path(), &options(&[])).expect("makes");
    let names = vec![FRONT_PROXY_CLIENT.to_owned()];
    let proxy = FrontProxy::new(pki.front_proxy_ca_pem(), names, FrontProxyHeaders::default()).expect("made");
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-remote-user", "jane"),
        ("x-remote-uid", "u1"),
        ("x-remote-group", "dev"),
        ("x-remote-extra-example.org%2fscope", "a"),
    ] {
        headers.append(name, value.parse().expect("a value"));
    }
    let chain = |pair: &CertPair| [CertificateDer::from_pem_slice(pair.cert_pem.as_bytes()).expect("reads")];
    let own = chain(pki.front_proxy_client());
    let found = proxy.authenticate(&Credentials { certificates: &own, headers: &headers }).await;
    let user = found.expect("works").expect("is known");
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "u1"));
    assert_eq!(user.groups, ["dev", "system:authenticated"]);
    assert_eq!(user.extra["example.org/scope"], ["a"]);
    let foreign = chain(&pki.issue_client(FRONT_PROXY_CLIENT, &[]).expect("issued"));
    let found = proxy.authenticate(&Credentials { certificates: &foreign, headers: &headers }).await;
    assert!(matches!(found, Ok(None)), "a client of the cluster is no proxy");
    let nobody = HeaderMap::new();
    let found = proxy.authenticate(&Credentials { certificates: &own, headers: &nobody }).await;
    assert!(matches!(found, Ok(None)));
}

#[tokio::test]
async fn without_credentials_one_is_anonymous_and_with_bad_ones_refused() {
    let mut headers = HeaderMap::new();
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::load_or_create(folder.path(), &options(&[])).expect("makes");
    let certificates = || Box::new(ClientCertificate::new(pki.ca_pem()).expect("an authority"));
    let open = Chain::new(vec![certificates()], true);
    let closed = Chain::new(vec![certificates()], false);
    let none = Credentials { certificates: &[], headers: &headers };
    assert_eq!(
        open.authenticate(&none, "/").await.map(|user| user.name).ok().as_deref(),
        Some("system:anonymous")
    );
    assert!(closed.authenticate(&none, "/").await.is_err());
    headers.insert("authorization", "Bearer unknown".parse().expect("a header"));
    let bad = Credentials { certificates: &[], headers: &headers };
    assert!(open.authenticate(&bad, "/").await.is_err());
}
