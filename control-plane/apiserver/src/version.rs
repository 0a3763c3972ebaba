//! `/version`, and `/`, which lists the paths.

use http::StatusCode;
use serde_json::json;

use crate::respond::{self, Answer};
use skep_machinery::kind::KindInfo;

/// The Kubernetes version served.
pub const VERSION: &str = "v1.36.0+skep";

/// `/version`
pub(crate) fn version() -> Answer {
    let info = json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": VERSION,
        "gitCommit": option_env!("SKEP_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean",
        "buildDate": option_env!("SKEP_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    });
    respond::json(StatusCode::OK, &info)
}

/// The machine's architecture in the words clients know.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/`
pub(crate) fn paths(kinds: &[KindInfo]) -> Answer {
    let mut paths: Vec<String> = vec!["/api".to_owned(), "/apis".to_owned()];
    for kind in kinds {
        let group = &kind.gvk.group;
        if group.is_empty() {
            paths.push(format!("/api/{}", kind.gvk.version));
        } else {
            paths.push(format!("/apis/{group}"));
            paths.push(format!("/apis/{group}/{}", kind.gvk.version));
        }
    }
    for path in ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"] {
        paths.push(path.to_owned());
    }
    paths.sort();
    paths.dedup();
    respond::json(StatusCode::OK, &json!({"paths": paths}))
}
