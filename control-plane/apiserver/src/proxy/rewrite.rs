//! Answers of what is behind `/proxy`, made to lead back through it: the Location of redirects and the
//! links of HTML pages that begin at the root of the server, or name it, get the path of the proxy in
//! front.

use std::io::{Read as _, Write as _};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use futures::{StreamExt, stream};
use http::HeaderValue;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http_body_util::BodyExt;

use crate::respond::Answer;

/// Pages longer than this pass unchanged.
const LONGEST: usize = 8 << 20;

/// The attributes that hold URLs, by element.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text whatever it looks like.
const RAW: [&str; 8] = ["script", "style", "textarea", "title", "iframe", "noembed", "noframes", "xmp"];

/// Where a page came from and what leads back to there.
pub(super) struct Rewriter {
    /// The path of the proxy, without a slash at its end.
    pub(super) prefix: String,
    /// The hosts that mean the other end: its address, and what the client calls this server.
    pub(super) hosts: Vec<String>,
}

impl Rewriter {
    /// Rewrites what needs it in an answer.
    pub(super) async fn answer(&self, mut answer: Answer) -> Answer {
        if let Some(location) = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()) {
            let location = self.url(location);
            if let Ok(location) = HeaderValue::from_str(&location) {
                answer.headers_mut().insert(LOCATION, location);
            }
            return answer;
        }
        let (mut parts, body) = answer.into_parts();
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("text/html") {
            return Answer::from_parts(parts, body);
        }
        let encoding = text(CONTENT_ENCODING).to_owned();
        let page = match whole(body).await {
            Ok(page) => page,
            Err(body) => return Answer::from_parts(parts, body),
        };
        let body = match self.page(&page, &encoding) {
            Some(rewritten) => {
                parts.headers.remove(CONTENT_LENGTH);
                Body::from(rewritten)
            }
            None => Body::from(page),
        };
        Answer::from_parts(parts, body)
    }

    /// A page in its encoding; `None` when that is unknown or broken.
    fn page(&self, page: &[u8], encoding: &str) -> Option<Vec<u8>> {
        let limit = LONGEST as u64 * 4;
        let mut plain = Vec::new();
        match encoding {
            "" => return Some(self.html(page)),
            "gzip" => GzDecoder::new(page).take(limit).read_to_end(&mut plain).ok()?,
            "deflate" => DeflateDecoder::new(page).take(limit).read_to_end(&mut plain).ok()?,
            _ => return None,
        };
        if plain.len() as u64 == limit {
            return None;
        }
        let html = self.html(&plain);
        if encoding == "gzip" {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&html).ok()?;
            return encoder.finish().ok();
        }
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&html).ok()?;
        encoder.finish().ok()
    }

    /// One URL.
    fn url(&self, url: &str) -> String {
        let (host, path) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            _ => match url.strip_prefix("//") {
                Some(rest) => {
                    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                    (Some(&rest[..end]), &rest[end..])
                }
                None => (None, url),
            },
        };
        let elsewhere = host.is_some_and(|host| !self.hosts.iter().any(|known| known == host));
        if elsewhere || !path.starts_with('/') {
            return url.to_owned();
        }
        let inside = path
            .strip_prefix(&self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
        if inside { path.to_owned() } else { format!("{}{path}", self.prefix) }
    }

    /// A page. What is no well-formed tag passes unchanged.
    fn html(&self, page: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len() + page.len() / 8);
        let mut rest = page;
        while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with(b"<!--") {
                let end = find(rest, b"-->").map_or(rest.len(), |end| end + 3);
                out.extend_from_slice(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            let Some(tag) = Tag::read(rest) else {
                out.push(b'<');
                rest = &rest[1..];
                continue;
            };
            let links = LINKS.iter().find(|(name, _)| *name == tag.name).map_or(&[][..], |(_, links)| *links);
            let mut copied = 0;
            for (name, start, end) in &tag.attributes {
                if !links.contains(&name.as_str()) {
                    continue;
                }
                let Ok(url) = std::str::from_utf8(&rest[*start..*end]) else { continue };
                out.extend_from_slice(&rest[copied..*start]);
                out.extend_from_slice(self.url(url).as_bytes());
                copied = *end;
            }
            out.extend_from_slice(&rest[copied..tag.end]);
            rest = &rest[tag.end..];
            if RAW.contains(&tag.name.as_str()) {
                let end = end_of_raw(rest, &tag.name);
                out.extend_from_slice(&rest[..end]);
                rest = &rest[end..];
            }
        }
        out.extend_from_slice(rest);
        out
    }
}

/// A whole body, or the same body again when it is too long.
async fn whole(mut body: Body) -> Result<Bytes, Body> {
    let mut page = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => page.extend_from_slice(&data),
            Ok(Err(_)) => {}
            Err(error) => {
                let broken = stream::iter([Ok(page.freeze()), Err(error)]);
                return Err(Body::from_stream(broken));
            }
        }
        if page.len() > LONGEST {
            let first = stream::iter([Ok(page.freeze())]);
            return Err(Body::from_stream(first.chain(body.into_data_stream())));
        }
    }
    Ok(page.freeze())
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Where the end tag of an element of raw text begins.
fn end_of_raw(text: &[u8], name: &str) -> usize {
    let mut from = 0;
    while let Some(at) = find(&text[from..], b"</").map(|at| at + from) {
        let after = &text[at + 2..];
        if after.len() >= name.len() && after[..name.len()].eq_ignore_ascii_case(name.as_bytes()) {
            return at;
        }
        from = at + 2;
    }
    text.len()
}

