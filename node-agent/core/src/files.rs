//! The files that every pod gets: `/etc/hosts` and `/etc/resolv.conf`.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::view;

/// The kernel of every libc reads at most so many servers.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;

/// A resolver configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options, such as `ndots:5`.
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads a `resolv.conf`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => out.servers.extend(words.next().map(str::to_owned)),
                // The last one wins.
                Some("search" | "domain") => out.searches = words.map(str::to_owned).collect(),
                Some("options") => out.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        out
    }

    /// Whether all its servers are on the machine's own loopback, where no pod reaches them.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let local = |server: &String| server.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        !self.servers.is_empty() && self.servers.iter().all(local)
    }

    /// Prints a `resolv.conf`.
    #[must_use]
    pub fn print(&self) -> String {
        let mut out = String::new();
        if !self.searches.is_empty() {
            out.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.servers {
            out.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            out.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        out
    }
}

/// The cluster's DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDns {
    /// Addresses of the DNS service.
    pub servers: Vec<IpAddr>,
    /// `cluster.local`.
    pub domain: String,
}

/// A pod's resolver; `host` is the node's own.
#[must_use]
pub fn resolver(pod: &Pod, cluster: &ClusterDns, host: &Resolver) -> Resolver {
    let spec = view::spec(pod);
    let policy = match spec.dns_policy.as_deref() {
        // In the host's network, cluster names are resolved only on demand.
        None | Some("ClusterFirst") if view::host_network(pod) => "Default",
        Some("ClusterFirstWithHostNet") => "ClusterFirst",
        Some(other) => other,
        None => "ClusterFirst",
    };
    let mut out = match policy {
        "None" => Resolver::default(),
        "ClusterFirst" if !cluster.servers.is_empty() => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let domain = &cluster.domain;
            let mut searches =
                vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.extend(host.searches.iter().filter(|s| *s != ".").cloned());
            Resolver {
                servers: cluster.servers.iter().map(ToString::to_string).collect(),
                searches,
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => host.clone(),
    };
    if let Some(own) = &spec.dns_config {
        out.servers.extend(own.nameservers.iter().flatten().cloned());
        out.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            // An option of the pod replaces one of the same name.
            out.options.retain(|o| o.split(':').next() != Some(name));
            out.options.push(option.value.as_ref().map_or_else(|| name.clone(), |v| format!("{name}:{v}")));
        }
    }
    unique(&mut out.servers);
    unique(&mut out.searches);
    out.servers.truncate(MAX_SERVERS);
    out.searches.truncate(MAX_SEARCHES);
    while out.searches.iter().map(|s| s.len() + 1).sum::<usize>() > MAX_SEARCH_LENGTH {
        out.searches.pop();
    }
    out
}

