//! [`PodNetwork`]: setup, teardown and reconciliation of pods' networks.

mod repair;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::{Mutex, RwLock},
    task::JoinSet,
};

use crate::{
    Error, NetworkConfig, Peer, PodAttachment, PodEndpoint, PodRequest, Result,
    kernel::{Netlink, NewPair},
    locks::KeyedLocks,
    model::{Op, Route, Seen, Target},
    names,
    netns::{self, Namespace},
    plan::{self, Pair, Strays, peers::Ways},
    records::{Record, Records},
    sysctl::{self, Setting},
    watcher,
};

/// The pod network of one node.
///
/// It works in the network namespace of the thread that made it, whatever the process does later. Dropping it
/// stops the watcher and nothing else: pods keep their network.
#[derive(Debug)]
pub struct PodNetwork {
    node: Arc<Node>,
    _tasks: JoinSet<()>,
}

/// What [`PodNetwork::reconcile`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Pods whose network was there, and is whole now.
    pub adopted: Vec<String>,
    /// Pods that nobody knows any more, and whose network is gone now.
    pub removed: Vec<String>,
}

/// The shared core: the watcher repairs through it.
pub(crate) struct Node {
    config: NetworkConfig,
    namespace: Namespace,
    netlink: Netlink,
    records: Mutex<Records>,
    /// Pods whose setup is complete: what the watcher keeps whole.
    ready: RwLock<BTreeMap<String, Ready>>,
    /// `None` until told: routes to peers of an earlier run stay until then.
    peers: RwLock<Option<Vec<Peer>>>,
    /// Whether service addresses must get into the host's stack. One flag, guarding nothing else.
    services_by_stack: AtomicBool,
    /// The interfaces with uplink programs, by index.
    uplinks: Mutex<BTreeMap<u32, String>>,
    /// What the data path was told of other nodes.
    told: Mutex<repair::Told>,
    locks: KeyedLocks,
}

