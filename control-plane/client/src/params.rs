//! Parameters of requests, and how they become a query.

use serde::Serialize;
use serde_json::Value;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListParams {
    /// Label selector in its string form.
    pub label_selector: Option<String>,
    /// Field selector in its string form.
    pub field_selector: Option<String>,
    /// Chunk size; `Api::list` fetches one chunk, informers fetch all of them.
    pub limit: Option<u32>,
    /// Token of the next chunk.
    pub continue_token: Option<String>,
    /// `Some("0")`: any state the cache has; `None`: the newest.
    pub resource_version: Option<String>,
}

impl ListParams {
    /// Those with these labels.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { label_selector: Some(selector.into()), ..Self::default() }
    }

    /// Those with these fields.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { field_selector: Some(selector.into()), ..Self::default() }
    }

    pub(crate) fn query(&self, query: &mut Query) {
        query.opt("labelSelector", self.label_selector.as_deref());
        query.opt("fieldSelector", self.field_selector.as_deref());
        query.opt("limit", self.limit.map(|l| l.to_string()).as_deref());
        query.opt("continue", self.continue_token.as_deref());
        query.opt("resourceVersion", self.resource_version.as_deref());
    }
}

/// What to watch, and from where.
#[derive(Clone, Debug, Default)]
pub struct WatchParams {
    /// Label selector in its string form.
    pub label_selector: Option<String>,
    /// Field selector in its string form.
    pub field_selector: Option<String>,
    /// Revision after which events are wanted; `None` starts with synthetic ADDED events.
    pub resource_version: Option<String>,
    /// The server closes the watch after this many seconds.
    pub timeout_seconds: Option<u32>,
    /// Ask for bookmarks.
    pub bookmarks: bool,
    /// The initial state as ADDED events, ended by a marked bookmark.
    pub send_initial_events: bool,
}

impl WatchParams {
    pub(crate) fn query(&self, query: &mut Query) {
        query.add("watch", "true");
        query.opt("labelSelector", self.label_selector.as_deref());
        query.opt("fieldSelector", self.field_selector.as_deref());
        query.opt("resourceVersion", self.resource_version.as_deref());
        query.opt("timeoutSeconds", self.timeout_seconds.map(|t| t.to_string()).as_deref());
        if self.bookmarks {
            query.add("allowWatchBookmarks", "true");
        }
        if self.send_initial_events {
            query.add("sendInitialEvents", "true");
            query.add("resourceVersionMatch", "NotOlderThan");
        }
    }
}

/// A patch and its kind.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Strategic merge.
    Strategic(Value),
    /// Server-side apply: the fields this manager wants.
    Apply(Value),
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json-patch+json",
            Self::Merge(_) => "application/merge-patch+json",
            Self::Strategic(_) => "application/strategic-merge-patch+json",
            Self::Apply(_) => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn body(&self) -> &Value {
        match self {
            Self::Json(v) | Self::Merge(v) | Self::Strategic(v) | Self::Apply(v) => v,
        }
    }
}

/// How to patch.
#[derive(Clone, Debug, Default)]
pub struct PatchParams {
    /// Field manager; required for apply.
    pub field_manager: Option<String>,
    /// Take over fields of other managers (apply only).
    pub force: bool,
    /// Check only.
    pub dry_run: bool,
}

impl PatchParams {
    /// Server-side apply as this manager, taking over conflicts.
    pub fn apply(manager: impl Into<String>) -> Self {
        Self { field_manager: Some(manager.into()), force: true, dry_run: false }
    }

    pub(crate) fn query(&self, query: &mut Query) {
        query.opt("fieldManager", self.field_manager.as_deref());
        if self.force {
            query.add("force", "true");
        }
        if self.dry_run {
            query.add("dryRun", "All");
        }
    }
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Propagation {
    /// Dependents go after.
    Background,
    /// Dependents go first.
    Foreground,
    /// Dependents stay and lose their owner reference.
    Orphan,
}

/// What must hold for a delete to happen.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preconditions {
    /// Exactly this object, not another of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Unchanged since this revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// How to delete.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteParams {
    /// Seconds of grace; `Some(0)` is at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<u32>,
    /// What happens to dependents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<Propagation>,
    /// Conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
}

impl DeleteParams {
    /// Only the object with this uid.
    pub fn uid(uid: impl Into<String>) -> Self {
        Self {
            preconditions: Some(Preconditions { uid: Some(uid.into()), resource_version: None }),
            ..Self::default()
        }
    }

    /// With dependents handled so.
    #[must_use]
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation_policy = Some(propagation);
        self
    }

    /// With this grace.
    #[must_use]
    pub fn grace(mut self, seconds: u32) -> Self {
        self.grace_period_seconds = Some(seconds);
        self
    }
}

/// A query string under construction.
#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn add(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        escape(value, &mut self.0);
    }

    pub(crate) fn opt(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Percent-encodes all but unreserved characters; for queries and path segments alike.
pub(crate) fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'A' + n - 10 });
            out.push('%');
            out.push(digit(byte >> 4));
            out.push(digit(byte & 15));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_escapes_values() {
        let mut query = Query::default();
        ListParams { label_selector: Some("a in (b,c)".into()), ..ListParams::default() }.query(&mut query);
        assert_eq!(query.as_str(), "?labelSelector=a%20in%20%28b%2Cc%29");
    }
}
