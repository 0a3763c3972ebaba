//! The control plane: store, API server, controllers, scheduler, composed from their crates.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use ipnet::IpNet;
use skep_admission::LateAccess;
use skep_api::user::UserInfo;
use skep_apiserver::bootstrap::{self, Bootstrap, Trust};
use skep_apiserver::gates::Gates;
use skep_apiserver::identity::{ClusterLookup, follow_rbac, publish_rbac};
use skep_apiserver::proxy::Kubelets;
use skep_apiserver::starting::while_starting;
use skep_apiserver::tokens::Tokens;
use skep_apiserver::{ApiServer, Config};
use skep_auth::authentication::{Bearer, TokenVerifier};
use skep_auth::authorization::rbac::Rbac;
use skep_auth::pki::{Pki, PkiOptions, ServingCertificate};
use skep_auth::tokens::{SecretTokenVerifier, ServiceAccountVerifier, Signer};
use skep_client::Client;
use skep_controllers::{ControllersConfig, PodRange};
use skep_registry::Registry;
use skep_storage::etcd::{Etcd, EtcdConfig};
use skep_storage::{Embedded, Storage};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::folders::Folders;
use crate::isolate::Isolation;
use crate::limits::Limits;
use crate::{elected, host, runtime};

mod accounts;
mod audit;
mod encryption;
mod oidc;
mod security;

pub(crate) use accounts::Accounts;
pub(crate) use audit::Audit;
pub(crate) use encryption::Encryption;
pub(crate) use oidc::OidcOptions;
pub(crate) use security::Security;

/// How often certificates are looked at while the server runs.
const RENEWAL: Duration = Duration::from_secs(6 * 3600);

/// What etcd keeps of the past: as the embedded store does.
const ETCD_HISTORY: Duration = Duration::from_secs(300);

/// `skep server`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) isolation: Isolation,
    #[command(flatten)]
    pub(crate) plane: Plane,
}

/// What a control plane is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Plane {
    /// The address the cluster reaches this server at; the host's own by default.
    #[arg(long, env = "SKEP_ADVERTISE_ADDRESS", value_name = "IP")]
    pub(crate) advertise_address: Option<IpAddr>,
    /// The HTTPS port.
    #[arg(long, env = "SKEP_SECURE_PORT", default_value_t = 6443, value_name = "PORT")]
    pub(crate) secure_port: u16,
    /// Serve plain HTTP without authentication on this loopback port (classically 8080); 0 is off.
    #[arg(long, env = "SKEP_INSECURE_PORT", default_value_t = 0, value_name = "PORT")]
    pub(crate) insecure_port: u16,
    /// Further names and addresses for the serving certificate.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) tls_san: Vec<String>,
    /// Store in etcd at these endpoints instead of the embedded store.
    #[arg(long, env = "SKEP_ETCD_ENDPOINTS", value_delimiter = ',', value_name = "URL")]
    pub(crate) etcd_endpoints: Vec<String>,
    /// The CA of etcd's certificates.
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// Our certificate for etcd.
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
    /// Ranges of service addresses, one a family.
    #[arg(
        long,
        env = "SKEP_SERVICE_CIDR",
        default_value = "10.96.0.0/16",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    pub(crate) service_cidr: Vec<IpNet>,
    /// Ranges of pod addresses, one a family.
    #[arg(
        long,
        env = "SKEP_POD_CIDR",
        default_value = "10.244.0.0/16",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    pub(crate) pod_cidr: Vec<IpNet>,
    #[command(flatten)]
    pub(crate) security: Security,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) accounts: Accounts,
    #[command(flatten)]
    pub(crate) encryption: Encryption,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) admission: Admission,
}

/// A running control plane.
pub(crate) struct Server {
    pub(crate) pki: Pki,
    pub(crate) address: SocketAddr,
}

/// `skep server`.
pub(crate) fn main(options: Options) -> Result<()> {
    options.isolation.enter()?;
    let _lock = options.folders.lock()?;
    runtime::run(async move |cancel| {
        let tasks = TaskTracker::new();
        let server = start(&options.folders, &options.plane, &tasks, &cancel).await?;
        let url = format!("https://127.0.0.1:{}", server.address.port());
        crate::kubeconfig::write_admin(&options.folders, &server.pki, &url)?;
        cancel.cancelled().await;
        tasks.close();
        tasks.wait().await;
        Ok(())
    })
}