/// A pod with its network.
#[derive(Clone, Debug)]
struct Ready {
    record: Record,
    /// The MTU of its interface: the pod's end is in a namespace that nobody watches.
    mtu: u32,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl PodNetwork {
    /// Opens the records, prepares the node's namespace (forwarding, dead ends under the service and pod
    /// ranges) and starts the watcher. Pods of an earlier run keep running; call [`Self::reconcile`] next.
    ///
    /// # Errors
    /// When the configuration cannot work, or the kernel or the disk refuses.
    pub async fn new(config: NetworkConfig) -> Result<Self> {
        config.validate()?;
        let namespace = Namespace::own()?;
        let netlink = Netlink::connect(&namespace).await?;
        let records = Records::open(&config.state_dir)?;
        let settings = node_sysctls(&config, &netlink.observe().await?);
        sysctl::set_recorded(&namespace, &config.state_dir, settings).await?;
        let services_by_stack = AtomicBool::new(config.services_by_stack);
        let node = Arc::new(Node {
            config,
            namespace,
            netlink,
            records: Mutex::new(records),
            ready: RwLock::default(),
            peers: RwLock::default(),
            services_by_stack,
            uplinks: Mutex::default(),
            told: Mutex::default(),
            locks: KeyedLocks::default(),
        });
        node.repair(Strays::Keep).await?;
        let mut tasks = JoinSet::new();
        watcher::spawn(Arc::clone(&node), &mut tasks).await?;
        Ok(Self { node, _tasks: tasks })
    }

    /// Gives a pod its network, or completes what an earlier call began. Idempotent: the same uid gets the
    /// same addresses.
    ///
    /// # Errors
    /// When no address is free, or the kernel, the data path or the disk refuses. What was begun stays and is
    /// taken up by the next call, or taken down by [`Self::teardown`].
    pub async fn setup(&self, pod: &PodRequest) -> Result<PodAttachment> {
        names::check_uid(&pod.uid)?;
        let _exclusive = self.node.locks.lock(&pod.uid).await;
        let record = self.node.records.lock().await.ensure(pod, &self.node.config.pod_cidrs)?;
        let ready = self.node.realise(&record).await?;
        let attachment = self.node.attachment(&record);
        self.node.ready.write().await.insert(record.uid.clone(), ready);
        tracing::info!(uid = pod.uid, namespace = pod.namespace, name = pod.name,
            ips = ?attachment.ips, interface = attachment.host_interface, "pod network is up");
        Ok(attachment)
    }

    /// Takes a pod's network down and releases its addresses. Idempotent: an unknown uid is success.
    ///
    /// # Errors
    /// When the kernel, the data path or the disk refuses; the addresses then stay taken, and the call can be
    /// repeated.
    pub async fn teardown(&self, uid: &str) -> Result<()> {
        names::check_uid(uid)?;
        let _exclusive = self.node.locks.lock(uid).await;
        self.node.take_down(uid).await
    }

    /// At start: takes over the pods in `known_uids`, and removes every trace of pods that are not in it.
    /// Must not run beside [`Self::setup`].
    ///
    /// # Errors
    /// When the kernel or the disk refuses; it can be repeated.
    pub async fn reconcile(&self, known_uids: &[String]) -> Result<Reconciled> {
        self.node.reconcile(&known_uids.iter().map(String::as_str).collect()).await
    }

    /// Sets the ways to other nodes' pods, replacing those set before.
    ///
    /// # Errors
    /// When the kernel refuses a route (a gateway that is on no segment of ours above all) or the tunnel.
    pub async fn set_peers(&self, peers: Vec<Peer>) -> Result<()> {
        *self.node.peers.write().await = Some(peers);
        self.node.repair(Strays::Keep).await
    }

    /// Whether service addresses are translated by rules in the host's stack from now on (the node's own packets
    /// to them are routed to loopback, where the rules get at them), or before they reach the stack.
    ///
    /// # Errors
    /// When the kernel refuses a route.
    pub async fn set_services_by_stack(&self, by_stack: bool) -> Result<()> {
        self.node.services_by_stack.store(by_stack, Ordering::Relaxed);
        if by_stack {
            return self.node.repair(Strays::Keep).await;
        }
        let seen = self.node.netlink.observe().await?;
        let is_ours = |route: &Route| {
            matches!(route.target, Target::Interface(_))
                && self.node.config.service_cidrs.contains(&route.destination)
        };
        let ops: Vec<Op> =
            seen.routes.iter().filter(|route| is_ours(route)).cloned().map(Op::DeleteRoute).collect();
        self.node.netlink.apply(&ops).await
    }

    /// The pods' networks that are up.
    pub async fn attachments(&self) -> BTreeMap<String, PodAttachment> {
        let ready = self.node.ready.read().await;
        ready.iter().map(|(uid, ready)| (uid.clone(), self.node.attachment(&ready.record))).collect()
    }
}

impl Node {
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn netns_path(&self, uid: &str) -> PathBuf {
        self.config.netns_dir().join(uid)
    }

    fn attachment(&self, record: &Record) -> PodAttachment {
        PodAttachment {
            ips: record.ips.clone(),
            netns: self.netns_path(&record.uid),
            host_interface: record.host_interface.clone(),
        }
    }