/// A start tag.
struct Tag {
    name: String,
    /// Name, and where the value begins and ends.
    attributes: Vec<(String, usize, usize)>,
    /// Behind its `>`.
    end: usize,
}

impl Tag {
    /// Reads a start tag at the beginning of `text`.
    fn read(text: &[u8]) -> Option<Self> {
        let byte = |at: usize| text.get(at).copied();
        let lower = |from: usize, to: usize| String::from_utf8_lossy(&text[from..to]).to_ascii_lowercase();
        let mut at = 1;
        if !byte(at)?.is_ascii_alphabetic() {
            return None;
        }
        while !matches!(byte(at)?, b'>' | b'/') && !byte(at)?.is_ascii_whitespace() {
            at += 1;
        }
        let name = lower(1, at);
        let mut attributes = Vec::new();
        loop {
            while byte(at)? == b'/' || byte(at)?.is_ascii_whitespace() {
                at += 1;
            }
            if byte(at)? == b'>' {
                return Some(Self { name, attributes, end: at + 1 });
            }
            let start = at;
            at += 1;
            while !matches!(byte(at)?, b'=' | b'>' | b'/') && !byte(at)?.is_ascii_whitespace() {
                at += 1;
            }
            let attribute = lower(start, at);
            while byte(at)?.is_ascii_whitespace() {
                at += 1;
            }
            if byte(at)? != b'=' {
                continue;
            }
            at += 1;
            while byte(at)?.is_ascii_whitespace() {
                at += 1;
            }
            let quote = byte(at)?;
            if matches!(quote, b'"' | b'\'') {
                let start = at + 1;
                at = start;
                while byte(at)? != quote {
                    at += 1;
                }
                attributes.push((attribute, start, at));
                at += 1;
            } else {
                let start = at;
                while byte(at)? != b'>' && !byte(at)?.is_ascii_whitespace() {
                    at += 1;
                }
                attributes.push((attribute, start, at));
            }
        }
    }
}

/// A page, a packed one and a URL of any bytes; a page without attributes passes unchanged.
pub(super) fn fuzz(bytes: &[u8]) {
    let rewriter = Rewriter { prefix: "/proxy".to_owned(), hosts: vec!["here".to_owned()] };
    let page = rewriter.html(bytes);
    assert!(bytes.contains(&b'=') || page == bytes, "a page without attributes has no links");
    for encoding in ["gzip", "deflate"] {
        drop(rewriter.page(bytes, encoding));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(rewriter.url(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewriter() -> Rewriter {
        Rewriter {
            prefix: "/api/v1/namespaces/n/pods/p/proxy".to_owned(),
            hosts: vec!["10.0.0.1:8080".to_owned(), "localhost:8001".to_owned()],
        }
    }

    #[test]
    fn urls_that_mean_the_other_end_lead_back_through_the_proxy() {
        let prefix = rewriter().prefix;
        for (url, want) in [
            ("/a/b?c=d", format!("{prefix}/a/b?c=d")),
            ("http://10.0.0.1:8080/x/", format!("{prefix}/x/")),
            ("//localhost:8001/x", format!("{prefix}/x")),
            ("http://example.com/x", "http://example.com/x".to_owned()),
            ("//example.com/x", "//example.com/x".to_owned()),
            ("relative/x", "relative/x".to_owned()),
            ("?q=1", "?q=1".to_owned()),
            ("mailto:x@example.com", "mailto:x@example.com".to_owned()),
            (&format!("{prefix}/already"), format!("{prefix}/already")),
        ] {
            assert_eq!(rewriter().url(url), want, "{url}");
        }
    }

    #[test]
    fn links_of_pages_are_rewritten_and_the_rest_is_left_alone() {
        let page = concat!(
            "<!DOCTYPE html><!-- <a href=\"/no\"> --><HTML><A class=x HREF='/yes?a=1&amp;b=2'>1 < 2</A>",
            "<img src=/i.png alt=\"/no\"/><script src=\"/s.js\">if (a</b/) x(\"<a href='/no'>\")</script>",
            "<p title=\"/no\"><a href=\"rel\"><a href=\"/open",
        );
        let html = rewriter().html(page.as_bytes());
        let prefix = rewriter().prefix;
        let wanted = page
            .replace("'/yes", &format!("'{prefix}/yes"))
            .replace("=/i.png", &format!("={prefix}/i.png"))
            .replace("/s.js", &format!("{prefix}/s.js"));
        assert_eq!(String::from_utf8_lossy(&html), wanted);
    }

    #[test]
    fn compressed_pages_are_rewritten_too() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"<a href=\"/x\">").expect("written");
        let packed = rewriter().page(&encoder.finish().expect("packed"), "gzip").expect("rewritten");
        let mut html = String::new();
        GzDecoder::new(&packed[..]).read_to_string(&mut html).expect("unpacked");
        assert_eq!(html, "<a href=\"/api/v1/namespaces/n/pods/p/proxy/x\">");
        assert_eq!(rewriter().page(b"x", "br"), None);
    }
}
