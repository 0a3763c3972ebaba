//! CertificateSigningRequest: who asks is set by the server; approval and certificate are written apart.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::duration;
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::{WRITE, cluster, status, subresource};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Strategy, default_text, items_mut};

const GROUP: &str = "certificates.k8s.io";

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["csr"],
    subresources: &[
        status(GROUP, "v1", "CertificateSigningRequest"),
        subresource("approval", GROUP, "v1", "CertificateSigningRequest", WRITE),
    ],
    ..cluster(GROUP, "v1", "CertificateSigningRequest", "certificatesigningrequests", &Request)
};

const VERDICTS: [&str; 2] = ["Approved", "Denied"];

struct Request;

fn conditions(object: &Value, verdicts: bool) -> Vec<Value> {
    let all = object.items(&["status", "conditions"]).iter();
    all.filter(|c| VERDICTS.contains(&c.text(&["type"])) == verdicts).cloned().collect()
}

/// Notes when conditions came and changed, where the client does not.
fn stamp(new: &mut Value, old: &Value) {
    let now = crate::store::now();
    let before = old.items(&["status", "conditions"]);
    for condition in items_mut(new, &["status", "conditions"]) {
        default_text(condition, &["lastUpdateTime"], &now);
        if condition.text(&["lastTransitionTime"]).is_empty() {
            let same = |other: &&Value| {
                ["type", "status"].iter().all(|field| other.text(&[field]) == condition.text(&[field]))
            };
            let since = before.iter().find(same).map(|other| other.text(&["lastTransitionTime"]).to_owned());
            let since = since.filter(|since| !since.is_empty()).unwrap_or_else(|| now.clone());
            condition.set(&["lastTransitionTime"], since);
        }
    }
}

impl Strategy for Request {
    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        new.set(&["spec"], old["spec"].clone());
    }

    /// A signer writes the certificate and its own conditions; verdicts stay.
    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        let merged = [conditions(old, true), conditions(new, false)].concat();
        new.set(&["status", "conditions"], merged);
        stamp(new, old);
    }

    /// An approver writes conditions; the certificate stays.
    fn prepare_for_subresource(&self, _name: &str, new: &mut Value, old: &Value) {
        let sent = new.items(&["status", "conditions"]).to_vec();
        new.set(&["spec"], old["spec"].clone());
        new.set(&["status"], old.get("status").cloned().unwrap_or_else(|| json!({})));
        new.set(&["status", "conditions"], sent);
        stamp(new, old);
    }

    fn validate_subresource(&self, _name: &str, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            let list = root.child("status").child("conditions");
            let has = |kind: &str| list.items().iter().any(|c| c.child("type").text() == kind);
            if has("Approved") && has("Denied") {
                list.invalid("Approved and Denied conditions are mutually exclusive");
            }
        })
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            spec.child("request").require_with("must be a PEM encoded certificate request");
            let signer = spec.child("signerName");
            if signer.require() {
                match signer.text().split_once('/') {
                    Some((host, path)) if host.contains('.') && !path.is_empty() => {
                        signer.invalid_all(skep_api::names::dns1123_subdomain(host));
                    }
                    _ => signer.invalid(
                        "must be a fully qualified domain and path of the form 'example.com/signer-name'",
                    ),
                }
            }
            spec.child("usages").require_with("usages must be non-empty");
            let seconds = spec.child("expirationSeconds");
            if seconds.int().is_some_and(|s| s < 600) {
                seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)");
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::AGE,
            printer::text("SignerName"),
            printer::text("Requestor"),
            printer::text("RequestedDuration"),
            printer::text("Condition"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let conditions = object.items(&["status", "conditions"]);
        let has = |kind: &str| conditions.iter().any(|c| c.text(&["type"]) == kind);
        let mut state = if has("Denied") {
            "Denied"
        } else if has("Approved") {
            "Approved"
        } else {
            "Pending"
        }
        .to_owned();
        if has("Failed") {
            state.push_str(",Failed");
        }
        if !object.text(&["status", "certificate"]).is_empty() {
            state.push_str(",Issued");
        }
        let asked = object.int(&["spec", "expirationSeconds"]).map(duration::human).unwrap_or_default();
        vec![
            object.name().into(),
            printer::age(object, now),
            object.text(&["spec", "signerName"]).into(),
            object.text(&["spec", "username"]).into(),
            or(&asked, "<none>").into(),
            state.into(),
        ]
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }
}