/// The addresses that a control plane answers at.
pub(crate) fn address(plane: &Plane) -> Result<SocketAddr> {
    let ip = match plane.advertise_address {
        Some(ip) => ip,
        None => host::address().context("say which address to use: --advertise-address")?,
    };
    if ip.is_loopback() {
        tracing::warn!(%ip, "pods do not reach this server: the kubernetes service gets no endpoints");
    }
    Ok(SocketAddr::new(ip, plane.secure_port))
}

/// Starts a control plane; returns when it serves. Its tasks end with `cancel`.
pub(crate) async fn start(
    folders: &Folders,
    plane: &Plane,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> Result<Server> {
    let address = address(plane)?;
    // Before anything is changed: a second server must not get far.
    let listener = listen(SocketAddr::new(unspecified(address.ip()), plane.secure_port)).await?;
    let pki = Pki::load_or_create(&folders.pki(), &pki_options(plane, address)?)?;
    let serving = ServingCertificate::new(pki.server())?;
    let tls = skep_auth::pki::serving_config(Arc::clone(&serving), &plane.security.tls())?;
    // Who comes too early is told to come again.
    let work = prepare(folders, plane, &pki, address, tasks, cancel);
    let (api, signer) = while_starting(&listener, Arc::clone(&tls), work).await?;
    tasks.spawn(renew(folders.pki(), pki_options(plane, address)?, serving, cancel.child_token()));
    spawn(tasks, "the API server", api.clone().serve(listener, tls, cancel.child_token()));
    if plane.insecure_port != 0 {
        let plain = listen(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), plane.insecure_port)).await?;
        spawn(tasks, "the plain port", api.clone().serve_plain(plain, cancel.child_token()));
    }
    controllers(&api, plane, &pki, signer, tasks, cancel)?;
    Ok(Server { pki, address })
}

