//! The head of a request: path, query, what is accepted, who it says it is.

use std::str;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue, Method};
use skep_apiserver::input;
use skep_apiserver::negotiate::{self, Offer};
use skep_apiserver::query::Query;
use skep_apiserver::request_info::RequestInfo;
use skep_auth::authentication::{Credentials, unescape};

use crate::{Target, two};

/// A path, a zero byte, a query.
pub(crate) const REQUEST: Target = Target {
    name: "request",
    about: "paths and queries",
    run: request,
    seeds: &[
        b"/api/v1/namespaces/a/pods/p/log\0follow=true&container=c&tailLines=5",
        b"/apis/apps/v1/watch/namespaces/a/deployments/d\0resourceVersion=0&sendInitialEvents=true",
        b"/api/v1/namespaces/a/services/http:s:80/proxy/x//y/%2e%2e/\0a=%zz&&=",
        b"/api/v1/pods\0fieldSelector=metadata.name%3Da,spec.nodeName!%3Db&labelSelector=a+in+(b)&limit=5&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiJhXHUwMDAwIn0",
        b"/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode\0dryRun=All&fieldValidation=Strict&timeout=5s",
    ],
};

fn request(bytes: &[u8]) {
    let (path, query) = two(bytes);
    let (Ok(path), Ok(query)) = (str::from_utf8(path), str::from_utf8(query)) else { return };
    let Ok(query) = Query::parse(Some(query)) else { return };
    for method in [Method::GET, Method::DELETE, Method::PUT] {
        let info = RequestInfo::new(&method, path, &query);
        let Some(resource) = &info.resource else { continue };
        drop(input::list_options(&query, &resource.namespace));
        drop(input::watch_options(&query, &resource.namespace, &resource.name));
    }
    drop(input::get_version(&query));
}

/// The value of a header, as any header that is read.
pub(crate) const HEADERS: Target = Target {
    name: "headers",
    about: "headers of requests",
    run: headers,
    seeds: &[
        b"application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.5",
        b"application/vnd.kubernetes.protobuf;type=watch, */*",
        b"Bearer a.b.c",
        b"base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io",
        b"gzip;q=0, identity",
        b"acme.com%2fproject%%",
    ],
};

fn headers(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    for name in [ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL] {
        headers.insert(name, value.clone());
    }
    for offer in [Offer { shapes: true, protobuf: true }, Offer { shapes: false, protobuf: false }] {
        drop(negotiate::form(&headers, offer));
    }
    drop(Credentials::none(&headers).bearer());
    if let Ok(text) = value.to_str() {
        drop(unescape(text));
    }
}
