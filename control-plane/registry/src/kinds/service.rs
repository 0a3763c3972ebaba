//! Service: a stable address over changing pods. Which address and node ports it gets is the store's
//! business; which it may ask for, keep and change is decided here.

mod validate;

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::{namespaced, proxy, status};
use crate::strategy::address;
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Strategy, default_text, default_to, items_mut};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[status("", "v1", "Service"), proxy("ServiceProxyOptions")],
    ..namespaced("", "v1", "Service", "services", &Service)
};

struct Service;

fn kind(service: &Value) -> &str {
    service.text(&["spec", "type"])
}

fn wants_node_ports(service: &Value) -> bool {
    kind(service) == "NodePort"
        || (kind(service) == "LoadBalancer"
            && service.at(&["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false)))
}

/// `clusterIP` is the first of `clusterIPs`: a client may know only one of the two fields.
fn normalize_cluster_ips(new: &mut Value, old: Option<&Value>) {
    let ip = new.text(&["spec", "clusterIP"]).to_owned();
    let ips = new.items(&["spec", "clusterIPs"]).to_vec();
    let old_ip = old.map_or("", |o| o.text(&["spec", "clusterIP"]));
    let old_ips = old.map_or(&[][..], |o| o.items(&["spec", "clusterIPs"]));
    if ip.is_empty() && ips.is_empty() {
        return;
    }
    let changed_one = ip != old_ip;
    let changed_list = ips != old_ips;
    if old.is_none() {
        if ips.is_empty() {
            new.set(&["spec", "clusterIPs"], json!([ip]));
        }
    } else if changed_one && !changed_list {
        if ip.is_empty() {
            new.unset(&["spec", "clusterIPs"]);
        } else {
            new.set(&["spec", "clusterIPs"], json!([ip]));
        }
    }
}

/// An update that leaves out what the store allocated keeps it.
fn keep_allocated(new: &mut Value, old: &Value) {
    let needs = |service: &Value| kind(service) != "ExternalName";
    if needs(new) && needs(old) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if let (None | Some(""), Some(value)) =
                (new.at(&["spec", field]).map(|v| v.as_str().unwrap_or("x")), old.at(&["spec", field]))
            {
                new.set(&["spec", field], value.clone());
            }
        }
    }
    if wants_node_ports(new) && wants_node_ports(old) {
        let before = old.items(&["spec", "ports"]).to_vec();
        for port in items_mut(new, &["spec", "ports"]) {
            let twin = |p: &&Value| {
                p.int(&["port"]) == port.int(&["port"]) && p.text(&["protocol"]) == port.text(&["protocol"])
            };
            let number = before.iter().find(twin).and_then(|p| p.int(&["nodePort"]));
            if let (0, Some(number)) = (port.int(&["nodePort"]).unwrap_or(0), number) {
                port.set(&["nodePort"], number);
            }
        }
    }
    if let (0, Some(number)) = (
        new.int(&["spec", "healthCheckNodePort"]).unwrap_or(0),
        old.int(&["spec", "healthCheckNodePort"])
            .filter(|_| new.text(&["spec", "externalTrafficPolicy"]) == "Local"),
    ) {
        new.set(&["spec", "healthCheckNodePort"], number);
    }
}

/// A change of type drops what only the old type had, unless the client changed it in the same breath.
fn drop_type_dependent(new: &mut Value, old: &Value) {
    let unchanged = |new: &Value, field: &str| new.at(&["spec", field]) == old.at(&["spec", field]);
    if kind(new) == "ExternalName" && kind(old) != "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if unchanged(new, field) {
                new.unset(&["spec", field]);
            }
        }
    }
    let node_ports = |service: &Value| ["NodePort", "LoadBalancer"].contains(&kind(service));
    if node_ports(old) && !node_ports(new) {
        let before: Vec<i64> =
            old.items(&["spec", "ports"]).iter().filter_map(|p| p.int(&["nodePort"])).collect();
        for port in items_mut(new, &["spec", "ports"]) {
            if port.int(&["nodePort"]).is_some_and(|n| before.contains(&n)) {
                port.unset(&["nodePort"]);
            }
        }
        for field in ["externalTrafficPolicy", "healthCheckNodePort"] {
            if unchanged(new, field) {
                new.unset(&["spec", field]);
            }
        }
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "loadBalancerIP"] {
            if unchanged(new, field) {
                new.unset(&["spec", field]);
            }
        }
        new.set(&["status"], json!({"loadBalancer": {}}));
    }
}

