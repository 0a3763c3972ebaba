//! The informers controllers share. Controllers hook their queues in while they are built; then all
//! informers start, and no controller works before all of them are in sync.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota,
    Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use skep_client::{Client, Informer, Kind, ListParams, Stored};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::owners::controller_of;

/// Index key of the objects that an object controls.
pub(crate) fn by_owner(uid: &str) -> String {
    crate::pods::by_owner(uid)
}

fn owned<K: Stored>(object: &K) -> Vec<String> {
    let meta = object.meta();
    match controller_of(meta) {
        Some(owner) => vec![by_owner(&owner.uid)],
        None => vec![crate::pods::by_orphanage(meta.namespace.as_deref().unwrap_or_default())],
    }
}

/// The service a slice belongs to, as an index key.
pub(crate) fn by_service(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

macro_rules! sources {
    ($($field:ident: $kind:ty,)*) => {
        /// The informers before their start.
        pub(crate) struct Sources {
            $(pub(crate) $field: Informer<$kind>,)*
        }

        impl Sources {
            /// Starts all and waits until all are in sync.
            pub(crate) async fn start(self, tracker: &TaskTracker, cancel: &CancellationToken) {
                $(let $field = self.$field.spawn(tracker, cancel.clone());)*
                $($field.synced().await;)*
            }
        }
    };
}

sources! {
    pods: Pod,
    nodes: Node,
    namespaces: Namespace,
    services: Service,
    endpoints: Endpoints,
    slices: EndpointSlice,
    service_accounts: ServiceAccount,
    root_cas: ConfigMap,
    leases: Lease,
    replica_sets: ReplicaSet,
    replication_controllers: ReplicationController,
    deployments: Deployment,
    daemon_sets: DaemonSet,
    stateful_sets: StatefulSet,
    revisions: ControllerRevision,
    claims: PersistentVolumeClaim,
    jobs: Job,
    cron_jobs: CronJob,
    budgets: PodDisruptionBudget,
    quotas: ResourceQuota,
    cluster_roles: ClusterRole,
    certificate_requests: CertificateSigningRequest,
    policies: ValidatingAdmissionPolicy,
    account_tokens: Secret,
    bootstrap_tokens: Secret,
    cluster_info: ConfigMap,
    service_ranges: ServiceCIDR,
    service_addresses: IPAddress,
}

impl Sources {
    pub(crate) fn new(client: &Client) -> Self {
        fn all<K: Kind>(client: &Client) -> Informer<K> {
            Informer::new(client.all::<K>(), ListParams::default())
        }
        let of_type = |kind: &str| ListParams::fields(format!("type={kind}"));
        let root_ca = ListParams::fields(format!("metadata.name={}", crate::root_ca::NAME));
        Self {
            pods: all(client).index_by(crate::pods::index_keys),
            nodes: all(client),
            namespaces: all(client),
            services: all(client),
            endpoints: all(client),
            slices: all(client).index_by(|slice: &EndpointSlice| {
                let meta = &slice.metadata;
                let service = meta.labels.as_ref().and_then(|l| l.get(crate::endpointslice::SERVICE_NAME));
                let namespace = meta.namespace.as_deref().unwrap_or_default();
                service.map(|name| by_service(namespace, name)).into_iter().collect()
            }),
            service_accounts: all(client),
            root_cas: Informer::new(client.all(), root_ca),
            leases: Informer::new(client.namespaced(crate::node_lifecycle::LEASES), ListParams::default()),
            replica_sets: all(client).index_by(owned),
            replication_controllers: all(client),
            deployments: all(client),
            daemon_sets: all(client),
            stateful_sets: all(client),
            revisions: all(client).index_by(owned),
            claims: all(client),
            jobs: all(client).index_by(owned),
            cron_jobs: all(client),
            budgets: all(client),
            quotas: all(client),
            cluster_roles: all(client),
            certificate_requests: all(client),
            service_ranges: all(client),
            service_addresses: all(client),
            policies: all(client),
            account_tokens: Informer::new(client.all(), of_type(crate::account_tokens::TYPE)),
            bootstrap_tokens: Informer::new(
                client.namespaced("kube-system"),
                of_type(skep_auth::bootstrap_token::SECRET_TYPE),
            ),
            cluster_info: Informer::new(
                client.namespaced(crate::bootstrap_tokens::NAMESPACE),
                ListParams::fields(format!("metadata.name={}", crate::bootstrap_tokens::NAME)),
            ),
        }
    }
}
