//! What adds groups of other servers: APIService.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::config_map::decoded_len;
use super::{cluster, status};
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_to};

/// APIService.
pub(super) static API_SERVICE: KindRow = KindRow {
    categories: &["api-extensions"],
    subresources: &[status("apiregistration.k8s.io", "v1", "APIService")],
    ..cluster("apiregistration.k8s.io", "v1", "APIService", "apiservices", &ApiService)
};

struct ApiService;

/// A priority: above 0, and not above the most.
fn priority(at: &At<'_>, most: i64) {
    let number = at.int().unwrap_or(0);
    if !(1..=most).contains(&number) {
        at.error(Error::invalid(at.path(), number, format!("must be positive and less than {most}")));
    }
}

impl Strategy for ApiService {
    /// `v1.`, of the group without a name, is no subdomain.
    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        names::path_segment
    }

    fn default(&self, object: &mut Value) {
        if object.at(&["spec", "service"]).is_some() {
            default_to(object, &["spec", "service", "port"], 443);
        }
    }

    /// What this server serves itself is there at once.
    fn prepare_for_create(&self, object: &mut Value) {
        if object.at(&["spec", "service"]).is_none() {
            let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
            object.set(
                &["status", "conditions"],
                json!([{"type": "Available", "status": "True", "reason": "Local",
                    "message": "Local APIServices are always available", "lastTransitionTime": now.to_string()}]),
            );
        }
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            for condition in root.down(&["status", "conditions"]).items() {
                let status = condition.child("status");
                if !["True", "False", "Unknown"].contains(&status.text()) {
                    let known = &["True", "False", "Unknown"];
                    status.error(Error::not_supported(status.path(), status.text(), known));
                }
            }
        })
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            let (group, version) = (spec.child("group"), spec.child("version"));
            let wanted = format!("{}.{}", version.text(), group.text());
            let name = root.child("metadata").child("name");
            if name.text() != wanted {
                name.invalid(format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
            }
            group.named(names::dns1123_subdomain);
            if group.is_empty() && version.text() != "v1" {
                group.required("only v1 may have an empty group and it better be legacy kube");
            }
            version.invalid_text(names::dns1035_label(version.text()));
            priority(&spec.child("groupPriorityMinimum"), 20000);
            priority(&spec.child("versionPriority"), 1000);
            let service = spec.child("service");
            let bundle = spec.child("caBundle");
            let insecure = spec.child("insecureSkipTLSVerify");
            if service.is_set() {
                service.child("namespace").require();
                service.child("name").require();
                if insecure.flag() && !bundle.is_empty() {
                    insecure.invalid("may not be true if caBundle is present");
                }
            } else {
                if !bundle.is_empty() {
                    let size = format!("{} bytes", decoded_len(bundle.text()));
                    let detail = "local APIServices may not have a caBundle";
                    bundle.error(Error::invalid(bundle.path(), size, detail));
                }
                if insecure.flag() {
                    insecure.invalid("local APIServices may not have insecureSkipTLSVerify");
                }
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] =
            &[printer::NAME, printer::text("Service"), printer::text("Available"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let service = object.at(&["spec", "service"]).map_or_else(
            || "Local".to_owned(),
            |s| format!("{}/{}", s.text(&["namespace"]), s.text(&["name"])),
        );
        let conditions = object.items(&["status", "conditions"]);
        let available = conditions.iter().find(|c| c.text(&["type"]) == "Available");
        let available = available.map_or_else(
            || "Unknown".to_owned(),
            |c| match c.text(&["status"]) {
                "True" => "True".to_owned(),
                other => format!("{other} ({})", c.text(&["reason"])),
            },
        );
        vec![object.name().into(), service.into(), available.into(), printer::age(object, now)]
    }
}
