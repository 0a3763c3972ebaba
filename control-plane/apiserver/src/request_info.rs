//! What a request is about, read from its method and path.
//!
//! Paths are `/api/v1/…` and `/apis/GROUP/VERSION/…`, then `namespaces/NS/RESOURCE/NAME/SUBRESOURCE`,
//! each part optional from the end. `namespaces/NAME` itself is the cluster-scoped resource.

use http::Method;
use skep_api::names;
use skep_api::resource::GroupVersionResource;
use skep_api::selector::{FieldSelector, LabelSelector};

use crate::query::Query;

/// Namespaces and their own subresources, which are not resources inside a namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// A request to a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRequest {
    /// The resource.
    pub gvr: GroupVersionResource,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty for the collection.
    pub name: String,
    /// What follows the subresource: the path given to a proxied server.
    pub rest: Option<String>,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// The verb authorization is asked about.
    pub verb: &'static str,
    /// The path.
    pub path: String,
    /// The resource, if the path leads to one.
    pub resource: Option<ResourceRequest>,
    /// What a request for many objects is limited to.
    pub selected: Selected,
}

/// The selectors of a request for many objects, as far as they can be read; one that can't be is refused
/// later, and narrows nothing until then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// The one name a field selector leaves.
    pub name: String,
    /// By fields.
    pub fields: FieldSelector,
    /// By labels.
    pub labels: LabelSelector,
}

impl Selected {
    fn new(verb: &str, query: &Query) -> Self {
        if !matches!(verb, "list" | "watch" | "deletecollection") {
            return Self::default();
        }
        let text = |name: &str| query.get(name).unwrap_or_default();
        let fields = FieldSelector::parse(text("fieldSelector")).unwrap_or_default();
        let name = fields.exact("metadata.name").filter(|name| names::path_segment(name).is_empty());
        Self {
            // Who may read one object may list it; deleting it this way takes the right to delete many.
            name: name.filter(|_| verb != "deletecollection").unwrap_or_default().to_owned(),
            labels: LabelSelector::parse(text("labelSelector")).unwrap_or_default(),
            fields,
        }
    }
}

/// Undoes percent encoding of one path segment; `None` when it is malformed.
fn decode(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

impl RequestInfo {
    /// Reads a request.
    pub fn new(method: &Method, path: &str, query: &Query) -> Self {
        let old = is_old_watch(path);
        let watch = old || query.flag("watch");
        let resource = resource(path);
        let verb = match &resource {
            None => plain_verb(method),
            Some(resource) => resource_verb(method, resource, watch),
        };
        // Upstream reads no selectors of requests that say `watch` in their path.
        let selected = if old { Selected::default() } else { Selected::new(verb, query) };
        Self { verb, path: path.to_owned(), resource, selected }
    }
}

impl RequestInfo {
    /// Whether it lasts as long as the client likes: watches, and what goes on to a kubelet or a backend.
    pub fn is_long_running(&self) -> bool {
        const STREAMS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];
        let stream = |request: &ResourceRequest| STREAMS.contains(&request.subresource.as_str());
        self.verb == "watch" || self.resource.as_ref().is_some_and(stream)
    }
}

/// `/api/v1/watch/…`
fn is_old_watch(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    match parts.next() {
        Some("api") => parts.nth(1) == Some("watch"),
        Some("apis") => parts.nth(2) == Some("watch"),
        _ => false,
    }
}

fn plain_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "unknown",
    }
}

fn resource_verb(method: &Method, resource: &ResourceRequest, watch: bool) -> &'static str {
    let collection = resource.name.is_empty();
    match method.as_str() {
        "GET" | "HEAD" if collection && watch => "watch",
        "GET" | "HEAD" if collection => "list",
        // `?watch` on one name is an old form of a watch with a field selector.
        "GET" | "HEAD" if watch && resource.subresource.is_empty() => "watch",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if collection => "deletecollection",
        "DELETE" => "delete",
        _ => "unknown",
    }
}

