//! Ingress and IngressClass: HTTP routes into the cluster, and who serves them.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::pod::containers::port as port_or_name;
use super::{cluster, namespaced, status};
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Strategy, default_text};

const GROUP: &str = "networking.k8s.io";

/// The row of Ingress.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["ing"],
    generation: &["spec"],
    subresources: &[status(GROUP, "v1", "Ingress")],
    ..namespaced(GROUP, "v1", "Ingress", "ingresses", &Ingress)
};

/// The row of IngressClass.
pub(super) static CLASS: KindRow =
    KindRow { generation: &["spec"], ..cluster(GROUP, "v1", "IngressClass", "ingressclasses", &Class) };

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
/// Who served an ingress before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

struct Ingress;
struct Class;

/// What an ingress or a class points at.
fn reference(reference: &At<'_>) {
    let group = reference.child("apiGroup");
    if group.is_set() {
        group.invalid_text(names::dns1123_subdomain(group.text()));
    }
    reference.child("kind").require_named(names::path_segment);
    reference.child("name").require_named(names::path_segment);
}

fn backend(backend: &At<'_>) {
    // Upstream shows no value of a backend.
    let invalid = |detail: &str| backend.error(Error::invalid(backend.path(), "", detail));
    let service = backend.child("service");
    let resource = backend.child("resource");
    match (service.is_set(), resource.is_set()) {
        (true, true) => invalid("cannot set both resource and service backends"),
        (false, true) => reference(&resource),
        (false, false) => invalid("resource or service backend is required"),
        (true, false) => {
            service.child("name").require_named(names::dns1035_label);
            let port = service.child("port");
            let (name, number) = (port.child("name"), port.child("number"));
            match (name.is_empty(), number.int().unwrap_or(0) == 0) {
                (false, false) => invalid("cannot set both port name & port number"),
                (true, true) => backend.required("port name or number is required"),
                (false, true) => port_or_name(&name),
                (true, false) => port_or_name(&number),
            }
        }
    }
}

fn host(host: &At<'_>) {
    if host.is_empty() {
        return;
    }
    if host.text().parse::<std::net::IpAddr>().is_ok() {
        host.invalid("must be a DNS name, not an IP address");
    }
    if host.text().contains('*') {
        host.named(names::wildcard_subdomain);
    } else {
        host.named(names::dns1123_subdomain);
    }
}

fn rule(rule: &At<'_>) {
    host(&rule.child("host"));
    let http = rule.child("http");
    if !http.is_set() {
        return;
    }
    let paths = http.child("paths");
    paths.require();
    for entry in paths.items() {
        let path = entry.child("path");
        let kind = entry.child("pathType");
        if !kind.is_set() {
            kind.required("pathType must be specified");
            continue;
        }
        match kind.text() {
            "Exact" | "Prefix" => {
                if !path.text().starts_with('/') {
                    path.invalid("must be an absolute path");
                }
                for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                    if path.text().contains(bad) {
                        path.invalid(format!("must not contain '{bad}'"));
                    }
                }
                for bad in ["/..", "/."] {
                    if path.text().ends_with(bad) {
                        path.invalid(format!("cannot end with '{bad}'"));
                    }
                }
            }
            "ImplementationSpecific" if !path.is_empty() && !path.text().starts_with('/') => {
                path.invalid("must be an absolute path");
            }
            "" => kind.error(Error::not_supported(kind.path(), "", PATH_TYPES)),
            _ => kind.one_of(PATH_TYPES),
        }
        backend(&entry.child("backend"));
    }
}