/// Everything between the store and the first request.
async fn prepare(
    folders: &Folders,
    plane: &Plane,
    pki: &Pki,
    address: SocketAddr,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> Result<(ApiServer, Arc<Signer>)> {
    let storage = storage(folders, plane).await?;
    let (storage, encryption) = plane.encryption.wrap(storage, tasks, cancel).await?;
    let rbac = Arc::new(Rbac::new());
    let gates = Gates::new(Arc::clone(&rbac));
    let access = LateAccess::default();
    let options = registry_options(plane, gates.clone(), access.clone())?;
    let registry = Registry::start(storage, options, tasks, cancel.child_token()).await?;
    let rights = Rights { rbac, gates, signer: plane.accounts.signer(pki)? };
    let api = build(plane, pki, &registry, address, &rights, encryption, (tasks, cancel))?;
    access.set(api.access());
    let cluster = Bootstrap {
        address: address.ip(),
        port: address.port(),
        service_ip: nth(&plane.service_cidr, 1)?,
        dns_ips: dns_addresses(&plane.service_cidr)?,
        trust: Trust {
            client_ca: plane.security.client_ca(pki)?,
            front_proxy_ca: plane.security.front_proxy_ca(pki)?,
            front_proxy_names: plane.security.front_proxy_names(),
            front_proxy_headers: plane.security.front_proxy_headers(),
            cluster_ca: pki.ca_pem().to_owned(),
            url: format!("https://{address}"),
        },
    };
    bootstrap::bootstrap(&registry, &cluster).await.context("making what every cluster begins with")?;
    api.ensure_flow_control().await.context("making what priority and fairness begins with")?;
    tasks.spawn(api.clone().keep_flow_control(cancel.child_token()));
    publish_rbac(&registry, &rights.rbac).await.context("reading the roles")?;
    tasks.spawn(follow_rbac(Arc::clone(&registry), rights.rbac, cancel.child_token()));
    tasks.spawn(api.clone().aggregate(cancel.child_token()));
    tasks.spawn(bootstrap::keep(Arc::clone(&registry), cluster, cancel.child_token()));
    Ok((api, rights.signer))
}

/// Controllers and scheduler: each with an identity of its own, over the API only.
fn controllers(
    api: &ApiServer,
    plane: &Plane,
    pki: &Pki,
    signer: Arc<Signer>,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> Result<()> {
    let client = |name: &str| Client::in_process(api.router(), UserInfo::new(name, Vec::<String>::new()));
    let node_prefix = |range: &IpNet| match range {
        IpNet::V4(_) => 24.max(range.prefix_len()),
        IpNet::V6(_) => 64.max(range.prefix_len()),
    };
    let pod_ranges =
        plane.pod_cidr.iter().map(|range| PodRange { cluster: *range, node_prefix: node_prefix(range) });
    let authority = skep_auth::certificates::Authority::new(pki.ca_pem(), &pki.ca_key_pem())?;
    let config = ControllersConfig {
        pod_ranges: pod_ranges.collect(),
        ca_pem: pki.ca_pem().to_owned(),
        authority: Some(Arc::new(authority)),
        tokens: Some(signer),
    };
    let (manager, scheduler) = (client("system:kube-controller-manager"), client("system:kube-scheduler"));
    if plane.etcd_endpoints.is_empty() {
        tasks.spawn(skep_controllers::run(manager, config, cancel.child_token()));
        spawn(tasks, "the scheduler", skep_scheduler::run(scheduler, cancel.child_token()));
        return Ok(());
    }
    // Other servers may share the store: one of each works.
    let work = move |client: Client, leading| skep_controllers::run(client, config.clone(), leading);
    tasks.spawn(elected::run("kube-controller-manager", manager, cancel.child_token(), work));
    let work = |client: Client, leading| async move {
        if let Err(error) = skep_scheduler::run(client, leading).await {
            tracing::error!(%error, "the scheduler ended");
        }
    };
    tasks.spawn(elected::run("kube-scheduler", scheduler, cancel.child_token(), work));
    Ok(())
}

/// What decides about rights, shared by the parts of the API server.
struct Rights {
    rbac: Arc<Rbac>,
    gates: Gates,
    signer: Arc<Signer>,
}

/// A part that must not end by itself: if it does with an error, that is said.
fn spawn<E: std::fmt::Display + Send + 'static>(
    tasks: &TaskTracker,
    what: &'static str,
    part: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    tasks.spawn(async move {
        if let Err(error) = part.await {
            tracing::error!(%error, "{what} ended");
        }
    });
}

fn build(
    plane: &Plane,
    pki: &Pki,
    registry: &Arc<Registry>,
    address: SocketAddr,
    rights: &Rights,
    encryption: Option<encryption::Wrapped>,
    (tasks, cancel): (&TaskTracker, &CancellationToken),
) -> Result<ApiServer> {
    let Rights { rbac, gates, signer } = rights;
    let lookup = ClusterLookup(Arc::clone(registry));
    let mut verifiers: Vec<Arc<dyn TokenVerifier>> = vec![
        Arc::new(ServiceAccountVerifier::new(Arc::clone(signer), lookup.clone())),
        Arc::new(SecretTokenVerifier::new(Arc::clone(signer), lookup.clone())),
    ];
    let calls = skep_webhook::Client::new(registry.reader().clone());
    let file = plane.security.authentication_file(&calls, signer.issuers())?;
    verifiers.extend(plane.security.verifiers(&lookup, &calls, file.as_ref())?);
    let bearer = Arc::new(Bearer::new(verifiers, signer.audiences().to_vec()));
    let authentication = plane.security.authentication(pki, &bearer, file.as_ref())?;
    let (authorization, modes) = plane.security.authorization(&lookup, rbac, &calls)?;
    let file = file.map(|file| file.follow(Arc::clone(&bearer)));
    let mut reloads = Vec::new();
    let mut checks = Vec::new();
    if let Some(encryption) = encryption {
        reloads.push(("encryption_config", encryption.reloads));
        checks.push(encryption.check);
    }
    let followed = [("authentication_config", file), ("authorization_config", modes)];
    for (name, followed) in followed.into_iter().filter_map(|(name, followed)| Some((name, followed?))) {
        reloads.push((name, followed.reloads));
        let cancel = cancel.child_token();
        tasks.spawn(async move { cancel.run_until_cancelled(followed.task).await });
    }
    gates.ask(Arc::clone(&authorization));
    let kubelet =
        pki.stored_client("apiserver-kubelet-client", "skep-apiserver-kubelet", &["system:masters"])?;
    let mut config = Config {
        tokens: Some(Tokens { signer: Arc::clone(signer), bearer }),
        kubelets: Some(Kubelets::new(pki.ca_pem(), &kubelet.cert_pem, &kubelet.key_pem)?),
        advertise: Some(address),
        rbac: Some(Arc::clone(rbac)),
        audit: plane.audit.start(&calls, tasks)?,
        hsts: plane.security.hsts()?,
        front_proxy: Some(pki.front_proxy_client().clone()),
        reloads,
        checks,
        ..Config::new(Arc::clone(registry), authentication, authorization)
    };
    plane.limits.apply(&mut config);
    Ok(ApiServer::build(config))
}

/// Renews the serving certificate while the server runs.
async fn renew(
    dir: PathBuf,
    options: PkiOptions,
    serving: Arc<ServingCertificate>,
    cancel: CancellationToken,
) {
    // Cancel safe: renewing itself is synchronous, and its files are replaced atomically.
    while cancel.run_until_cancelled(tokio::time::sleep(RENEWAL)).await.is_some() {
        let renewed = Pki::load_or_create(&dir, &options).and_then(|pki| serving.replace(pki.server()));
        if let Err(error) = renewed {
            tracing::error!(%error, "the serving certificate could not be renewed");
        }
    }
}

fn registry_options(plane: &Plane, gates: Gates, access: LateAccess) -> Result<skep_registry::Options> {
    Ok(skep_registry::Options {
        service_ranges: plane.service_cidr.clone(),
        admission: plane.admission.chain(gates, access)?,
        ..skep_registry::Options::default()
    })
}

async fn storage(folders: &Folders, plane: &Plane) -> Result<Arc<dyn Storage>> {
    if plane.etcd_endpoints.is_empty() {
        let path = folders.store();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let store = Embedded::open(&path, skep_storage::embedded::Options::default()).await;
        return Ok(store.with_context(|| format!("opening the store {}", path.display()))?);
    }
    let config = EtcdConfig {
        endpoints: plane.etcd_endpoints.clone(),
        ca: plane.etcd_cafile.as_deref().map(read).transpose()?,
        cert: plane.etcd_certfile.as_deref().map(read).transpose()?,
        key: plane.etcd_keyfile.as_deref().map(read).transpose()?,
        history_age: Some(ETCD_HISTORY),
        ..EtcdConfig::default()
    };
    let etcd = Etcd::connect(config).await;
    Ok(etcd.with_context(|| format!("connecting to etcd at {}", plane.etcd_endpoints.join(", ")))?)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}; is another server running?"))
}

/// All addresses of a family: IPv6's includes IPv4's where the host has not turned that off.
fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The n-th address of the first range.
pub(crate) fn nth(ranges: &[IpNet], n: usize) -> Result<IpAddr> {
    let Some(range) = ranges.first() else { bail!("--service-cidr names no range") };
    range.hosts().nth(n - 1).with_context(|| format!("the service range {range} is too small"))
}

/// The addresses of the DNS service: the tenth of each range.
pub(crate) fn dns_addresses(ranges: &[IpNet]) -> Result<Vec<IpAddr>> {
    ranges.iter().map(|range| nth(&[*range], 10)).collect()
}

fn pki_options(plane: &Plane, address: SocketAddr) -> Result<PkiOptions> {
    let mut server_names: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .into();
    let mut server_ips = vec![Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into(), address.ip()];
    for range in &plane.service_cidr {
        server_ips.push(nth(&[*range], 1)?);
    }
    for name in &plane.tls_san {
        match name.parse::<IpAddr>() {
            Ok(ip) => server_ips.push(ip),
            Err(_) => server_names.push(name.clone()),
        }
    }
    Ok(PkiOptions { server_names, server_ips })
}
