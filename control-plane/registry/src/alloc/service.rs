//! What a service needs: addresses of the families it asks for, node ports, a health check port.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList, Path};

use super::{Allocation, Allocators, Changes, family};

const NONE: &str = "None";

fn text<'a>(service: &'a Value, field: &str) -> &'a str {
    service.get("spec").and_then(|spec| spec.get(field)).and_then(Value::as_str).unwrap_or_default()
}

fn strings(service: &Value, field: &str) -> Vec<String> {
    let list = service.get("spec").and_then(|spec| spec.get(field)).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn ports(service: &Value) -> &[Value] {
    service.pointer("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn number(port: &Value, field: &str) -> u16 {
    port.get(field).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).unwrap_or_default()
}

fn set(service: &mut Value, field: &str, value: Value) {
    if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert(field.to_owned(), value);
    }
}

fn unset(service: &mut Value, field: &str) {
    if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove(field);
    }
}

fn wants_address(service: &Value) -> bool {
    matches!(text(service, "type"), "" | "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn wants_ports(service: &Value) -> bool {
    match text(service, "type") {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn may_have_ports(service: &Value) -> bool {
    matches!(text(service, "type"), "NodePort" | "LoadBalancer")
}

fn wants_health_port(service: &Value) -> bool {
    text(service, "type") == "LoadBalancer" && text(service, "externalTrafficPolicy") == "Local"
}

/// Everything a stored service holds.
pub(crate) fn held(service: &Value) -> Vec<Allocation> {
    let mut held: Vec<Allocation> = Vec::new();
    let mut add = |what| {
        if !held.contains(&what) {
            held.push(what);
        }
    };
    if wants_address(service) {
        let mut addresses = strings(service, "clusterIPs");
        addresses.push(text(service, "clusterIP").to_owned());
        for address in addresses.iter().filter_map(|address| address.parse().ok()) {
            add(Allocation::Address(address));
        }
    }
    if may_have_ports(service) {
        let health = service.get("spec").map(|spec| number(spec, "healthCheckNodePort"));
        let numbers = ports(service).iter().map(|port| number(port, "nodePort")).chain(health);
        for port in numbers.filter(|port| *port != 0) {
            add(Allocation::Port(port));
        }
    }
    held
}

/// Fills in what the old service had been given and the new one, as written by a client that does not
/// know it, leaves open.
pub(crate) fn carry_over(new: &mut Value, old: &Value) {
    if wants_address(new) && wants_address(old) && text(new, "clusterIP").is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            let open = field == "clusterIP" || strings(new, field).is_empty();
            if let Some(value) = old.get("spec").and_then(|spec| spec.get(field)).filter(|_| open) {
                set(new, field, value.clone());
            }
        }
    }
    if wants_ports(new) && may_have_ports(old) {
        let key = |port: &Value| {
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
            (protocol, number(port, "port"))
        };
        let known: HashMap<_, _> =
            ports(old).iter().map(|port| (key(port), number(port, "nodePort"))).collect();
        let used: Vec<u16> = ports(new).iter().map(|port| number(port, "nodePort")).collect();
        for port in new.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let known = known.get(&key(port)).copied().unwrap_or_default();
            if number(port, "nodePort") == 0 && known != 0 && !used.contains(&known) {
                port["nodePort"] = json!(known);
            }
        }
    }
    if wants_health_port(new) && wants_health_port(old) {
        let open = new.get("spec").is_some_and(|spec| number(spec, "healthCheckNodePort") == 0);
        if let Some(value) = old.pointer("/spec/healthCheckNodePort").filter(|_| open) {
            set(new, "healthCheckNodePort", value.clone());
        }
    }
}