fn external(service: &Value) -> String {
    let mut ips: Vec<&str> = Vec::new();
    match kind(service) {
        "ExternalName" => return service.text(&["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            for ingress in service.items(&["status", "loadBalancer", "ingress"]) {
                ips.push(or(ingress.text(&["ip"]), ingress.text(&["hostname"])));
            }
            ips.sort_unstable();
        }
        _ => {}
    }
    ips.extend(service.items(&["spec", "externalIPs"]).iter().filter_map(Value::as_str));
    let none = if kind(service) == "LoadBalancer" { "<pending>" } else { "<none>" };
    or(&ips.join(","), none).to_owned()
}

fn ports(service: &Value) -> String {
    let port = |port: &Value| {
        let (number, protocol) = (port.int(&["port"]).unwrap_or(0), port.text(&["protocol"]));
        match port.int(&["nodePort"]) {
            Some(node) if node > 0 => format!("{number}:{node}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    };
    let list: Vec<String> = service.items(&["spec", "ports"]).iter().map(port).collect();
    or(&list.join(","), "<none>").to_owned()
}

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        default_text(object, &["spec", "sessionAffinity"], "None");
        if object.text(&["spec", "sessionAffinity"]) == "ClientIP" {
            default_to(object, &["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"], 10800);
        } else {
            object.unset(&["spec", "sessionAffinityConfig"]);
        }
        default_text(object, &["spec", "type"], "ClusterIP");
        for port in items_mut(object, &["spec", "ports"]) {
            default_text(port, &["protocol"], "TCP");
            let target = port.at(&["targetPort"]);
            if target.is_none_or(|t| t == 0 || t == "") {
                let number = port.int(&["port"]).unwrap_or(0);
                port.set(&["targetPort"], number);
            }
        }
        let external = ["NodePort", "LoadBalancer"].contains(&kind(object));
        if external || (kind(object) == "ClusterIP" && !object.items(&["spec", "externalIPs"]).is_empty()) {
            default_text(object, &["spec", "externalTrafficPolicy"], "Cluster");
        }
        if ["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind(object)) {
            default_text(object, &["spec", "internalTrafficPolicy"], "Cluster");
        }
        if kind(object) == "LoadBalancer" {
            default_to(object, &["spec", "allocateLoadBalancerNodePorts"], true);
            for ingress in items_mut(object, &["status", "loadBalancer", "ingress"]) {
                if !ingress.text(&["ip"]).is_empty() {
                    default_text(ingress, &["ipMode"], "VIP");
                }
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        normalize_cluster_ips(object, None);
        object.set(&["status"], json!({"loadBalancer": {}}));
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        keep_allocated(new, old);
        normalize_cluster_ips(new, Some(old));
        drop_type_dependent(new, old);
    }

    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        names::dns1035_label
    }

    fn validate(&self, object: &Value) -> ErrorList {
        validate::create(object)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        validate::update(new, old)
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        validate::status(new)
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        validate::warnings(object)
    }

    fn status_warnings(&self, object: &Value) -> Vec<String> {
        balancer_warnings(object)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Type"),
            printer::text("Cluster-IP"),
            printer::text("External-IP"),
            printer::text("Port(s)"),
            printer::AGE,
            printer::wide("Selector"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let ip = object.items(&["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or_default();
        let ip = or(ip, object.text(&["spec", "clusterIP"]));
        vec![
            object.name().into(),
            kind(object).into(),
            or(ip, "<none>").into(),
            external(object).into(),
            ports(object).into(),
            printer::age(object, now),
            printer::labels(object.map(&["spec", "selector"])).into(),
        ]
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }
}

/// Warnings to those who tell the addresses of a load balancer, of Services and Ingresses.
pub(super) fn balancer_warnings(object: &Value) -> Vec<String> {
    let mut told = Vec::new();
    for (index, entry) in object.items(&["status", "loadBalancer", "ingress"]).iter().enumerate() {
        let at = format!("status.loadBalancer.ingress[{index}]");
        address::ip_warnings(&mut told, &at, entry.text(&["ip"]));
    }
    told
}
