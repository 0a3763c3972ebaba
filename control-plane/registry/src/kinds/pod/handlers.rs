//! Rules of probes and life cycle hooks.

use skep_api::field::Error;
use skep_api::names;

use super::containers::port;
use crate::strategy::check::At;

const PROBE: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];

/// The three probes of a container.
pub(super) fn probes(container: &At<'_>) {
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.child(field);
        if !probe.is_set() {
            continue;
        }
        self::probe(&probe);
        let grace = probe.child("terminationGracePeriodSeconds");
        if field == "readinessProbe" {
            if grace.is_set() {
                grace.invalid("must not be set for readinessProbes");
            }
        } else {
            let success = probe.child("successThreshold");
            if success.int().is_some_and(|count| count != 1) {
                success.invalid("must be 1");
            }
        }
    }
}

fn probe(probe: &At<'_>) {
    handler(probe, PROBE, None);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        probe.child(field).non_negative();
    }
    probe.child("terminationGracePeriodSeconds").positive();
}

/// The hooks of a container; a sleep must end within the pod's grace period.
pub(super) fn lifecycle(lifecycle: &At<'_>, grace: Option<i64>) {
    for hook in ["postStart", "preStop"] {
        if lifecycle.child(hook).is_set() {
            handler(&lifecycle.child(hook), HOOK, grace);
        }
    }
}

fn handler(handler: &At<'_>, kinds: &[&str], grace: Option<i64>) {
    let mut found = 0;
    for kind in kinds {
        let action = handler.child(kind);
        if !action.is_set() {
            continue;
        }
        found += 1;
        if found > 1 {
            action.forbidden("may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" => {
                action.child("command").require();
            }
            "httpGet" => http_get(&action),
            "sleep" => sleep(&action, grace),
            _ => port(&action.child("port")),
        }
    }
    if found == 0 {
        handler.required("must specify a handler type");
    }
}

fn http_get(action: &At<'_>) {
    action.child("path").require();
    port(&action.child("port"));
    action.child("scheme").one_of(&["HTTP", "HTTPS"]);
    let headers = action.child("httpHeaders");
    for header in headers.items() {
        for detail in names::http_header(header.child("name").text()) {
            headers.error(Error::invalid(headers.path(), header.child("name").text(), detail));
        }
    }
}

fn sleep(action: &At<'_>, grace: Option<i64>) {
    let seconds = action.child("seconds").int().unwrap_or(0);
    if let Some(grace) = grace
        && (seconds < 0 || seconds > grace)
    {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        action.error(Error::invalid(action.path(), seconds, detail));
    }
}
