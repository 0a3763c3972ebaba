//! Amounts of resources, as the scheduler counts them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use skep_api::quantity::Quantity;

/// What a container is assumed to need for scoring when it says nothing (upstream's figures).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// CPU in thousandths, memory and storage in bytes, everything else in its own unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral_storage: i64,
    pub(crate) pods: i64,
    pub(crate) other: BTreeMap<String, i64>,
}

impl Resources {
    /// From a resource list; what is not a quantity counts as nothing (validation has refused it).
    pub(crate) fn from_list(list: Option<&BTreeMap<String, Text>>) -> Self {
        let mut resources = Self::default();
        for (name, text) in list.into_iter().flatten() {
            let Ok(quantity) = text.0.parse::<Quantity>() else { continue };
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => resources.pods = quantity.value(),
                other => {
                    resources.other.insert(other.to_owned(), quantity.value());
                }
            }
        }
        resources
    }

    /// Applies `f` to each pair of amounts.
    fn combine(&mut self, with: &Self, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, with.milli_cpu);
        self.memory = f(self.memory, with.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, with.ephemeral_storage);
        self.pods = f(self.pods, with.pods);
        for (name, amount) in &with.other {
            let own = self.other.entry(name.clone()).or_default();
            *own = f(*own, *amount);
        }
    }

    pub(crate) fn add(&mut self, with: &Self) {
        self.combine(with, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, with: &Self) {
        self.combine(with, i64::saturating_sub);
    }

    /// Is each of these amounts no more than the other's?
    pub(crate) fn is_within(&self, all: &Self) -> bool {
        self.milli_cpu <= all.milli_cpu
            && self.memory <= all.memory
            && self.ephemeral_storage <= all.ephemeral_storage
            && self.other.iter().all(|(name, amount)| amount <= all.other.get(name).unwrap_or(&0))
    }

    fn raise_to(&mut self, with: &Self) {
        self.combine(with, i64::max);
    }
}

/// What a pod needs at once: all containers and sidecars together, or the largest step of its
/// initialisation, whichever is more; and the overhead. (KEP-753 for sidecars.)
pub(crate) fn of_pod(spec: &PodSpec) -> Resources {
    needs(spec, |container| {
        Resources::from_list(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    })
}

/// The same with defaults for containers that request nothing: for scores only.
pub(crate) fn of_pod_for_scores(spec: &PodSpec) -> Resources {
    needs(spec, |container| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut resources = Resources::from_list(requests);
        if requests.is_none_or(|list| !list.contains_key("cpu")) {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if requests.is_none_or(|list| !list.contains_key("memory")) {
            resources.memory = DEFAULT_MEMORY;
        }
        resources
    })
}

fn needs(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut steady = Resources::default();
    for container in &spec.containers {
        steady.add(&of(container));
    }
    let (mut sidecars, mut largest_step) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            largest_step.raise_to(&sidecars);
        } else {
            let mut step = sidecars.clone();
            step.add(&own);
            largest_step.raise_to(&step);
        }
    }
    steady.add(&sidecars);
    steady.raise_to(&largest_step);
    steady.add(&Resources::from_list(spec.overhead.as_ref()));
    steady.pods = 1;
    steady
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).expect("a pod spec")
    }

    fn container(cpu: &str, sidecar: bool) -> serde_json::Value {
        let mut container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        if sidecar {
            container["restartPolicy"] = "Always".into();
        }
        container
    }

    #[test]
    fn init_containers_count_by_their_largest_step() {
        let cases = [
            (vec![], vec!["500m", "1"], 1500),
            (vec![("2", false)], vec!["500m"], 2000),
            (vec![("1", true)], vec!["500m"], 1500),
            (vec![("1", true), ("2", false)], vec!["500m"], 3000),
            (vec![("2", false), ("1", true)], vec!["500m"], 2000),
        ];
        for (init, main, milli_cpu) in cases {
            let init: Vec<_> = init.into_iter().map(|(cpu, sidecar)| container(cpu, sidecar)).collect();
            let main: Vec<_> = main.into_iter().map(|cpu| container(cpu, false)).collect();
            let got = of_pod(&spec(json!({"initContainers": init, "containers": main})));
            assert_eq!(got.milli_cpu, milli_cpu);
        }
    }

    #[test]
    fn silence_counts_for_scores_only() {
        let spec = spec(json!({"containers": [{"name": "c"}]}));
        assert_eq!(of_pod(&spec).milli_cpu, 0);
        assert_eq!(of_pod_for_scores(&spec).milli_cpu, DEFAULT_MILLI_CPU);
    }
}