    /// Makes the kernel match the record. The caller holds the pod's lock.
    async fn realise(&self, record: &Record) -> Result<Ready> {
        let pod_namespace = netns::ensure(&self.netns_path(&record.uid)).await?;
        let pod_netlink = Netlink::connect(&pod_namespace).await?;
        let node_seen = self.netlink.observe().await?;
        let mut pod_seen = pod_netlink.observe().await?;
        let ways = self.ways(&node_seen).await;
        let mtu = plan::mtu(&self.config, ways.as_ref(), &node_seen);
        let pair = plan::pair(record, &node_seen, &pod_seen);
        if pair == Pair::Torn {
            self.netlink.apply(&[Op::DeleteLink(record.host_interface.clone())]).await?;
            pod_netlink.apply(&[Op::DeleteLink(plan::POD_INTERFACE.to_owned())]).await?;
        }
        if pair != Pair::Whole {
            let (pod_mac, host_mac) = names::macs(&record.uid);
            let new = NewPair {
                host_name: &record.host_interface,
                host_mac,
                pod_name: plan::POD_INTERFACE,
                pod_mac,
                mtu,
                pod_netns: pod_namespace.raw(),
            };
            self.netlink.create_pair(&new).await?;
            sysctl::set_passing(&self.namespace, host_interface_sysctls(&record.host_interface)).await?;
            sysctl::set_passing(&pod_namespace, pod_sysctls()).await?;
            pod_seen = pod_netlink.observe().await?;
        }
        // The host's end first: the pod's end has no carrier, and so no routes, before.
        let host_link = self.link_up_on_node(record, ways.as_ref()).await?;
        pod_netlink.apply(&plan::steps(&plan::wanted_in_pod(record, mtu), &pod_seen, Strays::Keep)).await?;
        self.connect_data_path(record, host_link)?;
        Ok(Ready { record: record.clone(), mtu })
    }

    /// Brings up the host's end with its routes and neighbours; returns its index.
    async fn link_up_on_node(&self, record: &Record, ways: Option<&Ways>) -> Result<u32> {
        let seen = self.netlink.observe().await?;
        let link = seen
            .links
            .get(&record.host_interface)
            .ok_or_else(|| Error::Vanished(record.host_interface.clone()))?;
        let mut wanted = plan::wanted_on_node(&self.config, [record], ways, &seen);
        // What is not the pod's alone is the watcher's.
        wanted.keep_only(&record.host_interface);
        self.netlink.apply(&plan::steps(&wanted, &seen, Strays::Keep)).await?;
        Ok(link.index)
    }

    fn connect_data_path(&self, record: &Record, host_ifindex: u32) -> Result<()> {
        let Some(data_path) = &self.config.data_plane else { return Ok(()) };
        let fail = |action: String| move |source| Error::DataPath { action, source };
        let (pod_mac, host_mac) = names::macs(&record.uid);
        data_path
            .attach_pod(host_ifindex)
            .map_err(fail(format!("attach programs to {}", record.host_interface)))?;
        for ip in &record.ips {
            let endpoint = PodEndpoint { host_ifindex, pod_mac, host_mac };
            data_path.set_endpoint(*ip, &endpoint).map_err(fail(format!("set endpoint {ip}")))?;
        }
        Ok(())
    }

    /// Removes every trace of a pod; its addresses are released last. The caller holds the pod's lock.
    async fn take_down(&self, uid: &str) -> Result<()> {
        self.ready.write().await.remove(uid);
        let record = self.records.lock().await.get(uid).cloned();
        if let Some(record) = &record {
            self.disconnect_data_path(record).await?;
            self.netlink.apply(&[Op::DeleteLink(record.host_interface.clone())]).await?;
        }
        netns::remove(&self.netns_path(uid))?;
        if record.is_some() {
            self.records.lock().await.forget(uid)?;
            tracing::info!(uid, "pod network is down");
        }
        Ok(())
    }

    async fn disconnect_data_path(&self, record: &Record) -> Result<()> {
        let Some(data_path) = &self.config.data_plane else { return Ok(()) };
        let fail = |action: String| move |source| Error::DataPath { action, source };
        for ip in &record.ips {
            data_path.remove_endpoint(*ip).map_err(fail(format!("remove endpoint {ip}")))?;
        }
        if let Some(link) = self.netlink.links().await?.get(&record.host_interface) {
            data_path
                .detach_pod(link.index)
                .map_err(fail(format!("detach programs from {}", record.host_interface)))?;
        }
        Ok(())
    }