fn resource(path: &str) -> Option<ResourceRequest> {
    let mut parts = path.strip_prefix('/')?.splitn(8, '/');
    let (group, version) = match parts.next()? {
        "api" => (String::new(), parts.next()?),
        "apis" => (decode(parts.next()?)?, parts.next()?),
        _ => return None,
    };
    let version = decode(version)?;
    // splitn keeps what follows the last part whole; split that again where it is needed.
    let tail: Vec<&str> = {
        let skip = if group.is_empty() { 2 } else { 3 };
        let mut rest = path.strip_prefix('/')?;
        for _ in 0..skip {
            rest = rest.split_once('/')?.1;
        }
        let rest = rest.strip_prefix("watch/").unwrap_or(rest);
        rest.split('/').collect()
    };
    let first = *tail.first().filter(|first| !first.is_empty())?;
    let (namespace, at) = match tail.as_slice() {
        ["namespaces", namespace, third, ..]
            if !third.is_empty() && !NAMESPACE_SUBRESOURCES.contains(third) =>
        {
            (decode(namespace)?, 2)
        }
        _ => (String::new(), 0),
    };
    let part = |index: usize| tail.get(at + index).copied().unwrap_or_default();
    let plural = if at == 0 { decode(first)? } else { decode(part(0))? };
    let name = decode(part(1))?;
    // Requests about one namespace are authorized inside of it.
    let namespace =
        if at == 0 && plural == "namespaces" && group.is_empty() { name.clone() } else { namespace };
    let rest = (tail.len() > at + 3).then(|| tail[at + 3..].join("/"));
    Some(ResourceRequest {
        gvr: GroupVersionResource::new(group, version, plural),
        subresource: decode(part(2))?,
        namespace,
        name,
        rest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let cases = [
            ("GET", "/api/v1/pods", false, "list", "pods", "", "", ""),
            ("GET", "/api/v1/pods", true, "watch", "pods", "", "", ""),
            ("POST", "/api/v1/namespaces/a/pods", false, "create", "pods", "a", "", ""),
            ("GET", "/api/v1/namespaces/a/pods/p", false, "get", "pods", "a", "p", ""),
            ("GET", "/api/v1/namespaces/a/pods/p/log", false, "get", "pods", "a", "p", "log"),
            ("GET", "/api/v1/namespaces", false, "list", "namespaces", "", "", ""),
            ("GET", "/api/v1/namespaces/a", false, "get", "namespaces", "a", "a", ""),
            ("PUT", "/api/v1/namespaces/a/finalize", false, "update", "namespaces", "a", "a", "finalize"),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                false,
                "patch",
                "deployments",
                "a",
                "d",
                "scale",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                false,
                "deletecollection",
                "deployments",
                "a",
                "",
                "",
            ),
            ("DELETE", "/api/v1/nodes/n", false, "delete", "nodes", "", "n", ""),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:basic-user",
                false,
                "get",
                "clusterroles",
                "",
                "system:basic-user",
                "",
            ),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                false,
                "get",
                "clusterroles",
                "",
                "system:node",
                "",
            ),
        ];
        for (method, path, watch, verb, resource, namespace, name, subresource) in cases {
            let method = Method::from_bytes(method.as_bytes()).expect("method");
            let query = Query::parse(watch.then_some("watch=1")).expect("a query");
            let info = RequestInfo::new(&method, path, &query);
            let found = info.resource.expect(path);
            assert_eq!(info.verb, verb, "{path}");
            assert_eq!(found.gvr.resource, resource, "{path}");
            assert_eq!(found.namespace, namespace, "{path}");
            assert_eq!(found.name, name, "{path}");
            assert_eq!(found.subresource, subresource, "{path}");
        }
    }

    #[test]
    fn other_paths_are_no_resources() {
        for path in
            ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v3"]
        {
            assert_eq!(RequestInfo::new(&Method::GET, path, &Query::default()).resource, None, "{path}");
        }
    }

    #[test]
    fn the_rest_of_a_proxy_path_is_kept() {
        let info = RequestInfo::new(
            &Method::GET,
            "/api/v1/namespaces/a/services/http:s:80/proxy/x/y/",
            &Query::default(),
        );
        let resource = info.resource.expect("a resource");
        assert_eq!(resource.subresource, "proxy");
        assert_eq!(resource.name, "http:s:80");
        assert_eq!(resource.rest.as_deref(), Some("x/y/"));
    }

    #[test]
    fn selectors_are_part_of_what_is_asked() {
        let info = |method: Method, path: &str, query: &str| {
            RequestInfo::new(&method, path, &Query::parse(Some(query)).expect("a query")).selected
        };
        let secrets = "/api/v1/namespaces/a/secrets";
        let one = info(Method::GET, secrets, "fieldSelector=metadata.name%3Dx&labelSelector=a%3Db&watch=1");
        assert_eq!(one.name, "x");
        assert_eq!((one.fields.requirements().len(), one.labels.requirements().len()), (1, 1));
        assert_eq!(info(Method::GET, secrets, "fieldSelector=metadata.name!%3Dx").name, "");
        assert_eq!(info(Method::GET, secrets, "fieldSelector=metadata.name%3Da%2Fb").name, "");
        let deleted = info(Method::DELETE, secrets, "fieldSelector=metadata.name%3Dx");
        assert_eq!((deleted.name.as_str(), deleted.fields.requirements().len()), ("", 1));
        assert_eq!(
            info(Method::GET, secrets, "fieldSelector=nonsense&labelSelector=!!"),
            Selected::default()
        );
        let old = "/api/v1/watch/namespaces/a/secrets";
        assert_eq!(info(Method::GET, old, "fieldSelector=metadata.name%3Dx"), Selected::default());
        assert_eq!(info(Method::POST, secrets, "fieldSelector=metadata.name%3Dx"), Selected::default());
    }
}
