//! ServiceCIDR and IPAddress: the ranges service addresses come from, and each address that is taken.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList, Path};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::{cluster, status};
use crate::strategy::check::{At, check};
use crate::strategy::printer::{AGE, Column, NAME, age, or, text};
use crate::strategy::{KindRow, Strategy};

const GROUP: &str = "networking.k8s.io";

/// IPAddress.
pub(super) static IP_ADDRESS: KindRow =
    KindRow { short_names: &["ip"], ..cluster(GROUP, "v1", "IPAddress", "ipaddresses", &Address) };
/// ServiceCIDR.
pub(super) static SERVICE_CIDR: KindRow = KindRow {
    subresources: &[status(GROUP, "v1", "ServiceCIDR")],
    ..cluster(GROUP, "v1", "ServiceCIDR", "servicecidrs", &Range)
};

struct Address;
struct Range;

/// Why a text is not the one way to write an address.
pub(crate) fn canonical_address(text: &str) -> Vec<String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()];
    };
    if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return vec!["must not be an IPv4-mapped IPv6 address".to_owned()];
    }
    if address.to_string() == text {
        Vec::new()
    } else {
        vec![format!("must be in canonical form ({:?})", address.to_string())]
    }
}

/// Why a text is not the one way to write a range.
fn canonical_range(text: &str) -> Vec<String> {
    let Ok(net) = text.parse::<IpNet>() else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    };
    let mut faults = Vec::new();
    if let IpNet::V6(v6) = net
        && v6.addr().to_ipv4_mapped().is_some()
    {
        faults.push("must not have an IPv4-mapped IPv6 address".to_owned());
    }
    if net.addr() != net.network() {
        faults.push("must not have bits set beyond the prefix length".to_owned());
    }
    if faults.is_empty() && net.to_string() != text {
        faults.push(format!("must be in canonical form ({:?})", net.to_string()));
    }
    faults
}

impl Strategy for Address {
    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        canonical_address
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let parent = root.child("spec").child("parentRef");
            if !parent.is_set() {
                parent.required("");
                return;
            }
            parent.child("group").named(names::dns1123_subdomain);
            parent.child("resource").require_named(names::path_segment);
            parent.child("name").require_named(names::path_segment);
            parent.child("namespace").named(names::path_segment);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            let before = old.at(&["spec", "parentRef"]).unwrap_or(&Value::Null);
            root.child("spec").child("parentRef").immutable(before);
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[NAME, text("ParentRef"), AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let parent = |field: &str| object.text(&["spec", "parentRef", field]);
        let parts: Vec<&str> = ["group", "resource", "namespace", "name"]
            .into_iter()
            .map(parent)
            .filter(|part| !part.is_empty())
            .collect();
        vec![object.name().into(), or(&parts.join("/"), "<none>").into(), age(object, now)]
    }
}

/// One range a family, at most.
fn ranges(spec: &At<'_>) {
    let list = spec.child("cidrs");
    let items = list.items();
    if items.is_empty() {
        return list.required("at least one CIDR required");
    }
    if items.len() > 2 {
        return list.error(Error::invalid(list.path(), spec.value().clone(), "may only hold up to 2 values"));
    }
    for item in &items {
        item.invalid_text(canonical_range(item.text()));
    }
    let family = |at: &At<'_>| at.text().parse::<IpNet>().ok().map(|net| net.addr().is_ipv4());
    if items.len() == 2 && family(&items[0]).is_some() && family(&items[0]) == family(&items[1]) {
        list.invalid(
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        );
    }
}

impl Strategy for Range {
    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| ranges(&root.child("spec")))
    }

    /// A range stays; one of the other family may be added.
    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec").child("cidrs");
        let list = |object: &Value| object.items(&["spec", "cidrs"]).to_vec();
        let (now, before) = (list(new), list(old));
        let fixed = "field is immutable";
        if now.len() == before.len() || (before.len() == 1 && now.len() == 2) {
            for (index, (now, before)) in now.iter().zip(&before).enumerate() {
                if now != before {
                    errors.push(Error::invalid(&path.index(index), now.clone(), fixed));
                }
            }
            if now.len() > before.len() {
                errors.extend(self.validate(new));
            }
        } else {
            errors.push(Error::invalid(&path, now, fixed));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[NAME, text("CIDRs"), AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let ranges: Vec<&str> = object.items(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
        vec![object.name().into(), ranges.join(",").into(), age(object, now)]
    }
}
