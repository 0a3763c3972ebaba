//! Label and field selectors: parsed from query strings or from objects, matched against metadata.

mod field;

use std::fmt;

use serde_json::{Map, Value};

pub use field::{FieldRequirement, FieldSelector};

use crate::names;
use crate::object::ObjectExt;

/// No selector is longer: limits what one request can make the server parse.
const MAX_LENGTH: usize = 64 * 1024;

/// Text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

/// What a label must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One of these values.
    In(Vec<String>),
    /// None of these values; absent is fine.
    NotIn(Vec<String>),
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
    /// An integer greater than.
    GreaterThan(i64),
    /// An integer less than.
    LessThan(i64),
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The condition.
    pub operator: Operator,
}

impl Requirement {
    /// Whether a label with this value (or none) satisfies the condition.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
            Operator::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| x != v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => number().is_some_and(|n| n > *bound),
            Operator::LessThan(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

/// Conditions on labels, all of which must hold. The empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing.
    pub fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// Whether every object is selected.
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The conditions.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// `a=b,c!=d,e in (f,g),h,!i`
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_LENGTH {
            return Err(SelectorError(format!("selector is longer than {MAX_LENGTH} bytes")));
        }
        let mut parser = Parser { tokens: tokens(text), position: 0 };
        let mut requirements =
            parser.requirements().map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// From a map of equalities (selectors of Services and ReplicationControllers). An empty map selects
    /// everything: callers for whom it means "nothing" check first.
    pub fn from_map(map: &Map<String, Value>) -> Self {
        let requirement = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::In(vec![value.as_str().unwrap_or_default().to_owned()]),
        };
        Self { requirements: map.iter().map(requirement).collect(), nothing: false }
    }