/// Decides what `new` gets, writes it into the object, and says what the store must change.
pub(crate) fn plan(
    pools: &Arc<Allocators>,
    owner: String,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<Changes, ErrorList> {
    let had = old.map(held).unwrap_or_default();
    let mut planner = Planner { changes: Changes::new(pools, owner), had, errors: ErrorList::new() };
    drop_what_the_type_forbids(new, old);
    planner.families(new);
    if planner.errors.is_empty() {
        planner.addresses(new);
        planner.node_ports(new);
    }
    if !planner.errors.is_empty() {
        return Err(planner.errors);
    }
    let holds = held(new);
    let freed = planner.had.into_iter().filter(|what| !holds.contains(what)).collect();
    planner.changes.free(freed);
    Ok(planner.changes)
}

/// A change of type takes away what only the old type had, as long as the client repeats it unchanged.
fn drop_what_the_type_forbids(new: &mut Value, old: Option<&Value>) {
    let Some(old) = old else { return };
    if wants_address(old) && !wants_address(new) {
        let same = |field| text(new, field) == text(old, field);
        if same("clusterIP") {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                unset(new, field);
            }
        }
    }
    if may_have_ports(old) && !may_have_ports(new) {
        let before: Vec<u16> = ports(old).iter().map(|port| number(port, "nodePort")).collect();
        for port in new.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if before.contains(&number(port, "nodePort")) {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
        }
    }
    if wants_health_port(old) && !wants_health_port(new) {
        let port = |service: &Value| service.pointer("/spec/healthCheckNodePort").cloned();
        if port(new) == port(old) {
            unset(new, "healthCheckNodePort");
        }
    }
}

struct Planner {
    changes: Changes,
    had: Vec<Allocation>,
    errors: ErrorList,
}

impl Planner {
    /// Settles `ipFamilyPolicy`, `ipFamilies` and the two spellings of the address.
    fn families(&mut self, service: &mut Value) {
        if !wants_address(service) {
            return;
        }
        let cluster_ip = text(service, "clusterIP").to_owned();
        let mut cluster_ips = strings(service, "clusterIPs");
        if !cluster_ip.is_empty() && cluster_ips.is_empty() {
            cluster_ips.push(cluster_ip.clone());
        } else if cluster_ip.is_empty() && !cluster_ips.is_empty() {
            set(service, "clusterIP", json!(cluster_ips[0]));
        }
        if !cluster_ips.is_empty() {
            set(service, "clusterIPs", json!(cluster_ips));
        }
        let configured = self.changes.pools.addresses.families();
        let headless = cluster_ips.first().is_some_and(|address| address == NONE);
        let selectorless = service
            .pointer("/spec/selector")
            .and_then(Value::as_object)
            .is_none_or(serde_json::Map::is_empty);
        let mut families = strings(service, "ipFamilies");
        if families.is_empty() {
            let given = cluster_ips.iter().filter_map(|address| address.parse().ok());
            families = given.map(|address: IpAddr| family(address).to_owned()).collect();
        }
        let mut policy = text(service, "ipFamilyPolicy").to_owned();
        if policy.is_empty() {
            let dual = families.len() > 1 || (headless && selectorless && families.is_empty());
            policy = if dual { "RequireDualStack" } else { "SingleStack" }.to_owned();
        }
        let path = Path::new("spec").child("ipFamilies");
        if !(headless && selectorless) {
            for (index, name) in families.iter().enumerate() {
                if !configured.contains(&name.as_str()) {
                    let detail = "not configured on this cluster";
                    self.errors.push(Error::invalid(&path.index(index), name.as_str(), detail));
                }
            }
            if policy == "RequireDualStack" && configured.len() < 2 {
                let path = Path::new("spec").child("ipFamilyPolicy");
                let detail = "this cluster is not configured for dual-stack services";
                self.errors.push(Error::invalid(&path, policy.as_str(), detail));
            }
        }
        if families.is_empty() {
            families.extend(configured.first().map(|family| (*family).to_owned()));
        }
        let other = if families.first().is_some_and(|first| first == "IPv4") { "IPv6" } else { "IPv4" };
        let may_have_two = configured.len() > 1 || (headless && selectorless);
        match policy.as_str() {
            "SingleStack" => families.truncate(1),
            _ if families.len() == 1 && may_have_two => families.push(other.to_owned()),
            _ => {}
        }
        set(service, "ipFamilies", json!(families));
        set(service, "ipFamilyPolicy", json!(policy));
    }

