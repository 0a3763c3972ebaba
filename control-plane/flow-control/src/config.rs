//! FlowSchema and PriorityLevelConfiguration objects, read into plain types. An object that validation
//! would not let in is read as `None` and counts as absent.

use std::sync::Arc;

use serde_json::Value;
use skep_api::object::ObjectExt;

use crate::shuffle;

/// The level that is never limited.
pub const EXEMPT: &str = "exempt";
/// The level and schema of what nothing else matches.
pub const CATCH_ALL: &str = "catch-all";

/// How a level queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queuing {
    /// No limit.
    Exempt,
    /// What finds no seat is refused.
    Reject,
    /// What finds no seat waits.
    Queue {
        /// How many queues.
        queues: u32,
        /// How many of them a flow may use.
        hand: u32,
        /// How many may wait in one.
        length: u32,
    },
}

/// A priority level.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Its name.
    pub name: String,
    /// Its uid, empty when it is imagined.
    pub uid: String,
    /// How it queues.
    pub queuing: Queuing,
    /// Its share of the server's seats.
    pub shares: f64,
    /// How much of its seats others may borrow, in percent.
    pub lendable: f64,
    /// How much it may borrow, in percent of its own; none: all there is.
    pub borrowing: Option<f64>,
}

fn number(object: &Value, path: &[&str]) -> Option<u32> {
    object.int(path).and_then(|n| u32::try_from(n).ok())
}

impl Level {
    /// Reads a PriorityLevelConfiguration.
    pub fn from_object(object: &Value) -> Option<Self> {
        let name = object.name().to_owned();
        let exempt = object.text(&["spec", "type"]) == "Exempt";
        if exempt != (name == EXEMPT) {
            return None;
        }
        let section = if exempt { "exempt" } else { "limited" };
        object.at(&["spec", section])?;
        let queuing = if exempt {
            Queuing::Exempt
        } else {
            let response = object.at(&["spec", "limited", "limitResponse"])?;
            match response.text(&["type"]) {
                "Reject" => Queuing::Reject,
                "Queue" => {
                    let field = |field| number(response, &["queuing", field]).filter(|n| *n > 0);
                    let (queues, hand) = (field("queues")?, field("handSize")?);
                    if hand > queues || shuffle::bits_needed(queues, hand) > shuffle::MAX_BITS {
                        return None;
                    }
                    Queuing::Queue { queues, hand, length: field("queueLengthLimit")? }
                }
                _ => return None,
            }
        };
        let share = |field| number(object, &["spec", section, field]).map(f64::from);
        Some(Self {
            name,
            uid: object.uid().to_owned(),
            queuing,
            shares: share("nominalConcurrencyShares").unwrap_or(if exempt { 0.0 } else { 30.0 }),
            lendable: share("lendablePercent").unwrap_or(0.0),
            borrowing: share("borrowingLimitPercent"),
        })
    }
}

/// What tells the flows of a schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinguisher {
    /// All are one flow.
    None,
    /// Each user is one.
    User,
    /// Each namespace is one.
    Namespace,
}

/// Who a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user; `*` is every one.
    User(String),
    /// A group; `*` is every one.
    Group(String),
    /// A service account; the name `*` is every one of the namespace.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A rule over resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// Groups, or `*`.
    pub groups: Vec<String>,
    /// `resource` and `resource/subresource`, or `*`.
    pub resources: Vec<String>,
    /// Does it cover what has no namespace?
    pub cluster_scope: bool,
    /// Namespaces, or `*`.
    pub namespaces: Vec<String>,
}

/// A rule over other paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// Paths, prefixes that end with `*`, or `*`.
    pub paths: Vec<String>,
}

/// Subjects and what they do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// One of these.
    pub subjects: Vec<Subject>,
    /// Asks for one of these.
    pub resources: Vec<ResourceRule>,
    /// Or for one of these.
    pub paths: Vec<PathRule>,
}

/// A flow schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Its name.
    pub name: String,
    /// Its uid, empty when it is imagined.
    pub uid: String,
    /// The level its requests go to.
    pub level: String,
    /// Smaller is tried first.
    pub precedence: i64,
    /// What tells its flows apart.
    pub distinguisher: Distinguisher,
    /// One of these must match.
    pub rules: Vec<Rule>,
}

fn strings(object: &Value, field: &str) -> Vec<String> {
    object.items(&[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn subject(object: &Value) -> Option<Subject> {
    let text = |path: &[&str]| object.text(path).to_owned();
    Some(match object.text(&["kind"]) {
        "User" => Subject::User(text(&["user", "name"])),
        "Group" => Subject::Group(text(&["group", "name"])),
        "ServiceAccount" => Subject::ServiceAccount {
            namespace: text(&["serviceAccount", "namespace"]),
            name: text(&["serviceAccount", "name"]),
        },
        _ => return None,
    })
}

impl Schema {
    /// Reads a FlowSchema.
    pub fn from_object(object: &Value) -> Option<Arc<Self>> {
        let rule = |rule: &Value| Rule {
            subjects: rule.items(&["subjects"]).iter().filter_map(subject).collect(),
            resources: rule
                .items(&["resourceRules"])
                .iter()
                .map(|rule| ResourceRule {
                    verbs: strings(rule, "verbs"),
                    groups: strings(rule, "apiGroups"),
                    resources: strings(rule, "resources"),
                    cluster_scope: rule.flag(&["clusterScope"]),
                    namespaces: strings(rule, "namespaces"),
                })
                .collect(),
            paths: rule
                .items(&["nonResourceRules"])
                .iter()
                .map(|rule| PathRule {
                    verbs: strings(rule, "verbs"),
                    paths: strings(rule, "nonResourceURLs"),
                })
                .collect(),
        };
        let level = object.text(&["spec", "priorityLevelConfiguration", "name"]);
        if level.is_empty() {
            return None;
        }
        Some(Arc::new(Self {
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            level: level.to_owned(),
            precedence: object.int(&["spec", "matchingPrecedence"]).unwrap_or(1000),
            distinguisher: match object.text(&["spec", "distinguisherMethod", "type"]) {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: object.items(&["spec", "rules"]).iter().map(rule).collect(),
        }))
    }
}
