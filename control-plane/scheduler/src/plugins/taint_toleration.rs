//! Taints keep pods away that do not tolerate them; `PreferNoSchedule` only counts against a node.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::cluster::Cluster;
use crate::framework::{Check, Normalize, Plugin, Rate};
use crate::pod_info::PodInfo;

pub(crate) struct TaintToleration;

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let unset_or =
        |own: &Option<String>, value: &str| own.as_deref().is_none_or(|own| own.is_empty() || own == value);
    let value = taint.value.as_deref().unwrap_or_default();
    unset_or(&toleration.effect, &taint.effect)
        && unset_or(&toleration.key, &taint.key)
        && match toleration.operator.as_deref().unwrap_or("Equal") {
            "Exists" => true,
            "Equal" | "" => {
                toleration.key.as_deref().is_some_and(|key| !key.is_empty())
                    && toleration.value.as_deref().unwrap_or_default() == value
            }
            _ => false,
        }
}

fn tolerations(pod: &PodInfo) -> &[Toleration] {
    pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn check<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Check<'a>> {
        let tolerations = tolerations(pod);
        Some(Box::new(move |node| {
            let untolerated = node
                .taints()
                .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
                .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)));
            match untolerated {
                Some(taint) => {
                    let value = taint.value.as_deref().unwrap_or_default();
                    vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key).into()]
                }
                None => Vec::new(),
            }
        }))
    }

    fn rate<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Rate<'a>> {
        let tolerations = tolerations(pod);
        Some(Box::new(move |node| {
            let intolerable = node
                .taints()
                .filter(|taint| taint.effect == "PreferNoSchedule")
                .filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)));
            i64::try_from(intolerable.count()).unwrap_or(i64::MAX)
        }))
    }

    fn normalize(&self) -> Normalize {
        Normalize::Inverse
    }

    fn weight(&self) -> i64 {
        3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let taint =
            Taint { key: "k".into(), value: Some("v".into()), effect: "NoSchedule".into(), time_added: None };
        let toleration = |key: &str, operator: &str, value: &str, effect: &str| Toleration {
            key: Some(key.into()),
            operator: Some(operator.into()),
            value: Some(value.into()),
            effect: Some(effect.into()),
            toleration_seconds: None,
        };
        let cases = [
            (toleration("k", "Equal", "v", "NoSchedule"), true),
            (toleration("k", "", "v", ""), true),
            (toleration("k", "Equal", "w", "NoSchedule"), false),
            (toleration("k", "Exists", "", "NoExecute"), false),
            (toleration("k", "Exists", "", ""), true),
            (toleration("", "Exists", "", ""), true),
            (toleration("", "Equal", "v", ""), false),
            (toleration("other", "Exists", "", ""), false),
        ];
        for (toleration, want) in cases {
            assert_eq!(tolerates(&toleration, &taint), want, "{toleration:?}");
        }
    }
}
