//! The built-in plug-ins, one file each, and the order they run in.

use std::sync::Arc;

use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_webhook::Client;

use crate::policy::{MutatingAdmissionPolicy, ValidatingAdmissionPolicy};
use crate::webhook::{Metrics, MutatingAdmissionWebhook, ValidatingAdmissionWebhook};
use crate::{Access, Attributes, Chain, Plugin, Reader};

pub mod always;
pub mod always_pull_images;
pub mod anti_affinity;
pub mod claim_resize;
pub mod default_class;
pub mod default_toleration_seconds;
pub mod deny_service_external_ips;
pub mod extended_resource_toleration;
pub mod limit_ranger;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod owner_references;
pub mod pod_security;
pub mod priority;
pub mod resource_quota;
pub mod runtime_class;
pub mod service_account;
pub mod taint_nodes;
pub mod topology_labels;

use always_pull_images::AlwaysPullImages;
use anti_affinity::LimitPodHardAntiAffinityTopology;
use claim_resize::PersistentVolumeClaimResize;
use default_class::DefaultClass;
use default_toleration_seconds::DefaultTolerationSeconds;
use deny_service_external_ips::DenyServiceExternalIPs;
use extended_resource_toleration::ExtendedResourceToleration;
use limit_ranger::LimitRanger;
use namespace_lifecycle::NamespaceLifecycle;
use node_restriction::NodeRestriction;
use owner_references::OwnerReferencesPermissionEnforcement;
use pod_security::PodSecurity;
use priority::Priority;
use resource_quota::ResourceQuota;
use runtime_class::RuntimeClass;
use service_account::ServiceAccount;
use taint_nodes::TaintNodesByCondition;
use topology_labels::PodTopologyLabels;

/// What plug-ins are made of.
#[derive(Clone)]
pub struct Environment {
    /// Reads the cluster.
    pub reader: Arc<dyn Reader>,
    /// Calls webhooks.
    pub client: Client,
    /// Asks the authorizers.
    pub access: Arc<dyn Access>,
    /// Charges quotas.
    pub ledger: Arc<dyn resource_quota::Ledger>,
    /// Counts calls of webhooks.
    pub metrics: Metrics,
    /// What PodSecurity is told.
    pub pod_security: pod_security::Config,
}

/// Where a plug-in of the table comes from.
enum Source {
    /// Made here; runs unless it is disabled.
    On(fn(&Environment) -> Box<dyn Plugin>),
    /// Made here; runs only when it is enabled.
    Off(fn(&Environment) -> Box<dyn Plugin>),
    /// Given by the caller; this is its place.
    Given,
    /// Part of another plug-in of the table: the name is known, nothing runs for it.
    Part,
}

type Entry = (&'static str, Source);

/// Upstream's order. It lets later ones see what earlier ones set; webhooks come after everything built
/// in, and quota after them, so that nothing is counted that is then refused.
static ORDER: &[Entry] = &[
    ("AlwaysAdmit", Source::Off(|_| Box::new(always::AlwaysAdmit))),
    ("NamespaceLifecycle", Source::On(|env| Box::new(NamespaceLifecycle::new(env.reader.clone())))),
    ("LimitPodHardAntiAffinityTopology", Source::Off(|_| Box::new(LimitPodHardAntiAffinityTopology))),
    ("LimitRanger", Source::On(|env| Box::new(LimitRanger::new(env.reader.clone())))),
    ("ServiceAccount", Source::On(|env| Box::new(ServiceAccount::new(env.reader.clone())))),
    (
        "NodeRestriction",
        Source::On(|env| Box::new(NodeRestriction::new(env.reader.clone(), env.access.clone()))),
    ),
    ("TaintNodesByCondition", Source::On(|_| Box::new(TaintNodesByCondition))),
    ("AlwaysPullImages", Source::Off(|_| Box::new(AlwaysPullImages))),
    (
        "PodSecurity",
        Source::On(|env| Box::new(PodSecurity::new(env.reader.clone(), env.pod_security.clone()))),
    ),
    ("Priority", Source::On(|env| Box::new(Priority::new(env.reader.clone())))),
    ("DefaultTolerationSeconds", Source::On(|_| Box::new(DefaultTolerationSeconds))),
    ("ExtendedResourceToleration", Source::Off(|_| Box::new(ExtendedResourceToleration))),
    ("DefaultStorageClass", Source::On(|env| Box::new(DefaultClass::storage(env.reader.clone())))),
    (
        "OwnerReferencesPermissionEnforcement",
        Source::Off(|env| {
            Box::new(OwnerReferencesPermissionEnforcement::new(env.reader.clone(), env.access.clone()))
        }),
    ),
    (
        "PersistentVolumeClaimResize",
        Source::On(|env| Box::new(PersistentVolumeClaimResize::new(env.reader.clone()))),
    ),
    ("RuntimeClass", Source::On(|env| Box::new(RuntimeClass::new(env.reader.clone())))),
    ("CertificateApproval", Source::Given),
    ("CertificateSigning", Source::Part),
    ("DefaultIngressClass", Source::On(|env| Box::new(DefaultClass::ingress(env.reader.clone())))),
    ("DenyServiceExternalIPs", Source::Off(|_| Box::new(DenyServiceExternalIPs))),
    ("PodTopologyLabels", Source::On(|env| Box::new(PodTopologyLabels::new(env.reader.clone())))),
    (
        "MutatingAdmissionPolicy",
        Source::On(|env| Box::new(MutatingAdmissionPolicy::new(env.reader.clone(), env.access.clone()))),
    ),
    (
        "MutatingAdmissionWebhook",
        Source::On(|env| {
            Box::new(MutatingAdmissionWebhook::new(
                env.reader.clone(),
                env.access.clone(),
                env.client.clone(),
                env.metrics.clone(),
            ))
        }),
    ),
    (
        "ValidatingAdmissionPolicy",
        Source::On(|env| Box::new(ValidatingAdmissionPolicy::new(env.reader.clone(), env.access.clone()))),
    ),
    (
        "ValidatingAdmissionWebhook",
        Source::On(|env| {
            Box::new(ValidatingAdmissionWebhook::new(
                env.reader.clone(),
                env.access.clone(),
                env.client.clone(),
                env.metrics.clone(),
            ))
        }),
    ),
    ("ResourceQuota", Source::On(|env| Box::new(ResourceQuota::new(env.reader.clone(), env.ledger.clone())))),
    ("AlwaysDeny", Source::Off(|_| Box::new(always::AlwaysDeny))),
];

/// Which plug-ins run besides those that do by default, and which of these do not.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    enabled: Vec<String>,
    disabled: Vec<String>,
}