    /// From `metav1.LabelSelector`: absent selects nothing, empty selects everything.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else { return Ok(Self::nothing()) };
        let mut requirements = match selector.map(&["matchLabels"]) {
            Some(map) => Self::from_map(map).requirements,
            None => Vec::new(),
        };
        for item in selector.items(&["matchExpressions"]) {
            let strings = item.items(&["values"]).iter().filter_map(Value::as_str);
            let values: Vec<String> = strings.map(str::to_owned).collect();
            let operator = match item.text(&["operator"]) {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("{other:?} is not a valid label selector operator")));
                }
            };
            requirements.push(Requirement { key: item.text(&["key"]).to_owned(), operator });
        }
        Ok(Self { requirements, nothing: false })
    }

    /// From the typed `metav1.LabelSelector`.
    pub fn from_typed(
        selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    ) -> Result<Self, SelectorError> {
        let value =
            selector.map(serde_json::to_value).transpose().map_err(|e| SelectorError(e.to_string()))?;
        Self::from_object(value.as_ref())
    }

    /// Whether labels given by a lookup satisfy every condition.
    pub fn matches_with<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(lookup(&r.key)))
    }

    /// Whether these labels satisfy every condition.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    /// Whether typed labels satisfy every condition.
    pub fn matches_map(&self, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
        self.matches_with(|key| labels?.get(key).map(String::as_str))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let key = &requirement.key;
            match &requirement.operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Operator::In(values) => write!(f, "{key} in ({})", sorted(values))?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", sorted(values))?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan(bound) => write!(f, "{key}>{bound}")?,
                Operator::LessThan(bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

fn sorted(values: &[String]) -> String {
    let mut values: Vec<&str> = values.iter().map(String::as_str).collect();
    values.sort_unstable();
    values.join(",")
}

/// Splits into words and the symbols `( ) , ! = == != > <`.
fn tokens(text: &str) -> Vec<&str> {
    const SYMBOLS: &[char] = &['(', ')', ',', '!', '=', '>', '<'];
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("==") || rest.starts_with("!=") {
            2
        } else if SYMBOLS.contains(&first) {
            1
        } else {
            rest.find(|c: char| c.is_whitespace() || SYMBOLS.contains(&c)).unwrap_or(rest.len())
        };
        let (token, tail) = rest.split_at(length);
        out.push(token);
        rest = tail.trim_start();
    }
    out
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    position: usize,
}

fn is_word(token: &str) -> bool {
    !token.is_empty() && !token.starts_with(['(', ')', ',', '!', '=', '>', '<'])
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a str {
        self.tokens.get(self.position).copied().unwrap_or("")
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, String> {
        let mut out = Vec::new();
        while !self.peek().is_empty() {
            out.push(self.requirement()?);
            match self.next() {
                "" => break,
                "," if is_word(self.peek()) || self.peek() == "!" => {}
                "," => return Err(format!("found '{}', expected: identifier after ','", self.peek())),
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
        Ok(out)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.peek() == "!";
        if absent {
            self.next();
        }
        let key = self.next();
        if !is_word(key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        if let Some(why) = names::qualified_name(key).into_iter().next() {
            return Err(format!("key: Invalid value: {key:?}: {why}"));
        }
        let operator = if absent {
            Operator::DoesNotExist
        } else if matches!(self.peek(), "" | ",") {
            Operator::Exists
        } else {
            self.operator(key)?
        };
        Ok(Requirement { key: key.to_owned(), operator })
    }

    fn operator(&mut self, key: &str) -> Result<Operator, String> {
        Ok(match self.next() {
            "=" | "==" => Operator::In(vec![self.value(key)?]),
            "!=" => Operator::NotIn(vec![self.value(key)?]),
            "in" => Operator::In(self.values(key)?),
            "notin" => Operator::NotIn(self.values(key)?),
            ">" => Operator::GreaterThan(self.number(key)?),
            "<" => Operator::LessThan(self.number(key)?),
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    /// One value; absent means the empty string, as in `a=,b=c`.
    fn value(&mut self, key: &str) -> Result<String, String> {
        if matches!(self.peek(), "" | ",") {
            return Ok(String::new());
        }
        let value = self.next();
        if !is_word(value) {
            return Err(format!("found '{value}', expected: identifier"));
        }
        check_value(key, value)
    }

    fn number(&mut self, key: &str) -> Result<i64, String> {
        let value = self.value(key)?;
        value.parse().map_err(|_| {
            format!(
                "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            )
        })
    }

    fn values(&mut self, key: &str) -> Result<Vec<String>, String> {
        match self.next() {
            "(" => {}
            other => return Err(format!("found '{other}' expected: '('")),
        }
        let mut out = Vec::new();
        loop {
            match self.peek() {
                // An empty place is an empty value: `in (,a)`, `in ()`.
                "," | ")" => out.push(String::new()),
                word if is_word(word) => {
                    self.next();
                    out.push(check_value(key, word)?);
                }
                other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
            }
            match self.next() {
                "," => {}
                ")" => return Ok(out),
                other => return Err(format!("found '{other}', expected: ',' or ')'")),
            }
        }
    }
}

fn check_value(key: &str, value: &str) -> Result<String, String> {
    match names::label_value(value).into_iter().next() {
        Some(why) => Err(format!("values[0][{key}]: Invalid value: {value:?}: {why}")),
        None => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn labels() -> Map<String, Value> {
        json!({"app": "web", "tier": "front", "n": "5"}).as_object().unwrap().clone()
    }

    #[test]
    fn label_selectors_match() {
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("missing notin (x)", true),
            ("app", true),
            ("!app", false),
            ("!missing , app", true),
            ("missing!=x", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app=", false),
            ("app in ()", false),
            ("in=x", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(Some(&labels())), want, "{text}");
        }
    }

    #[test]
    fn label_selectors_refused() {
        for text in ["a=b,", ",a", "a in b", "a in (b", "=b", "a b", "a=b c", "!a=b", "a=!b", "-a=b", "a=b/c"]
        {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn object_selectors() {
        assert!(!LabelSelector::from_object(None).unwrap().matches(Some(&labels())));
        assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().matches(Some(&labels())));
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["front"]}, {"key": "x", "operator": "DoesNotExist"}]});
        let selector = LabelSelector::from_object(Some(&selector)).unwrap();
        assert!(selector.matches(Some(&labels())));
        assert_eq!(selector.to_string(), "app=web,tier=front,!x");
    }

    #[test]
    fn field_selectors() {
        let fields = [("metadata.name", "a,b".to_owned()), ("status.phase", "Running".to_owned())];
        for (text, want) in [
            ("", true),
            (r"metadata.name=a\,b", true),
            ("status.phase!=Failed,status.phase==Running", true),
            ("status.phase!=Running", false),
            ("spec.nodeName=", true),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(&fields), want, "{text}");
        }
        for text in ["a", r"a=\x", "a=b=c"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
        assert_eq!(FieldSelector::parse("metadata.name=x").unwrap().exact("metadata.name"), Some("x"));
    }

    proptest! {
        #[test]
        fn printing_round_trips(text in "[a-c]{1,3}(=|!=| in \\(|>)?[a-c0-9,)]{0,6}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                let again = LabelSelector::parse(&selector.to_string()).unwrap();
                prop_assert_eq!(again.matches(Some(&labels())), selector.matches(Some(&labels())));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ignored = (LabelSelector::parse(&text), FieldSelector::parse(&text));
        }
    }
}
