//! Front proxies: somebody in front of the API server has found out who asks, and says it in headers. It
//! is believed only with a client certificate of its own authority.

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::HeaderMap;
use skep_api::user::UserInfo;

use super::certificate::{Authorities, common_name, read};
use super::{Authenticator, Credentials, Error};
use crate::pki;

/// The headers a proxy says it in; several names of one header are tried in order.
#[derive(Clone, Debug)]
pub struct FrontProxyHeaders {
    /// The user.
    pub username: Vec<String>,
    /// Its uid.
    pub uid: Vec<String>,
    /// Its groups, a header each.
    pub group: Vec<String>,
    /// What the names of the headers of its extra keys begin with.
    pub extra_prefix: Vec<String>,
}

impl Default for FrontProxyHeaders {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            username: one("X-Remote-User"),
            uid: one("X-Remote-Uid"),
            group: one("X-Remote-Group"),
            extra_prefix: one("X-Remote-Extra-"),
        }
    }
}

/// Believes proxies.
#[derive(Debug)]
pub struct FrontProxy {
    authorities: Authorities,
    allowed: Vec<String>,
    headers: FrontProxyHeaders,
}

impl FrontProxy {
    /// Believes clients with a certificate of these authorities (PEM) whose common name is one of
    /// `allowed` (none: every name).
    pub fn new(ca_pem: &str, allowed: Vec<String>, headers: FrontProxyHeaders) -> Result<Self, pki::Error> {
        Ok(Self { authorities: Authorities::new(ca_pem)?, allowed, headers })
    }

    /// What it is told, without asking who says so.
    fn told(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let text = |names: &[String]| {
            let values = names.iter().filter_map(|name| headers.get(name.as_str())?.to_str().ok());
            values.map(str::trim).find(|value| !value.is_empty()).map(str::to_owned)
        };
        let name = text(&self.headers.username)?;
        let groups = self.headers.group.iter().flat_map(|name| headers.get_all(name.as_str()));
        let groups = groups.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for prefix in &self.headers.extra_prefix {
            let prefix = prefix.to_ascii_lowercase();
            for (header, value) in headers {
                let (Some(key), Ok(value)) = (header.as_str().strip_prefix(&prefix), value.to_str()) else {
                    continue;
                };
                extra.entry(unescape(key)).or_default().push(value.to_owned());
            }
        }
        Some(UserInfo { name, uid: text(&self.headers.uid).unwrap_or_default(), groups, extra })
    }
}

/// Undoes percent encoding, as keys in the names of headers have it; what is malformed stays as it is.
pub fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

#[async_trait]
impl Authenticator for FrontProxy {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Error> {
        let Some(leaf) = credentials.certificates.first() else { return Ok(None) };
        let Some(user) = self.told(credentials.headers) else { return Ok(None) };
        // A client of another authority is not a proxy: the headers are nothing but its words.
        if self.authorities.vouch(credentials.certificates).is_err() {
            return Ok(None);
        }
        let certificate = read(leaf)?;
        let name = common_name(&certificate);
        if !self.allowed.is_empty() && !self.allowed.iter().any(|allowed| allowed == name) {
            return Err(Error::Invalid(format!("{name:?} is no name of a front proxy")));
        }
        Ok(Some(authenticated(user)))
    }
}

/// A known user is `system:authenticated`, unless the proxy says that it is nobody.
fn authenticated(mut user: UserInfo) -> UserInfo {
    let is = |user: &UserInfo, group: &str| user.groups.iter().any(|own| own == group);
    let nobody = user.name == "system:anonymous" || is(&user, "system:unauthenticated");
    if !nobody && !is(&user, "system:authenticated") {
        user.groups.push("system:authenticated".to_owned());
    }
    user
}
