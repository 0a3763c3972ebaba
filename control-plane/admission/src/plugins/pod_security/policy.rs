//! Levels, versions, and what a namespace's labels make of them. Pure.

use std::fmt;

use serde_json::{Map, Value};

/// How much is forbidden; the order is that of strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// Of which release of Kubernetes the standard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Latest,
    /// v1.N
    Minor(u32),
}

impl Version {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let digits = text.strip_prefix("v1.")?;
        let canonical = digits == "0" || !digits.starts_with('0');
        let numeric = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| canonical && numeric).map(Self::Minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// A level of a version: `restricted:v1.30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl Standard {
    pub(super) const PRIVILEGED: Self = Self { level: Level::Privileged, version: Version::Latest };

    /// Do the two mean the same?
    fn is_like(self, other: Self) -> bool {
        self == other || self.level == Level::Privileged && other.level == Level::Privileged
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.as_str(), self.version)
    }
}

/// A label that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) why: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "metadata.labels[{}]: Invalid value: {:?}: {}", self.label, self.value, self.why)
    }
}

/// What applies in a namespace, by mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

const LEVELS: &str = "must be one of privileged, baseline, restricted";
const VERSIONS: &str = "must be \"latest\" or \"v1.x\"";

macro_rules! label {
    ($mode:literal) => {
        (
            concat!("pod-security.kubernetes.io/", $mode),
            concat!("pod-security.kubernetes.io/", $mode, "-version"),
        )
    };
}

const ENFORCE: (&str, &str) = label!("enforce");
const AUDIT: (&str, &str) = label!("audit");
const WARN: (&str, &str) = label!("warn");

type Labels<'a> = Option<&'a Map<String, Value>>;

fn text<'a>(labels: Labels<'a>, label: &str) -> Option<&'a str> {
    labels?.get(label)?.as_str()
}

impl Policy {
    /// The policy of these labels. One that can't be read counts as the strictest to enforce and the
    /// laxest to warn and audit, and is among the problems.
    pub(super) fn of_labels(labels: Labels<'_>, defaults: &Self) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut read = |(level, version): (&'static str, &'static str), default: Standard, bad: Level| {
            let mut standard = default;
            if let Some(value) = text(labels, level) {
                standard.level = Level::parse(value).unwrap_or_else(|| {
                    problems.push(Problem { label: level, value: value.to_owned(), why: LEVELS });
                    bad
                });
            }
            if let Some(value) = text(labels, version) {
                standard.version = Version::parse(value).unwrap_or_else(|| {
                    problems.push(Problem { label: version, value: value.to_owned(), why: VERSIONS });
                    Version::Latest
                });
            }
            standard
        };
        let enforce = read(ENFORCE, defaults.enforce, Level::Restricted);
        let audit = read(AUDIT, defaults.audit, Level::Privileged);
        let mut warn = read(WARN, defaults.warn, Level::Privileged);
        // Who enforces more than is warned of by default wants to be warned of it as well.
        let stated = text(labels, ENFORCE.0).and_then(Level::parse).is_some();
        if stated && text(labels, WARN.0).is_none() && enforce.level > warn.level {
            warn.level = enforce.level;
            if text(labels, WARN.1).is_none() {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, audit, warn }, problems)
    }

    /// What an exempt namespace's labels say in vain, if anything.
    pub(super) fn ignored(&self, defaults: &Self, labels: Labels<'_>) -> Option<String> {
        let modes = [
            ("enforce", ENFORCE, self.enforce, defaults.enforce),
            ("audit", AUDIT, self.audit, defaults.audit),
            ("warn", WARN, self.warn, defaults.warn),
        ];
        if modes.iter().all(|(.., own, _)| own.level == Level::Privileged)
            || modes.iter().all(|(.., own, default)| own.is_like(*default))
        {
            return None;
        }
        let said = |names: (&str, &str)| text(labels, names.0).or_else(|| text(labels, names.1)).is_some();
        let texts: Vec<String> = modes
            .iter()
            .filter(|(_, names, own, _)| own.level != Level::Privileged && said(*names))
            .map(|(mode, _, own, _)| format!("{mode}={own}"))
            .collect();
        Some(texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DEFAULTS: Policy =
        Policy { enforce: Standard::PRIVILEGED, audit: Standard::PRIVILEGED, warn: Standard::PRIVILEGED };

    fn of(labels: &Value) -> (String, usize) {
        let labels = labels.as_object().map(|labels| {
            labels
                .iter()
                .map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), value.clone()))
                .collect::<Map<String, Value>>()
        });
        let (policy, problems) = Policy::of_labels(labels.as_ref(), &DEFAULTS);
        (format!("{} {} {}", policy.enforce, policy.audit, policy.warn), problems.len())
    }

    #[test]
    fn labels_make_a_policy() {
        let cases = [
            (json!({}), "privileged:latest privileged:latest privileged:latest", 0),
            (json!({"enforce": "baseline"}), "baseline:latest privileged:latest baseline:latest", 0),
            (
                json!({"enforce": "restricted", "enforce-version": "v1.25"}),
                "restricted:v1.25 privileged:latest restricted:v1.25",
                0,
            ),
            (
                json!({"enforce": "restricted", "warn": "baseline", "audit": "restricted", "audit-version": "v1.9"}),
                "restricted:latest restricted:v1.9 baseline:latest",
                0,
            ),
            (
                json!({"enforce": "strict", "audit": "x", "warn": "y"}),
                "restricted:latest privileged:latest privileged:latest",
                3,
            ),
            (
                json!({"enforce-version": "v1.01", "warn-version": "1.2"}),
                "privileged:latest privileged:latest privileged:latest",
                2,
            ),
        ];
        for (labels, policy, problems) in cases {
            assert_eq!(of(&labels), (policy.to_owned(), problems), "{labels}");
        }
    }

    #[test]
    fn problems_read_as_field_errors() {
        let labels = json!({"pod-security.kubernetes.io/enforce": "strict"});
        let (_, problems) = Policy::of_labels(labels.as_object(), &DEFAULTS);
        assert_eq!(
            problems[0].to_string(),
            r#"metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted"#
        );
    }
}
