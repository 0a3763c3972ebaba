//! `/healthz`, `/livez`, `/readyz`: a line for each check when asked with `?verbose` or when one fails.

use std::fmt::Write as _;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::StatusCode;

use crate::query::Query;
use crate::respond::{self, Answer};
use crate::server::Inner;

/// A named condition.
#[derive(Clone)]
pub struct Check {
    /// Its name, as `/readyz/NAME` spells it.
    pub name: &'static str,
    /// Does it hold? The error is for those who ask for this one by name.
    pub passes: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

/// Answers a health path; `None` when it is none.
pub(crate) async fn handle(inner: &Inner, path: &str, query: Option<&str>) -> Option<Answer> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts.next().filter(|name| matches!(*name, "healthz" | "livez" | "readyz"))?;
    let single = parts.next();
    let query = Query::parse(query).unwrap_or_default();
    let mut results: Vec<(&str, Result<(), String>)> = vec![("ping", Ok(())), ("log", Ok(()))];
    let held = |held: bool| if held { Ok(()) } else { Err("not ready".to_owned()) };
    if endpoint != "livez" {
        results.push(("etcd", held(inner.registry.ping().await.is_ok())));
    }
    results.push(("poststarthook/start-registry-caches", held(inner.registry.ready())));
    for check in &inner.checks {
        // Not of liveness: what others lack no restart of this server mends. And each is asked by its name or
        // with all, never for another's sake.
        if endpoint != "livez" && single.is_none_or(|name| name == check.name) {
            results.push((check.name, (check.passes)().await));
        }
    }
    if endpoint == "readyz" {
        let open = !inner.draining.is_cancelled() && !inner.closing.is_cancelled();
        results.push(("shutdown", held(open)));
    }
    if let Some(single) = single {
        let Some((_, outcome)) = results.iter().find(|(name, _)| *name == single) else {
            return Some(respond::text(StatusCode::NOT_FOUND, "404 page not found\n"));
        };
        return Some(match outcome {
            Ok(()) => respond::text(StatusCode::OK, "ok"),
            Err(why) => {
                let text = format!("internal server error: {why}");
                respond::text(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        });
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    results.retain(|(name, _)| !excluded.contains(name));
    let failed = results.iter().any(|(_, outcome)| outcome.is_err());
    if !failed && !query.flag("verbose") {
        return Some(respond::text(StatusCode::OK, "ok"));
    }
    let mut lines = String::new();
    for (name, outcome) in &results {
        // Writing to a string can't fail.
        let _ = if outcome.is_ok() {
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