impl Strategy for Ingress {
    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], serde_json::json!({"loadBalancer": {}}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            let default = spec.child("defaultBackend");
            if spec.child("rules").is_empty() && !default.is_set() {
                spec.error(Error::invalid(
                    spec.path(),
                    spec.child("rules").value().clone(),
                    "either `defaultBackend` or `rules` must be specified",
                ));
            }
            if default.is_set() {
                backend(&default);
            }
            spec.child("rules").items().iter().for_each(rule);
            for tls in spec.child("tls").items() {
                for name in tls.child("hosts").items() {
                    let wild = name.text().contains('*');
                    let grammar = if wild { names::wildcard_subdomain } else { names::dns1123_subdomain };
                    name.invalid_text(grammar(name.text()));
                }
                tls.child("secretName").named(names::dns1123_subdomain);
            }
            spec.child("ingressClassName").named(names::dns1123_subdomain);
        })
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = self.validate(object);
        let class = object.at(&["spec", "ingressClassName"]).and_then(Value::as_str);
        if let (Some(annotation), Some(class)) = (object.annotation(CLASS_ANNOTATION), class)
            && annotation != class
        {
            let path = Path::new("annotations").child(CLASS_ANNOTATION);
            let detail = "must match `ingressClassName` when both are specified";
            errors.push(Error::invalid(&path, annotation, detail));
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            for ingress in root.down(&["status", "loadBalancer", "ingress"]).items() {
                let (address, name) = (ingress.child("ip"), ingress.child("hostname"));
                if !address.is_empty() && address.text().parse::<std::net::IpAddr>().is_err() {
                    address.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
                }
                name.named(names::dns1123_subdomain);
                if name.text().parse::<std::net::IpAddr>().is_ok() {
                    name.invalid("must be a DNS name, not an IP address");
                }
            }
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let named = object.at(&["spec", "ingressClassName"]).is_some();
        if old.is_some() || named || object.annotation(CLASS_ANNOTATION).is_none() {
            return Vec::new();
        }
        vec![format!(
            "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
        )]
    }

    fn status_warnings(&self, object: &Value) -> Vec<String> {
        super::service::balancer_warnings(object)
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Class"),
            printer::text("Hosts"),
            printer::text("Address"),
            printer::text("Ports"),
            printer::AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let rules = object.items(&["spec", "rules"]);
        let hosts: Vec<String> =
            rules.iter().map(|r| r.text(&["host"]).to_owned()).filter(|h| !h.is_empty()).collect();
        let mut addresses: Vec<&str> = object
            .items(&["status", "loadBalancer", "ingress"])
            .iter()
            .map(|i| or(i.text(&["ip"]), i.text(&["hostname"])))
            .collect();
        addresses.sort_unstable();
        let ports = if object.items(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
        let hosts = printer::first(&hosts, 3);
        vec![
            object.name().into(),
            or(object.text(&["spec", "ingressClassName"]), "<none>").into(),
            or(&hosts, "*").into(),
            addresses.join(",").into(),
            ports.into(),
            printer::age(object, now),
        ]
    }
}

/// The parameters of a class: an object of the cluster, or of a namespace.
fn class_parameters(parameters: &At<'_>) {
    reference(parameters);
    let (scope, namespace) = (parameters.child("scope"), parameters.child("namespace"));
    match scope.text() {
        "Namespace" if !namespace.is_set() => namespace.required("`parameters.scope` is set to 'Namespace'"),
        "Namespace" => namespace.invalid_text(names::dns1123_label(namespace.text())),
        "Cluster" if namespace.is_set() => namespace.forbidden("`parameters.scope` is set to 'Cluster'"),
        "Cluster" => {}
        other => scope.error(Error::not_supported(scope.path(), other, &["Cluster", "Namespace"])),
    }
}

impl Strategy for Class {
    fn default(&self, object: &mut Value) {
        if object.at(&["spec", "parameters"]).is_some() {
            default_text(object, &["spec", "parameters", "scope"], "Cluster");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            let controller = spec.child("controller");
            if !controller.require_with("at least one controller is required") {
                return;
            }
            if controller.text().len() > 250 {
                controller.error(Error::too_long(controller.path(), 250));
            }
            match controller.text().split_once('/') {
                Some((host, path)) if !host.is_empty() && !path.is_empty() => {
                    controller.invalid_all(names::dns1123_subdomain(host));
                }
                _ => controller.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"),
            }
            let parameters = spec.child("parameters");
            if parameters.is_set() {
                class_parameters(&parameters);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = check(new, |root| {
            let before = old.at(&["spec", "controller"]).unwrap_or(&Value::Null);
            root.child("spec").child("controller").immutable(before);
        });
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] =
            &[printer::NAME, printer::text("Controller"), printer::text("Parameters"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let parameters = match object.at(&["spec", "parameters"]) {
            None => "<none>".to_owned(),
            Some(reference) => {
                let mut kind = reference.text(&["kind"]).to_owned();
                let group = reference.text(&["apiGroup"]);
                if !group.is_empty() {
                    kind = format!("{kind}.{group}");
                }
                format!("{kind}/{}", reference.text(&["name"]))
            }
        };
        vec![
            object.name().into(),
            object.text(&["spec", "controller"]).into(),
            parameters.into(),
            printer::age(object, now),
        ]
    }
}