fn unique(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

/// The `/etc/hosts` of a pod with a network of its own. The first line is what programs look for.
#[must_use]
pub fn hosts(pod: &Pod, ips: &[IpAddr], cluster_domain: &str) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let hostname = view::hostname(pod);
    for ip in ips {
        let names = match view::full_hostname(pod, cluster_domain) {
            Some(full) => format!("{full}\t{hostname}"),
            None => hostname.clone(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{ip}\t{names}");
    }
    out.push_str(&aliases(view::spec(pod).host_aliases.as_deref().unwrap_or_default()));
    out
}

/// The lines of `hostAliases`.
#[must_use]
pub fn aliases(list: &[HostAlias]) -> String {
    let mut out = String::new();
    if !list.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in list {
        let _ = writeln!(
            out,
            "{}\t{}",
            alias.ip,
            alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t")
        );
    }
    out
}

/// The variables by which older programs find services: `NAME_SERVICE_HOST` and the like. `services` are
/// (name, cluster IP, ports as (name, protocol, number)); the first port is the plain one.
#[must_use]
pub fn service_variables(services: &[ServiceAddress]) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for service in services {
        let name = service.name.to_ascii_uppercase().replace('-', "_");
        let Some((_, _, first)) = service.ports.first() else { continue };
        out.insert(format!("{name}_SERVICE_HOST"), service.ip.clone());
        out.insert(format!("{name}_SERVICE_PORT"), first.to_string());
        let host = if service.ip.contains(':') { format!("[{}]", service.ip) } else { service.ip.clone() };
        for (index, (port_name, protocol, port)) in service.ports.iter().enumerate() {
            if !port_name.is_empty() {
                let port_name = port_name.to_ascii_uppercase().replace('-', "_");
                out.insert(format!("{name}_SERVICE_PORT_{port_name}"), port.to_string());
            }
            let scheme = protocol.to_ascii_lowercase();
            let url = format!("{scheme}://{host}:{port}");
            let prefix = format!("{name}_PORT_{port}_{protocol}");
            if index == 0 {
                out.insert(format!("{name}_PORT"), url.clone());
            }
            out.insert(prefix.clone(), url);
            out.insert(format!("{prefix}_PROTO"), scheme);
            out.insert(format!("{prefix}_PORT"), port.to_string());
            out.insert(format!("{prefix}_ADDR"), service.ip.clone());
        }
    }
    out
}

/// A service as [`service_variables`] needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAddress {
    /// Name.
    pub name: String,
    /// Cluster IP.
    pub ip: String,
    /// Name, protocol, number.
    pub ports: Vec<(String, String, i32)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "called with literals")]
    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": spec }))
            .unwrap()
    }

    fn cluster() -> ClusterDns {
        ClusterDns { servers: vec!["10.96.0.10".parse().unwrap()], domain: "cluster.local".into() }
    }

    #[test]
    fn resolvers_by_policy() {
        let host =
            Resolver::parse("domain x\nsearch corp.example .\nnameserver 1.1.1.1\noptions timeout:1\n# c\n");
        let text = |spec| resolver(&pod(spec), &cluster(), &host).print();
        let first = "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(text(json!({ "containers": [] })), first);
        assert_eq!(
            text(json!({ "containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" })),
            first
        );
        let own = "search corp.example .\nnameserver 1.1.1.1\noptions timeout:1\n";
        assert_eq!(text(json!({ "containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirst" })), own);
        assert_eq!(text(json!({ "containers": [], "dnsPolicy": "Default" })), own);
        let config = json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["9.9.9.9", "9.9.9.9"], "searches": ["a.b"], "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } });
        assert_eq!(text(config), "search a.b\nnameserver 9.9.9.9\noptions ndots:2 edns0\n");
    }

    #[test]
    fn resolvers_on_loopback_are_of_no_use_to_pods() {
        let local = |text| Resolver::parse(text).is_local();
        assert!(local("nameserver 127.0.0.53\nnameserver ::1\n"));
        assert!(!local("nameserver 127.0.0.53\nnameserver 192.0.2.1\n"));
        assert!(!local("") && !local("nameserver nonsense\n"));
    }

    #[test]
    fn hosts_files_name_the_pod_and_its_aliases() {
        let spec = json!({ "containers": [], "hostname": "web", "subdomain": "sub",
            "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["foo", "bar"] }] });
        let text = hosts(&pod(spec), &["10.244.0.5".parse().unwrap()], "cluster.local");
        assert!(text.contains("10.244.0.5\tweb.sub.ns.svc.cluster.local\tweb\n"), "{text}");
        assert!(text.ends_with("1.2.3.4\tfoo\tbar\n"));
        let both = ["10.244.0.5", "fd00::5"].map(|ip| ip.parse().unwrap());
        let text = hosts(&pod(json!({ "containers": [] })), &both, "cluster.local");
        assert!(text.ends_with("10.244.0.5\tp\nfd00::5\tp\n"), "{text}");
        let spec = json!({ "containers": [], "subdomain": "sub", "hostnameOverride": "other.example" });
        let text = hosts(&pod(spec), &both[..1], "cluster.local");
        assert!(text.ends_with("10.244.0.5\tother.example\n"), "{text}");
    }

    #[test]
    fn the_kernel_has_the_short_name_unless_all_of_it_is_asked_for() {
        let name = |spec| view::kernel_hostname(&pod(spec), "cluster.local");
        for (spec, want) in [
            (json!({ "containers": [] }), "p"),
            (json!({ "containers": [], "hostname": "web", "subdomain": "sub" }), "web"),
            (json!({ "containers": [], "setHostnameAsFQDN": true }), "p"),
            (
                json!({ "containers": [], "hostname": "web", "subdomain": "sub", "setHostnameAsFQDN": true }),
                "web.sub.ns.svc.cluster.local",
            ),
            (
                json!({ "containers": [], "hostnameOverride": "other.example", "hostname": "web" }),
                "other.example",
            ),
        ] {
            assert_eq!(name(spec.clone()).as_deref(), Ok(want), "{spec}");
        }
        let long = json!({ "containers": [], "hostname": "h".repeat(40), "subdomain": "sub", "setHostnameAsFQDN": true });
        let error = name(long).expect_err("is too long").to_string();
        assert!(error.contains("is too long (64 characters is the max, 65 characters requested)"), "{error}");
    }

    #[test]
    fn services_become_variables() {
        let service = ServiceAddress {
            name: "my-db".into(),
            ip: "10.96.0.7".into(),
            ports: vec![("sql-port".into(), "TCP".into(), 5432)],
        };
        let variables = service_variables(&[service]);
        for (name, value) in [
            ("MY_DB_SERVICE_HOST", "10.96.0.7"),
            ("MY_DB_SERVICE_PORT", "5432"),
            ("MY_DB_SERVICE_PORT_SQL_PORT", "5432"),
            ("MY_DB_PORT", "tcp://10.96.0.7:5432"),
            ("MY_DB_PORT_5432_TCP_ADDR", "10.96.0.7"),
        ] {
            assert_eq!(variables[name], value, "{name}");
        }
        assert_eq!(variables.len(), 8);
    }
}