    async fn reconcile(&self, known: &BTreeSet<&str>) -> Result<Reconciled> {
        self.recover_records(known).await?;
        let mut outcome = Reconciled::default();
        let recorded: Vec<Record> = self.records.lock().await.all().cloned().collect();
        for record in recorded {
            let _exclusive = self.locks.lock(&record.uid).await;
            if !known.contains(record.uid.as_str()) {
                self.take_down(&record.uid).await?;
                outcome.removed.push(record.uid);
            } else if netns::is_pinned(&self.netns_path(&record.uid)) {
                let ready = self.realise(&record).await?;
                outcome.adopted.push(record.uid.clone());
                self.ready.write().await.insert(record.uid, ready);
            }
            // A known pod without its namespace (after a reboot) keeps its address for the coming setup.
        }
        for uid in netns::list(&self.config.netns_dir())? {
            if self.records.lock().await.get(&uid).is_none() {
                netns::remove(&self.netns_path(&uid))?;
                outcome.removed.push(uid);
            }
        }
        self.repair(Strays::Remove).await?;
        tracing::info!(
            adopted = outcome.adopted.len(),
            removed = outcome.removed.len(),
            "pod networks reconciled"
        );
        Ok(outcome)
    }

    /// Makes records for known pods that have devices but none: their file was lost. The interface's name is a
    /// function of the uid, and the routes over it are the pod's addresses.
    async fn recover_records(&self, known: &BTreeSet<&str>) -> Result<()> {
        let pinned: BTreeSet<String> = netns::list(&self.config.netns_dir())?.into_iter().collect();
        let mut records = self.records.lock().await;
        let lost: Vec<&str> =
            known.iter().copied().filter(|uid| pinned.contains(*uid) && records.get(uid).is_none()).collect();
        if lost.is_empty() {
            return Ok(());
        }
        let seen = self.netlink.observe().await?;
        for uid in lost {
            if let Some(record) = plan::recovered(uid, &self.config.pod_cidrs, &seen) {
                tracing::warn!(uid, ips = ?record.ips, "pod found without a record; adopting it");
                records.adopt(record)?;
            }
        }
        Ok(())
    }
}

/// Forwarding is what makes a node a router for its pods. An IPv6 router ignores the advertisements that may
/// have given it its own default route, unless told not to.
fn node_sysctls(config: &NetworkConfig, seen: &Seen) -> Vec<Setting> {
    let set = |key: &str| Setting { key: key.to_owned(), value: "1", only_if: None };
    let mut wanted = Vec::new();
    if config.has_ipv6() {
        wanted.extend(plan::uplinks(config, seen).into_keys().map(|name| Setting {
            key: format!("net/ipv6/conf/{name}/accept_ra"),
            value: "2",
            only_if: Some("1"),
        }));
        wanted.push(set("net/ipv6/conf/all/forwarding"));
    }
    wanted.push(set("net/ipv4/ip_forward"));
    wanted
}

fn host_interface_sysctls(name: &str) -> Vec<(String, &'static str)> {
    vec![
        // The host's end has no address of its own; without this the kernel would make a link-local one and
        // announce itself to the pod as a router.
        (format!("net/ipv6/conf/{name}/addr_gen_mode"), "1"),
        (format!("net/ipv6/conf/{name}/accept_ra"), "0"),
        // A reply that eBPF steers may come in where the routing table would not send it out.
        (format!("net/ipv4/conf/{name}/rp_filter"), "0"),
        // A pod that talks to itself through a service must not be told of a shorter way.
        (format!("net/ipv4/conf/{name}/send_redirects"), "0"),
    ]
}

fn pod_sysctls() -> Vec<(String, &'static str)> {
    let name = plan::POD_INTERFACE;
    vec![
        (format!("net/ipv6/conf/{name}/accept_ra"), "0"),
        (format!("net/ipv6/conf/{name}/accept_dad"), "0"),
        (format!("net/ipv4/conf/{name}/accept_redirects"), "0"),
        (format!("net/ipv6/conf/{name}/accept_redirects"), "0"),
    ]
}
