//! `/healthz`, `/livez`, `/readyz`: a line for each check when asked with `?verbose` or when one fails.

use std::fmt::Write as _;
use std::sync::Arc;

use http::StatusCode;

use crate::query::Query;
use crate::respond::{self, Answer};
use crate::server::Inner;

/// A named condition.
#[derive(Clone)]
pub struct Check {
    /// Its name, as `/readyz/NAME` spells it.
    pub name: &'static str,
    /// Does it hold?
    pub passes: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Answers a health path; `None` when it is none.
pub(crate) async fn handle(inner: &Inner, path: &str, query: Option<&str>) -> Option<Answer> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts.next().filter(|name| matches!(*name, "healthz" | "livez" | "readyz"))?;
    let single = parts.next();
    let query = Query::parse(query).unwrap_or_default();
    let mut results: Vec<(&str, bool)> = vec![("ping", true), ("log", true)];
    if endpoint != "livez" {
        results.push(("etcd", inner.registry.ping().await.is_ok()));
    }
    results.push(("poststarthook/start-registry-caches", inner.registry.ready()));
    if endpoint == "readyz" {
        results.extend(inner.checks.iter().map(|check| (check.name, (check.passes)())));
        results.push(("shutdown", !inner.draining.is_cancelled() && !inner.closing.is_cancelled()));
    }
    if let Some(single) = single {
        let Some((_, passes)) = results.iter().find(|(name, _)| *name == single) else {
            return Some(respond::text(StatusCode::NOT_FOUND, "404 page not found\n"));
        };
        return Some(if *passes {
            respond::text(StatusCode::OK, "ok")
        } else {
            respond::text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: not ready")
        });
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    results.retain(|(name, _)| !excluded.contains(name));
    let failed = results.iter().any(|(_, passes)| !passes);
    if !failed && !query.flag("verbose") {
        return Some(respond::text(StatusCode::OK, "ok"));
    }
    let mut lines = String::new();
    for (name, passes) in &results {
        // Writing to a string can't fail.
        let _ = if *passes {
            writeln!(lines, "[+]{name} ok")
        } else {
            writeln!(lines, "[-]{name} failed: reason withheld")
        };
    }
    let verdict = if failed { "failed" } else { "passed" };
    let _ = writeln!(lines, "{endpoint} check {verdict}");
    let status = if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    Some(respond::text(status, lines))
}
