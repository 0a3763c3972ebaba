//! In which order groups and versions are told: upstream's table for the groups of this server, and what
//! custom resources get.

/// The order of a group-version: higher comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Priority {
    pub(super) group: i64,
    pub(super) version: i64,
}

/// What a version of a custom resource gets: behind everything that is built in.
pub(super) const CUSTOM: Priority = Priority { group: 1000, version: 100 };

/// Groups with the priority of the group.
const GROUPS: &[(&str, i64)] = &[
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("apiextensions.k8s.io", 16700),
    ("admissionregistration.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("internal.apiserver.k8s.io", 16000),
    ("resource.k8s.io", 15900),
    ("storagemigration.k8s.io", 15800),
];

/// Versions whose priority is not that of their stability alone.
const VERSIONS: &[(&str, &str, i64)] =
    &[("", "v1", 1), ("autoscaling", "v2", 30), ("flowcontrol.apiserver.k8s.io", "v1", 21)];

/// The priority of a built-in group-version.
pub(super) fn built_in(group: &str, version: &str) -> Priority {
    let known = GROUPS.iter().find(|(name, _)| *name == group);
    let special = VERSIONS.iter().find(|(name, number, _)| (*name, *number) == (group, version));
    let by_stability = if version.contains("alpha") {
        9
    } else if version.contains("beta") {
        12
    } else {
        15
    };
    Priority {
        group: known.map_or(CUSTOM.group, |(_, priority)| *priority),
        version: special.map_or(by_stability, |(_, _, priority)| *priority),
    }
}
