//! Requests and limits in the kernel's terms.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::qos::{Qos, amount, class};

/// The period over which CPU quota is counted, in microseconds.
pub const CPU_PERIOD: i64 = 100_000;
/// The kernel refuses a smaller quota.
const MIN_QUOTA: i64 = 1_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// What a container may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight.
    pub cpu_shares: i64,
    /// Microseconds in [`CPU_PERIOD`].
    pub cpu_quota: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
    /// Who dies first when memory runs out.
    pub oom_score_adj: i32,
}

/// Weight for thousandths of a CPU.
#[must_use]
pub fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Quota for thousandths of a CPU.
#[must_use]
pub fn quota(milli_cpu: i64) -> i64 {
    (milli_cpu.saturating_mul(CPU_PERIOD) / 1000).max(MIN_QUOTA)
}

/// A container's limits; `capacity` is the node's memory in bytes.
#[must_use]
pub fn limits(pod: &Pod, container: &Container, capacity: i64) -> Limits {
    let cpu_limit = amount(container, true, "cpu").map(|q| q.milli_value());
    let cpu_request = amount(container, false, "cpu").map(|q| q.milli_value()).or(cpu_limit);
    let memory = amount(container, true, "memory").map(|q| q.value());
    Limits {
        cpu_shares: shares(cpu_request.unwrap_or(0)),
        cpu_quota: cpu_limit.map(quota),
        memory,
        oom_score_adj: oom_score_adj(pod, container, capacity),
    }
}

fn oom_score_adj(pod: &Pod, container: &Container, capacity: i64) -> i32 {
    let critical = pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= 2_000_000_000);
    match class(pod) {
        _ if critical => -997,
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            // The more of the node it asked for, the longer it lives; never as long as Guaranteed.
            let request = amount(container, false, "memory").or(amount(container, true, "memory"));
            let request = request.map_or(0, |q| q.value());
            let share = request.saturating_mul(1000) / capacity.max(1);
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_become_kernel_values() {
        assert_eq!([shares(0), shares(100), shares(1000), shares(10_000_000)], [2, 102, 1024, 262_144]);
        assert_eq!([quota(1), quota(500), quota(2000)], [1000, 50_000, 200_000]);
        let resources =
            json!({ "requests": { "memory": "256Mi" }, "limits": { "cpu": "250m", "memory": "512Mi" } });
        let pod: Pod = serde_json::from_value(
            json!({ "spec": { "containers": [{ "name": "c", "resources": resources }] } }),
        )
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(
            limits(&pod, container, 1 << 30),
            Limits { cpu_shares: 256, cpu_quota: Some(25_000), memory: Some(512 << 20), oom_score_adj: 750 }
        );
    }
}
