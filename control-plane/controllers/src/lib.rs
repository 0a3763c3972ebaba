//! The controllers: pure plans over snapshots, applied through the API.
//!
//! [`run`] starts the shared informers, then one task a controller, each with a work queue of keys and a
//! few workers. Inputs and outputs are the API only; a controller that is stopped anywhere goes on from
//! what the API shows. Everything a controller decides is in a function without I/O, tested as such.

mod account_tokens;
mod bootstrap_tokens;
mod certificates;
mod cluster_roles;
mod cronjob;
mod daemonset;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod endpointslice;
mod expectations;
mod gc;
mod hash;
mod history;
mod ipam;
mod job;
mod namespace;
mod node_lifecycle;
mod owners;
mod pod_gc;
mod pods;
mod policy_types;
mod quota;
mod replicas;
mod root_ca;
mod service_account;
mod service_cidr;
mod sources;
mod statefulset;
mod taint_eviction;
mod ttl;
mod work;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use skep_auth::certificates::Authority;
use skep_auth::tokens::Signer;
use skep_client::Client;
use skep_client::events::Recorder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use ipam::PodRange;

/// A node that is silent for this long is Unknown.
const NODE_MONITOR_GRACE: Duration = Duration::from_secs(40);

/// What the controllers have to know of the cluster.
#[derive(Clone, Debug, Default)]
pub struct ControllersConfig {
    /// Ranges of pod addresses and the size of a node's part, one per address family; empty when
    /// somebody else gives nodes their ranges.
    pub pod_ranges: Vec<PodRange>,
    /// The cluster's certificate authority, published to every namespace.
    pub ca_pem: String,
    /// Signs certificate requests; without it somebody else does.
    pub authority: Option<Arc<Authority>>,
    /// Signs the tokens that are kept in Secrets; without it they stay empty.
    pub tokens: Option<Arc<Signer>>,
}

/// Runs all controllers until cancelled.
pub async fn run(client: Client, config: ControllersConfig, cancel: CancellationToken) {
    let mut ranges = config.pod_ranges;
    ranges.retain(|range| {
        let fits = (range.cluster.prefix_len()..=range.cluster.max_prefix_len()).contains(&range.node_prefix);
        if !fits {
            tracing::error!(range = %range.cluster, prefix = range.node_prefix, "parts larger than the range");
        }
        fits
    });
    let tracker = TaskTracker::new();
    let recorder = |component: &str| Recorder::spawn(client.clone(), component, "", &tracker, cancel.clone());
    let mut sources = sources::Sources::new(&client);
    let replica_sets = replicas::Replicas::new(
        "replicaset",
        &client,
        &recorder("replicaset-controller"),
        &mut sources.replica_sets,
        &mut sources.pods,
    );
    let replication_controllers = replicas::Replicas::new(
        "replicationcontroller",
        &client,
        &recorder("replication-controller"),
        &mut sources.replication_controllers,
        &mut sources.pods,
    );
    let deployments = deployment::Deployments::new(&client, &recorder("deployment-controller"), &mut sources);
    let jobs = job::Jobs::new(&client, &recorder("job-controller"), &mut sources);
    let daemon_sets = daemonset::DaemonSets::new(&client, &recorder("daemonset-controller"), &mut sources);
    let stateful_sets =
        statefulset::StatefulSets::new(&client, &recorder("statefulset-controller"), &mut sources);
    let cron_jobs = cronjob::CronJobs::new(&client, &recorder("cronjob-controller"), &mut sources);
    let quotas = quota::Quotas::new(&client, &mut sources);
    let disruption = disruption::Disruption::new(&client, &mut sources);
    let ttl = ttl::Ttl::new(&client, &mut sources);
    let slices = endpointslice::Slices::new(&client, &mut sources);
    let mirror = endpointslice::Mirror::new(&client, &mut sources);
    let endpoints = endpoints::EndpointsController::new(&client, &mut sources);
    let namespaces = namespace::Namespaces::new(&client, &mut sources);
    let accounts = service_account::ServiceAccounts::new(&client, &mut sources);
    let root_cas = root_ca::RootCas::new(&client, &config.ca_pem, &mut sources);
    let account_tokens =
        account_tokens::AccountTokens::new(&client, config.tokens, &config.ca_pem, &mut sources);
    let certificates = certificates::Certificates::new(&client, config.authority, &mut sources);
    let bootstrap_tokens = bootstrap_tokens::BootstrapTokens::new(&client, &mut sources);
    let cluster_roles = cluster_roles::ClusterRoles::new(&client, &mut sources);
    let service_cidrs = service_cidr::ServiceCidrs::new(&client, &mut sources);
    let policy_types = policy_types::PolicyTypes::new(&client, &mut sources);
    let nodes = recorder("node-controller");
    let ipam = ipam::Ipam::new(&client, &nodes, &ranges, &mut sources);
    let lifecycle = node_lifecycle::NodeLifecycle::new(&client, &nodes, NODE_MONITOR_GRACE, &mut sources);
    let eviction =
        taint_eviction::TaintEviction::new(&client, &recorder("taint-eviction-controller"), &mut sources);
    let pod_gc = pod_gc::PodGc::new(&client, &sources);
    let gc = gc::GarbageCollector::new(&client, &recorder("garbage-collector-controller"));

    let work = async {
        // Cancel-safe: the informers are the tracker's.
        if cancel.run_until_cancelled(sources.start(&tracker, &cancel)).await.is_none() {
            return;
        }
        tracing::info!("controllers are working");
        let tasks: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = vec![
            Box::pin(replica_sets.run(&cancel)),
            Box::pin(replication_controllers.run(&cancel)),
            Box::pin(deployments.run(&cancel)),
            Box::pin(jobs.run(&cancel)),
            Box::pin(daemon_sets.run(&cancel)),
            Box::pin(stateful_sets.run(&cancel)),
            Box::pin(cron_jobs.run(&cancel)),
            Box::pin(quotas.run(&cancel)),
            Box::pin(disruption.run(&cancel)),
            Box::pin(ttl.run(&cancel)),
            Box::pin(slices.run(&cancel)),
            Box::pin(mirror.run(&cancel)),
            Box::pin(endpoints.run(&cancel)),
            Box::pin(namespaces.run(&cancel)),
            Box::pin(accounts.run(&cancel)),
            Box::pin(root_cas.run(&cancel)),
            Box::pin(account_tokens.run(&cancel)),
            Box::pin(certificates.run(&cancel)),
            Box::pin(bootstrap_tokens.run(&cancel)),
            Box::pin(cluster_roles.run(&cancel)),
            Box::pin(service_cidrs.run(&cancel)),
            Box::pin(policy_types.run(&cancel)),
            Box::pin(ipam.run(&cancel)),
            Box::pin(lifecycle.run(&cancel)),
            Box::pin(eviction.run(&cancel)),
            Box::pin(pod_gc.run(&cancel)),
            Box::pin(gc.run(&cancel)),
        ];
        join_all(tasks).await;
    };
    work.await;
    tracker.close();
    tracker.wait().await;
}
