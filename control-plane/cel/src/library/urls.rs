//! URLs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Outcome, fail, mismatch};
use crate::functions::{Body, Declare};
use crate::value::{Key, Library, Text, Value};

/// A URL in parts. Unlike browsers' URLs it may be a bare path, and nothing in it is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As written.
    pub(crate) text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

pub(super) fn declare(declare: Declare<'_>) {
    declare("string_to_url", "url(string) -> kubernetes.URL", |args| match args {
        [Value::String(text)] => match Url::parse(text) {
            Ok(url) => Ok(Value::Library(Library::Url(Arc::new(url)))),
            Err(why) => fail(format!("URL parse error during conversion from string: {why}")),
        },
        _ => mismatch(),
    });
    declare("is_url_string", "isURL(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(Url::parse(text).is_ok())),
        _ => mismatch(),
    });
    let parts: [(&str, &str, Body); 5] = [
        ("url_get_scheme", "getScheme", |args| part(args, |url| url.scheme.clone())),
        ("url_get_host", "getHost", |args| part(args, |url| url.host.clone())),
        ("url_get_hostname", "getHostname", |args| part(args, |url| split_port(&url.host).0.to_owned())),
        ("url_get_port", "getPort", |args| part(args, |url| split_port(&url.host).1.to_owned())),
        ("url_get_escaped_path", "getEscapedPath", |args| part(args, |url| url.path.clone())),
    ];
    for (id, name, body) in parts {
        declare(id, &format!("(kubernetes.URL).{name}() -> string"), body);
    }
    declare("url_get_query", "(kubernetes.URL).getQuery() -> map(string, list(string))", query);
}

fn part<'a>(args: &[Value<'a>], of: fn(&Url) -> String) -> Outcome<'a> {
    match args {
        [Value::Library(Library::Url(url))] => Ok(of(url).into()),
        _ => mismatch(),
    }
}

/// Host and port; the brackets of an address are no part of it.
fn split_port(host: &str) -> (&str, &str) {
    if let Some(inner) = host.strip_prefix('[') {
        let (address, rest) = inner.split_once(']').unwrap_or((inner, ""));
        return (address, rest.strip_prefix(':').unwrap_or_default());
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

impl Url {
    /// An absolute URL or an absolute path.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let quoted = || format!("parse {:?}", text.chars().take(256).collect::<String>());
        if text.is_empty() {
            return Err(format!("{}: empty url", quoted()));
        }
        if text.chars().any(char::is_control) {
            return Err(format!("{}: net/url: invalid control character in URL", quoted()));
        }
        let (rest, _fragment) = text.split_once('#').unwrap_or((text, ""));
        let (scheme, rest) = match scheme(rest) {
            Some((scheme, after)) => (scheme.to_ascii_lowercase(), after),
            None if rest.starts_with(':') => return Err(format!("{}: missing protocol scheme", quoted())),
            None => (String::new(), rest),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') && scheme.is_empty() {
            return Err(format!("{}: invalid URI for request", quoted()));
        }
        let (host, path) = match rest.strip_prefix("//") {
            Some(after) if !scheme.is_empty() || !after.starts_with('/') => {
                let end = after.find('/').unwrap_or(after.len());
                let authority = &after[..end];
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                check_host(host).map_err(|why| format!("{}: {why}", quoted()))?;
                (host.to_owned(), &after[end..])
            }
            _ if !rest.starts_with('/') => return Ok(Self::opaque(text, scheme, query)),
            _ => (String::new(), rest),
        };
        let path = escape_path(path).map_err(|why| format!("{}: {why}", quoted()))?;
        Ok(Self { text: text.to_owned(), scheme, host, path, query: query.to_owned() })
    }

    /// `mailto:someone`: no host, no path.
    fn opaque(text: &str, scheme: String, query: &str) -> Self {
        Self {
            text: text.to_owned(),
            scheme,
            host: String::new(),
            path: String::new(),
            query: query.to_owned(),
        }
    }
}

fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let letters = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    letters.then_some((scheme, rest))
}

fn check_host(host: &str) -> Result<(), String> {
    if let Some(bracketed) = host.strip_prefix('[') {
        let Some((inside, rest)) = bracketed.split_once(']') else {
            return Err("missing ']' in host".to_owned());
        };
        let address = inside.split_once("%25").map_or(inside, |(address, _)| address);
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("invalid host".to_owned());
        }
        return check_port(rest);
    }
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, format!(":{port}")),
        None => (host, String::new()),
    };
    if let Some(bad) = name.chars().find(|c| " \"<>\\^`{|}[]/?#@".contains(*c)) {
        return Err(format!("invalid character {:?} in host name", bad.to_string()));
    }
    check_port(&port)
}

fn check_port(port: &str) -> Result<(), String> {
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(digits) if digits.chars().all(|c| c.is_ascii_digit()) => Ok(()),
        _ => Err(format!("invalid port {port:?} after host")),
    }
}

/// The path with what may not stand in one escaped.
fn escape_path(path: &str) -> Result<String, String> {
    let mut out = String::with_capacity(path.len());
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'%' {
            let hex = path.get(at + 1..at + 3).filter(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()));
            let Some(hex) = hex else {
                let shown: String = path.get(at..).unwrap_or_default().chars().take(3).collect();
                return Err(format!("invalid URL escape {shown:?}"));
            };
            out.push('%');
            out.push_str(hex);
            at += 3;
            continue;
        }
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        at += 1;
    }
    Ok(out)
}

fn query<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Library(Library::Url(url))] = args else { return mismatch() };
    let mut values: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for (key, value) in url::form_urlencoded::parse(url.query.as_bytes()) {
        values.entry(key.into_owned()).or_default().push(value.into_owned().into());
    }
    Ok(Value::map(values.into_iter().map(|(key, list)| (Key::String(Text::from(key)), Value::list(list)))))
}
