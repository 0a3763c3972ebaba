//! Who we are to the other side. Never shown by `Debug`, never in an error.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tokio::time::Instant;

use crate::Error;

/// Tokens in files rotate; a file is read again after this long.
const REREAD: Duration = Duration::from_secs(60);

/// A token is no longer than this.
const MAX_TOKEN: u64 = 64 << 10;

/// A client certificate, a token, or a password.
#[derive(Default)]
pub struct Credentials {
    /// A client certificate chain and its key, PEM.
    pub(crate) certificate: Option<(String, String)>,
    /// A bearer token.
    pub(crate) token: Option<String>,
    /// A file with a bearer token that others rotate.
    pub(crate) token_file: Option<PathBuf>,
    /// User and password.
    pub(crate) basic: Option<(String, String)>,
    pub(crate) seen: Mutex<Option<(Instant, HeaderValue)>>,
}

impl Credentials {
    /// A client certificate.
    pub fn certificate(cert_pem: impl Into<String>, key_pem: impl Into<String>) -> Self {
        Self { certificate: Some((cert_pem.into(), key_pem.into())), ..Self::default() }
    }

    /// A bearer token.
    pub fn token(token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..Self::default() }
    }

    /// A file with a bearer token, read again from time to time.
    pub fn token_file(path: impl Into<PathBuf>) -> Self {
        Self { token_file: Some(path.into()), ..Self::default() }
    }

    /// The `Authorization` header, if there is to be one.
    pub(crate) async fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        if let Some(path) = &self.token_file {
            if let Some((at, value)) = &*self.seen.lock().unwrap_or_else(PoisonError::into_inner)
                && at.elapsed() < REREAD
            {
                return Ok(Some(value.clone()));
            }
            let fail = |error: &dyn fmt::Display| Error::Config(format!("{}: {error}", path.display()));
            let size = tokio::fs::metadata(path).await.map_err(|error| fail(&error))?.len();
            if size > MAX_TOKEN {
                return Err(fail(&"too long for a token"));
            }
            let text = tokio::fs::read_to_string(path).await.map_err(|error| fail(&error))?;
            let value = header(&format!("Bearer {}", text.trim()))?;
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), value.clone()));
            return Ok(Some(value));
        }
        if let Some(token) = &self.token {
            return header(&format!("Bearer {token}")).map(Some);
        }
        if let Some((user, password)) = &self.basic {
            return header(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))).map(Some);
        }
        Ok(None)
    }
}

fn header(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::Config("the credentials hold characters a header can't".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("certificate", &self.certificate.is_some())
            .field("token", &(self.token.is_some() || self.token_file.is_some()))
            .field("basic", &self.basic.is_some())
            .finish()
    }
}