    /// One address for each family, unless the service is headless.
    fn addresses(&mut self, service: &mut Value) {
        if !wants_address(service) || text(service, "clusterIP") == NONE {
            return;
        }
        let families = strings(service, "ipFamilies");
        let mut addresses = strings(service, "clusterIPs");
        addresses.truncate(families.len());
        let path = Path::new("spec").child("clusterIPs");
        for (index, name) in families.iter().enumerate() {
            if let Some(address) = addresses.get(index) {
                // A malformed one is left to validation.
                if let Ok(address) = address.parse() {
                    self.given_address(address, &path);
                }
                continue;
            }
            let Some(address) = self.changes.pools.addresses.draw(name) else {
                let detail = "failed to allocate a serviceIP: range is full";
                self.errors.push(Error::internal(&path.index(index), detail));
                return;
            };
            self.changes.taken.push(Allocation::Address(address));
            addresses.push(address.to_string());
        }
        if let Some(first) = addresses.first() {
            set(service, "clusterIP", json!(first));
            set(service, "clusterIPs", json!(addresses));
        }
    }

    fn given_address(&mut self, address: IpAddr, path: &Path) {
        if self.had.contains(&Allocation::Address(address)) {
            return;
        }
        let addresses = &self.changes.pools.addresses;
        if !addresses.contains(address) {
            let ranges: Vec<String> = addresses.nets().iter().map(ToString::to_string).collect();
            let detail = format!(
                "failed to allocate IP {address}: the provided IP is not in the valid range. The range of \
                 valid IPs is {}",
                ranges.join(", ")
            );
            return self.errors.push(Error::invalid(path, json!([address.to_string()]), detail));
        }
        if addresses.take(address) {
            self.changes.taken.push(Allocation::Address(address));
        } else {
            let detail = format!("failed to allocate IP {address}: provided IP is already allocated");
            self.errors.push(Error::invalid(path, json!([address.to_string()]), detail));
        }
    }

    /// Node ports; two protocols on one port share one number.
    fn node_ports(&mut self, service: &mut Value) {
        let wanted = wants_ports(service);
        let allowed = may_have_ports(service);
        let mut mine: Vec<u16> = Vec::new();
        let mut by_port: HashMap<u16, u16> = HashMap::new();
        let path = Path::new("spec").child("ports");
        // What is asked for comes first, or a drawn number could take it away.
        for (index, port) in ports(service).iter().enumerate().filter(|_| allowed) {
            let asked = number(port, "nodePort");
            if asked != 0 {
                if !mine.contains(&asked) {
                    self.given_port(asked, &path.index(index).child("nodePort"));
                    mine.push(asked);
                }
                by_port.entry(number(port, "port")).or_insert(asked);
            }
        }
        if wanted {
            let list = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
            for (index, port) in list.into_iter().flatten().enumerate() {
                if number(port, "nodePort") != 0 || !port.is_object() {
                    continue;
                }
                let same = by_port.get(&number(port, "port")).copied();
                let Some(drawn) = same.or_else(|| self.draw_port(&path.index(index))) else { return };
                by_port.insert(number(port, "port"), drawn);
                port["nodePort"] = json!(drawn);
            }
        }
        if wants_health_port(service) {
            let path = Path::new("spec").child("healthCheckNodePort");
            let asked = service.get("spec").map(|spec| number(spec, "healthCheckNodePort"));
            match asked.filter(|port| *port != 0) {
                Some(asked) => self.given_port(asked, &path),
                None => {
                    if let Some(drawn) = self.draw_port(&path) {
                        set(service, "healthCheckNodePort", json!(drawn));
                    }
                }
            }
        }
    }

    fn given_port(&mut self, port: u16, path: &Path) {
        if self.had.contains(&Allocation::Port(port)) {
            return;
        }
        let range = self.changes.pools.ports.range();
        if !range.contains(&port) {
            let detail = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            );
            self.errors.push(Error::invalid(path, port, detail));
        } else if self.changes.pools.ports.take(port) {
            self.changes.taken.push(Allocation::Port(port));
        } else {
            self.errors.push(Error::invalid(path, port, "provided port is already allocated"));
        }
    }

    fn draw_port(&mut self, path: &Path) -> Option<u16> {
        let drawn = self.changes.pools.ports.draw();
        match drawn {
            Some(port) => self.changes.taken.push(Allocation::Port(port)),
            None => self.errors.push(Error::internal(path, "failed to allocate a nodePort: range is full")),
        }
        drawn
    }
}
