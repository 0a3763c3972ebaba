//! Is an extension server there? What its service and endpoints show, then what it answers itself.

use serde_json::{Value, json};
use skep_api::object::ObjectExt;

use super::table::{Reference, condition};

/// The Available condition, without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Condition {
    fn unavailable(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    /// Of what this server serves itself.
    pub(super) fn local() -> Self {
        let message = "Local APIServices are always available".to_owned();
        Self { status: "True", reason: "Local", message }
    }

    /// The outcome of asking the server.
    pub(super) fn asked(outcome: Result<(), String>) -> Self {
        match outcome {
            Ok(()) => Self { status: "True", reason: "Passed", message: "all checks passed".to_owned() },
            Err(message) => Self::unavailable("FailedDiscoveryCheck", message),
        }
    }

    /// Is the server to be asked again soon?
    pub(super) fn is_failure(&self) -> bool {
        self.reason == "FailedDiscoveryCheck"
    }

    /// The object with this condition; `None` when it says so already.
    pub(super) fn put(&self, object: &Value, now: &str) -> Option<Value> {
        let known = condition(object);
        let same = |field: &str, value: &str| known.is_some_and(|known| known.text(&[field]) == value);
        if same("status", self.status) && same("reason", self.reason) && same("message", &self.message) {
            return None;
        }
        let since = known.filter(|known| known.text(&["status"]) == self.status);
        let since = since.map_or(now, |known| known.text(&["lastTransitionTime"])).to_owned();
        let mut conditions: Vec<Value> = object.items(&["status", "conditions"]).to_vec();
        conditions.retain(|known| known.text(&["type"]) != "Available");
        conditions.push(json!({
            "type": "Available",
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": since,
        }));
        let mut object = object.clone();
        object.set(&["status", "conditions"], conditions);
        Some(object)
    }
}

/// What the service and its slices show; `Ok` when the server itself is to be asked.
pub(super) fn look<'a>(
    reference: &Reference,
    service: Option<&Value>,
    slices: impl IntoIterator<Item = &'a Value>,
) -> Result<(), Condition> {
    let Reference { namespace, name, port } = reference;
    let Some(service) = service else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Err(Condition::unavailable("ServiceNotFound", message));
    };
    if !matches!(service.text(&["spec", "type"]), "" | "ClusterIP") {
        return Ok(());
    }
    let Some(port_name) = port_name(service, *port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(Condition::unavailable("ServicePortError", message));
    };
    let mut slices = slices.into_iter().peekable();
    if slices.peek().is_none() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Err(Condition::unavailable("EndpointsNotFound", message));
    }
    if slices.any(|slice| !addresses(slice, &port_name).is_empty()) {
        return Ok(());
    }
    let message = format!(
        "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
    );
    Err(Condition::unavailable("MissingEndpoints", message))
}

/// The name of a service's port.
pub(super) fn port_name(service: &Value, port: u16) -> Option<String> {
    let ports = service.items(&["spec", "ports"]);
    let found = ports.iter().find(|known| known.int(&["port"]) == Some(i64::from(port)))?;
    Some(found.text(&["name"]).to_owned())
}

/// The ready addresses of a slice at a named port.
pub(super) fn addresses(slice: &Value, port_name: &str) -> Vec<(String, u16)> {
    let ports = slice.items(&["ports"]);
    let port = ports.iter().find(|port| port.text(&["name"]) == port_name);
    let Some(port) = port.and_then(|port| port.int(&["port"])).and_then(|port| u16::try_from(port).ok())
    else {
        return Vec::new();
    };
    let ready = slice
        .items(&["endpoints"])
        .iter()
        .filter(|endpoint| endpoint.at(&["conditions", "ready"]).and_then(Value::as_bool).unwrap_or(true));
    ready
        .flat_map(|endpoint| endpoint.items(&["addresses"]))
        .filter_map(|address| Some((address.as_str()?.to_owned(), port)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        Reference { namespace: "kube-system".into(), name: "metrics".into(), port: 443 }
    }

    fn said(service: Option<&Value>, slices: &[Value]) -> (String, String) {
        let condition = look(&reference(), service, slices).err();
        condition.map_or_else(Default::default, |found| (found.reason.to_owned(), found.message))
    }

    #[test]
    fn reasons_as_upstream_words_them() {
        let (reason, message) = said(None, &[]);
        assert_eq!(reason, "ServiceNotFound");
        assert_eq!(message, r#"service/metrics in "kube-system" is not present"#);
        let closed = json!({"spec": {"ports": [{"port": 80}]}});
        let (reason, message) = said(Some(&closed), &[]);
        assert_eq!(reason, "ServicePortError");
        assert_eq!(message, r#"service/metrics in "kube-system" is not listening on port 443"#);
        let service = json!({"spec": {"ports": [{"port": 443, "name": "https"}]}});
        assert_eq!(said(Some(&service), &[]).0, "EndpointsNotFound");
        let unready = json!({
            "ports": [{"name": "https", "port": 4443}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}],
        });
        let (reason, message) = said(Some(&service), std::slice::from_ref(&unready));
        assert_eq!(reason, "MissingEndpoints");
        let wanted =
            r#"endpointslices for service/metrics in "kube-system" have no addresses with port name "https""#;
        assert_eq!(message, wanted);
        let ready = json!({
            "ports": [{"name": "https", "port": 4443}],
            "endpoints": [{"addresses": ["10.0.0.1"]}],
        });
        assert_eq!(said(Some(&service), &[unready, ready]), (String::new(), String::new()));
        let elsewhere = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
        assert_eq!(said(Some(&elsewhere), &[]).0, "");
    }

    #[test]
    fn a_condition_is_written_once_and_keeps_its_time() {
        let condition = Condition::asked(Err("no".to_owned()));
        let object = condition.put(&json!({"metadata": {}}), "then").expect("new");
        assert_eq!(condition.put(&object, "now"), None);
        let again = Condition::asked(Err("still no".to_owned())).put(&object, "now").expect("changed");
        assert_eq!(again["status"]["conditions"][0]["lastTransitionTime"], "then");
        let well = Condition::asked(Ok(())).put(&again, "now").expect("changed");
        assert_eq!(well["status"]["conditions"][0]["lastTransitionTime"], "now");
        assert_eq!(well["status"]["conditions"].as_array().map(Vec::len), Some(1));
    }
}
