//! Which admission plug-ins run.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use skep_admission::plugins::{self, Environment, Selection, pod_security};
use skep_admission::webhook::Metrics;
use skep_admission::{Chain, LateAccess, Reader};
use skep_apiserver::gates::Gates;
use skep_registry::ClusterReader;
use skep_webhook::Client;

/// What a control plane is told about admission.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Admission {
    /// Admission plug-ins to run besides those that run by default.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) enable_admission_plugins: Vec<String>,
    /// Admission plug-ins not to run although they do by default.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) disable_admission_plugins: Vec<String>,
    /// An `AdmissionConfiguration`: what single plug-ins are told.
    #[arg(long, value_name = "FILE")]
    pub(crate) admission_control_config_file: Option<PathBuf>,
}

impl Admission {
    /// Makes the chain when the registry is there.
    pub(crate) fn chain(
        &self,
        gates: Gates,
        access: LateAccess,
    ) -> Result<Box<dyn FnOnce(Arc<ClusterReader>) -> Chain + Send>> {
        let selection =
            Selection::new(self.enable_admission_plugins.clone(), self.disable_admission_plugins.clone())?;
        let pod_security = match &self.admission_control_config_file {
            Some(path) => pod_security::Config::from_file(path)?,
            None => pod_security::Config::default(),
        };
        Ok(Box::new(move |cluster| {
            let reader: Arc<dyn Reader> = cluster.clone();
            let given = gates.plugins(&reader);
            let environment = Environment {
                reader,
                ledger: cluster.clone(),
                client: Client::new(cluster),
                access: Arc::new(access),
                metrics: Metrics::default(),
                pod_security,
            };
            plugins::chain(&environment, &selection, given)
        }))
    }
}
