//! Image references: `[host[:port]/]repository[:tag][@digest]`, normalised as Docker does.

use std::fmt;

use crate::{Error, Result};

/// A parsed, complete reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Registry host with its port; `docker.io` when none was given.
    pub host: String,
    /// Repository path.
    pub repository: String,
    /// The tag, unless only a digest was given.
    pub tag: Option<String>,
    /// The digest, when given.
    pub digest: Option<String>,
}

/// A reference longer than this is refused.
const MAX: usize = 1024;

impl Reference {
    /// Parses and normalises: `busybox` is `docker.io/library/busybox:latest`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why| Error::Reference(text.chars().take(256).collect(), why);
        if text.is_empty() || text.len() > MAX {
            return Err(bad("empty or too long"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                if !is_digest(digest) {
                    return Err(bad("malformed digest"));
                }
                (rest, Some(digest.to_owned()))
            }
            None => (text, None),
        };
        // A colon after the last slash starts the tag; before it, it belongs to the port.
        let tag_at = rest.rfind(':').filter(|colon| rest.rfind('/').is_none_or(|slash| slash < *colon));
        let (path, tag) = match tag_at {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("malformed tag"));
        }
        let (host, repository) = match path.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest.to_owned())
            }
            _ => ("docker.io", path.to_owned()),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let repository = if host == "docker.io" && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        if !is_host(host) {
            return Err(bad("malformed registry host"));
        }
        if !repository.split('/').all(is_component) {
            return Err(bad("repository name must be lowercase components"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some("latest".to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self { host: host.to_owned(), repository, tag, digest })
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    #[must_use]
    pub fn target(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// `sha256:` and 64 lower-case hexadecimal digits; no other algorithm is served.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

fn is_component(part: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(edge)
        && part.ends_with(edge)
        && part
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_normalised() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let table = [
            ("busybox".to_owned(), "docker.io/library/busybox:latest".to_owned()),
            ("a/b:1".to_owned(), "docker.io/a/b:1".to_owned()),
            ("localhost/x".to_owned(), "localhost/x:latest".to_owned()),
            ("127.0.0.1:5000/x/y".to_owned(), "127.0.0.1:5000/x/y:latest".to_owned()),
            (format!("r.io/x@{digest}"), format!("r.io/x@{digest}")),
            (format!("r.io/x:v1@{digest}"), format!("r.io/x:v1@{digest}")),
        ];
        for (input, expected) in table {
            assert_eq!(Reference::parse(&input).unwrap().to_string(), expected, "{input}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "UPPER", "a b", "x:", "x@sha256:12", "r.io/", "r.io//x", "x:!", "-x", "r$.io/x"] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
