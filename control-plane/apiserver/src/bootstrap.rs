//! What every cluster begins with: the system namespaces, the roles, the priority classes, the
//! `kubernetes` service and the service of the cluster DNS.
//!
//! Everything is made when it is missing, and looked after for as long as the server runs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::user::UserInfo;
use skep_auth::authentication::FrontProxyHeaders;
use skep_registry::{Registry, Target, WriteOptions, kinds};
use tokio_util::sync::CancellationToken;

use crate::endpoints::Announcement;
use crate::identity_lease;

mod trust;

/// How often the `kubernetes` service is looked after.
const KEEP: Duration = Duration::from_secs(30);

/// Tries of one repair when others write at the same time.
const TRIES: usize = 5;

/// Roles made at the same time.
const AT_ONCE: usize = 32;

const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// The addresses of a cluster.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Where this server is reached by the cluster.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The address of the `kubernetes` service.
    pub service_ip: IpAddr,
    /// The addresses of the DNS service, one a family; none makes no such service.
    pub dns_ips: Vec<IpAddr>,
    /// Whom aggregated servers and joining machines may trust.
    pub trust: Trust,
}

/// What the cluster publishes about itself.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The authorities of client certificates (PEM); none publishes nothing.
    pub client_ca: String,
    /// The authorities of front proxies (PEM).
    pub front_proxy_ca: String,
    /// The names of front proxies; none lets every name pass.
    pub front_proxy_names: Vec<String>,
    /// The headers front proxies use.
    pub front_proxy_headers: FrontProxyHeaders,
    /// The cluster's own authority (PEM), for machines that join; none publishes nothing.
    pub cluster_ca: String,
    /// The URL of this server as other machines reach it.
    pub url: String,
}

/// Makes what is missing. Returns when all of it is there.
pub async fn bootstrap(registry: &Registry, cluster: &Bootstrap) -> Result<(), ApiError> {
    let at = &Maker { registry };
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        at.ensure("", "v1", "namespaces", &namespace).await?;
    }
    // Many at a time: the store commits them in groups.
    let mut roles = stream::iter(skep_auth::bootstrap::objects())
        .map(|wanted| async move { at.role(&wanted).await })
        .buffer_unordered(AT_ONCE);
    while roles.try_next().await?.is_some() {}
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node \
             if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": description,
        });
        at.ensure("scheduling.k8s.io", "v1", "priorityclasses", &class).await?;
    }
    at.service_ranges(true).await?;
    at.kubernetes(cluster).await?;
    Announcement::new(cluster.address, cluster.port).announce(registry).await?;
    at.trust(&cluster.trust).await?;
    if !cluster.dns_ips.is_empty() {
        at.ensure("", "v1", "services", &dns_service(&cluster.dns_ips)).await?;
    }
    Ok(())
}

/// Looks after the `kubernetes` service, this server's place in its endpoints, and what else the cluster
/// knows of this server, until cancelled.
pub async fn keep(registry: Arc<Registry>, cluster: Bootstrap, cancel: CancellationToken) {
    let announcement = Announcement::new(cluster.address, cluster.port);
    tokio::join!(
        announcement.run(registry.clone(), cancel.clone()),
        identity_lease::keep(registry.clone(), (cluster.address, cluster.port).into(), cancel.clone()),
        keep_services(&registry, &cluster, &cancel),
    );
}

async fn keep_services(registry: &Registry, cluster: &Bootstrap, cancel: &CancellationToken) {
    let mut interval = tokio::time::interval(KEEP);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = interval.tick() => {}
        }
        let at = Maker { registry };
        if let Err(error) = at.service_ranges(false).await {
            tracing::warn!(%error, "the ranges of service addresses could not be looked after");
        }
        if let Err(error) = at.kubernetes(cluster).await {
            tracing::warn!(%error, "the kubernetes service could not be looked after");
        }
        if let Err(error) = at.trust(&cluster.trust).await {
            tracing::warn!(%error, "the cluster's authorities could not be published");
        }
    }
}

/// The service of the cluster DNS. It selects no pods: each node's agent answers for its own node and
/// keeps a slice for it, hinted at that node; the pods of a node whose agent is away are answered by others.
fn dns_service(addresses: &[IpAddr]) -> Value {
    let families: Vec<_> = addresses.iter().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    let policy = if addresses.len() > 1 { "PreferDualStack" } else { "SingleStack" };
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "clusterIP": addresses.first(),
            "clusterIPs": addresses,
            "ipFamilies": families,
            "ipFamilyPolicy": policy,
            "trafficDistribution": "PreferSameNode",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 10053},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 10053},
            ],
        },
    })
}

struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn options() -> WriteOptions {
        WriteOptions {
            user: UserInfo::new("system:apiserver", ["system:masters"]),
            field_manager: "skep-apiserver".to_owned(),
            ..WriteOptions::default()
        }
    }

    /// Makes an object if there is none of its name.
    async fn ensure(&self, group: &str, version: &str, plural: &str, wanted: &Value) -> Result<(), ApiError> {
        let target = self.target(group, version, plural, wanted)?;
        match self.registry.get(&target, None).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => self.create(&target, wanted).await,
            Err(error) => Err(error),
        }
    }

    async fn create(&self, target: &Target, wanted: &Value) -> Result<(), ApiError> {
        match self.registry.create(target, wanted.clone(), &Self::options()).await {
            // Another server was faster.
            Err(error) if !error.is_already_exists() => {
                tracing::warn!(%error, resource = %target.resource, name = target.name, "not made");
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn target(&self, group: &str, version: &str, plural: &str, object: &Value) -> Result<Target, ApiError> {
        let row = kinds::by_resource(group, version, plural).ok_or_else(ApiError::no_such_path)?;
        Ok(Target::new(row.gvr(), object.namespace(), object.name()))
    }

    /// Makes a role or binding, or gives it back the rights it has lost.
    async fn role(&self, wanted: &Value) -> Result<(), ApiError> {
        let gvk = wanted.gvk();
        let row = kinds::by_kind(&gvk.group, &gvk.version, &gvk.kind).ok_or_else(ApiError::no_such_path)?;
        let target = Target::new(row.gvr(), wanted.namespace(), wanted.name());
        for _ in 0..TRIES {
            let stored = match self.registry.get(&target, None).await {
                Ok(stored) => stored,
                Err(error) if error.is_not_found() => return self.create(&target, wanted).await,
                Err(error) => return Err(error),
            };
            let Some(repaired) = skep_auth::bootstrap::repaired(&stored.value, wanted) else { return Ok(()) };
            match self.registry.update(&target, repaired, &Self::options()).await {
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// The ServiceCIDR of the ranges the server was started with. Ready at once: the services below need it.
    async fn service_ranges(&self, say: bool) -> Result<(), ApiError> {
        let ranges: Vec<String> = self.registry.service_ranges().iter().map(ToString::to_string).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let wanted = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": ranges},
        });
        let target = self.target("networking.k8s.io", "v1", "servicecidrs", &wanted)?;
        self.ensure("networking.k8s.io", "v1", "servicecidrs", &wanted).await?;
        let stored = self.registry.get(&target, None).await?;
        let mut object = Value::clone(&stored.value);
        let there: Vec<&str> = object.items(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
        if there.len() == 1 && ranges.len() == 2 && there[0] == ranges[0] {
            object.set(&["spec", "cidrs"], ranges);
            tracing::info!("the cluster's services get a second address family");
            return self.registry.update(&target, object, &Self::options()).await.map(|_| ());
        }
        if say && there != ranges {
            tracing::warn!(
                ?there, configured = ?ranges,
                "addresses come from the ServiceCIDR \"kubernetes\", not from the configured ranges"
            );
        }
        let conditions = object.items(&["status", "conditions"]);
        if object.deletion_timestamp().is_some() || conditions.iter().any(|c| c.text(&["type"]) == "Ready") {
            return Ok(());
        }
        let ready = json!([{
            "type": "Ready",
            "status": "True",
            "reason": "Ready",
            "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]);
        object.set(&["status", "conditions"], ready);
        match self.registry.update(&target.below("status"), object, &Self::options()).await {
            // Another server was faster.
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// The `kubernetes` service.
    async fn kubernetes(&self, cluster: &Bootstrap) -> Result<(), ApiError> {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": cluster.service_ip.to_string(),
                "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": cluster.port}],
            },
        });
        self.ensure("", "v1", "services", &service).await
    }

    /// The authorities that others may rely on.
    async fn trust(&self, trust: &Trust) -> Result<(), ApiError> {
        if let Some(map) = trust::authentication(trust) {
            self.keep_as("", "configmaps", &map, &["data"]).await?;
        }
        match trust::cluster_info(trust) {
            Some(map) => self.cluster_info(&map).await,
            None => Ok(()),
        }
    }

    /// Only the one key: signatures are added by others.
    async fn cluster_info(&self, wanted: &Value) -> Result<(), ApiError> {
        let target = self.target("", "v1", "configmaps", wanted)?;
        let stored = match self.registry.get(&target, None).await {
            Ok(stored) => stored,
            Err(error) if error.is_not_found() => return self.create(&target, wanted).await,
            Err(error) => return Err(error),
        };
        let kubeconfig = wanted.text(&["data", "kubeconfig"]);
        if stored.value.text(&["data", "kubeconfig"]) == kubeconfig {
            return Ok(());
        }
        let mut object = Value::clone(&stored.value);
        object.set(&["data", "kubeconfig"], kubeconfig);
        self.registry.update(&target, object, &Self::options()).await.map(|_| ())
    }

    /// Makes an object, or puts these fields of it back.
    async fn keep_as(
        &self,
        group: &str,
        plural: &str,
        wanted: &Value,
        fields: &[&str],
    ) -> Result<(), ApiError> {
        let target = self.target(group, "v1", plural, wanted)?;
        for _ in 0..TRIES {
            let stored = match self.registry.get(&target, None).await {
                Ok(stored) => stored,
                Err(error) if error.is_not_found() => return self.create(&target, wanted).await,
                Err(error) => return Err(error),
            };
            if fields.iter().all(|field| stored.value.get(*field) == wanted.get(*field)) {
                return Ok(());
            }
            let mut object = Value::clone(&stored.value);
            for field in fields {
                object[*field] = wanted[*field].clone();
            }
            match self.registry.update(&target, object, &Self::options()).await {
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
        Ok(())
    }
}