impl Selection {
    /// What `--enable-admission-plugins` and `--disable-admission-plugins` say.
    pub fn new(enabled: Vec<String>, disabled: Vec<String>) -> Result<Self, SelectionError> {
        for name in enabled.iter().chain(&disabled) {
            if !ORDER.iter().any(|entry| entry.0 == name) {
                return Err(SelectionError::Unknown(name.clone()));
            }
        }
        if let Some(name) = enabled.iter().find(|name| disabled.contains(name)) {
            return Err(SelectionError::Both(name.clone()));
        }
        Ok(Self { enabled, disabled })
    }

    fn enables(&self, name: &str) -> bool {
        self.enabled.iter().any(|enabled| enabled == name)
    }

    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|disabled| disabled == name)
    }
}

/// A selection that can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// No such plug-in.
    #[error("there is no admission plug-in {0:?}; there are {known}", known = names().join(", "))]
    Unknown(String),
    /// In both lists.
    #[error("the admission plug-in {0:?} is both enabled and disabled")]
    Both(String),
}

/// Every plug-in there is, in order.
pub fn names() -> Vec<&'static str> {
    ORDER.iter().map(|entry| entry.0).collect()
}

/// The chain of a cluster. `given` are plug-ins made elsewhere: each gets its place in the order, and
/// those the table does not know come last and can't be disabled.
pub fn chain(environment: &Environment, selection: &Selection, given: Vec<Box<dyn Plugin>>) -> Chain {
    let mut given: Vec<Option<Box<dyn Plugin>>> = given.into_iter().map(Some).collect();
    let mut take = |name: &str| {
        let of_name =
            |slot: &&mut Option<Box<dyn Plugin>>| slot.as_ref().is_some_and(|plugin| plugin.name() == name);
        given.iter_mut().find(of_name).and_then(Option::take)
    };
    let mut plugins = Vec::new();
    for (name, source) in ORDER {
        let plugin = match source {
            Source::On(make) => Some(make(environment)),
            Source::Off(make) => selection.enables(name).then(|| make(environment)),
            Source::Given => take(name),
            Source::Part => None,
        };
        plugins.extend(plugin.filter(|_| !selection.disables(name)));
    }
    plugins.extend(given.into_iter().flatten());
    Chain::new(plugins)
}

fn core(resource: &str) -> GroupVersionResource {
    GroupVersionResource::new("", "v1", resource)
}

pub(crate) fn forbidden(attributes: &Attributes, why: impl std::fmt::Display) -> ApiError {
    // A generated name is not known yet.
    let object = attributes.object.as_ref();
    let name = match attributes.name.as_str() {
        "" => object.map_or("", |object| object.name()),
        name => name,
    };
    let name = if name.is_empty() { object.map_or("", |object| object.generate_name()) } else { name };
    ApiError::forbidden(&attributes.gvr, name, why)
}

/// Several complaints as one, the way the API joins them.
fn join(complaints: &[String]) -> String {
    match complaints {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
