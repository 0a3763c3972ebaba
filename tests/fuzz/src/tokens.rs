//! Service-account tokens: nobody but the signer makes one that is believed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use skep_auth::authentication::TokenVerifier;
use skep_auth::tokens::{BoundObject, Lookup, Reference, Seen, ServiceAccountVerifier, Signer, TokenSpec};

use crate::Target;

/// Any bytes as a bearer token; `{}` stands for parts of a valid token.
pub(crate) const JWT: Target = Target {
    name: "jwt",
    about: "service-account tokens",
    run: jwt,
    seeds: &[
        b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2ZvcmdlZCJ9.AAAA",
        b"eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2ZvcmdlZCJ9.",
        b"a.b.c",
        b"..",
    ],
};

struct Everything;

#[async_trait]
impl Lookup for Everything {
    async fn seen(&self, _: BoundObject, _: &str, _: &str) -> Result<Option<Seen>, String> {
        Ok(Some(Seen { uid: String::new(), deleted: None }))
    }
}

struct World {
    verifier: ServiceAccountVerifier<Everything>,
    valid: String,
    runtime: tokio::runtime::Runtime,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let signer: Arc<Signer> =
            Signer::new(&key, "https://forged", vec!["https://forged".to_owned()]).expect("a signer");
        let spec = TokenSpec {
            namespace: "n".to_owned(),
            account: Reference { name: "a".to_owned(), uid: String::new() },
            audiences: Vec::new(),
            life: Duration::from_secs(3600),
            bound: None,
            node: None,
        };
        let valid = signer.issue(&spec).expect("a token").token;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        World { verifier: ServiceAccountVerifier::new(signer, Everything), valid, runtime }
    })
}

fn jwt(bytes: &[u8]) {
    let world = world();
    let text = String::from_utf8_lossy(bytes);
    let audiences = ["https://forged".to_owned()];
    let believed = |token: &str| {
        world
            .runtime
            .block_on(world.verifier.verify(token, &audiences))
            .is_ok_and(|verified| verified.is_some())
    };
    assert!(!believed(&text), "a forged token is believed");
    // The valid token with its header, its claims or its signature exchanged for the input.
    let parts: Vec<&str> = world.valid.split('.').collect();
    let [header, claims, signature] = parts[..] else { return };
    for forged in [
        format!("{text}.{claims}.{signature}"),
        format!("{header}.{text}.{signature}"),
        format!("{header}.{claims}.{text}"),
    ] {
        assert!(forged == world.valid || !believed(&forged), "a forged token is believed: {forged}");
    }
}
