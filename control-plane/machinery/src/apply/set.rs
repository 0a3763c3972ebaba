//! Sets of field paths: who owns what. A tree whose nodes may be members, have children, or both.

use super::path::PathElement;
use super::types::Node;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A set of paths. No empty child is ever kept, so that equality is equality of sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    members: BTreeSet<PathElement>,
    children: BTreeMap<PathElement, Set>,
}

impl Set {
    /// The set of these paths.
    pub fn of<P: AsRef<[PathElement]>>(paths: impl IntoIterator<Item = P>) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(path.as_ref());
        }
        set
    }

    /// The set of one path of field names, `["metadata", "name"]`.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        Self::of(
            paths.iter().map(|path| path.iter().map(|name| PathElement::field(*name)).collect::<Vec<_>>()),
        )
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Adds a path; the empty path is no path.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => self.insert_member(last.clone()),
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub(super) fn insert_member(&mut self, element: PathElement) {
        self.members.insert(element);
    }

    pub(super) fn insert_child(&mut self, element: PathElement, child: Self) {
        if !child.is_empty() {
            let merged = match self.children.remove(&element) {
                Some(old) => old.union(&child),
                None => child,
            };
            self.children.insert(element, merged);
        }
    }

    /// Whether this path is a member.
    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|child| child.has(rest)),
        }
    }

    pub(super) fn has_member(&self, element: &PathElement) -> bool {
        self.members.contains(element)
    }

    pub(super) fn child(&self, element: &PathElement) -> Option<&Self> {
        self.children.get(element)
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            let slot = out.children.entry(element.clone()).or_default();
            *slot = slot.union(child);
        }
        out
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(
            |element| other.members.contains(element),
            |element, child| {
                other.children.get(element).map(|peer| child.intersection(peer)).unwrap_or_default()
            },
        )
    }

    /// What is in this one only. A path under a removed path stays.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(
            |element| !other.members.contains(element),
            |element, child| {
                other.children.get(element).map_or_else(|| child.clone(), |peer| child.difference(peer))
            },
        )
    }

    /// What is in this one only; what lies under a removed path goes too.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        self.combine(
            |element| !other.members.contains(element),
            |element, child| {
                if other.members.contains(element) {
                    return Self::default();
                }
                other
                    .children
                    .get(element)
                    .map_or_else(|| child.clone(), |peer| child.recursive_difference(peer))
            },
        )
    }

    fn combine(
        &self,
        keep: impl Fn(&PathElement) -> bool,
        descend: impl Fn(&PathElement, &Self) -> Self,
    ) -> Self {
        Self {
            members: self.members.iter().filter(|element| keep(element)).cloned().collect(),
            children: self
                .children
                .iter()
                .map(|(element, child)| (element.clone(), descend(element, child)))
                .filter(|(_, child)| !child.is_empty())
                .collect(),
        }
    }

    /// With every struct field on the way to a member a member too (they are not, by themselves).
    pub(super) fn with_named_fields(&self, node: Node<'_>) -> Self {
        let mut out = self.clone();
        for element in self.children.keys() {
            if matches!(element, PathElement::Field(name) if node.child(name).is_some_and(|(_, named)| named))
            {
                out.members.insert(element.clone());
            }
        }
        for (element, child) in &mut out.children {
            let inner = match element {
                PathElement::Field(name) => node.child(name).map_or(Node::Deduced, |(inner, _)| inner),
                PathElement::Key(_) | PathElement::Value(_) | PathElement::Index(_) => node.element(),
            };
            *child = child.with_named_fields(inner);
        }
        out
    }

    /// All paths, members before what lies below them.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut out = Vec::new();
        self.walk(&mut Vec::new(), &mut out);
        out
    }

    fn walk(&self, at: &mut Vec<PathElement>, out: &mut Vec<Vec<PathElement>>) {
        let elements: BTreeSet<&PathElement> = self.members.iter().chain(self.children.keys()).collect();
        for element in elements {
            at.push(element.clone());
            if self.members.contains(element) {
                out.push(at.clone());
            }
            if let Some(child) = self.children.get(element) {
                child.walk(at, out);
            }
            at.pop();
        }
    }

    /// Reads `FieldsV1`. `None`: not that format.
    pub fn from_fields_v1(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (key, below) in fields.as_object()? {
            if key == "." {
                continue;
            }
            let element = PathElement::parse(key)?;
            let below = below.as_object()?;
            if below.is_empty() || below.contains_key(".") {
                set.members.insert(element.clone());
            }
            if !below.is_empty() {
                let child = Self::from_fields_v1(&Value::Object(below.clone()))?;
                set.insert_child(element, child);
            }
        }
        Some(set)
    }

    /// Writes `FieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        let mut out = Map::new();
        for element in &self.members {
            out.insert(element.encode(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            let mut below = child.to_fields_v1();
            if let (true, Some(map)) = (self.members.contains(element), below.as_object_mut()) {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            out.insert(element.encode(), below);
        }
        Value::Object(out)
    }
}
