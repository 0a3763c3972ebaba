//! JSON paths of printer columns and selectable fields: names, indexes, slices, wildcards, filters and
//! descent. Keys that are missing lead to nothing.

use serde_json::Value;

/// A path has no more steps.
const LONGEST: usize = 64;

/// One step.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Name(String),
    Names(Vec<String>),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Every,
    Descend,
    Where(Condition),
}

/// `?(@.type=="Ready")`
#[derive(Clone, Debug, PartialEq)]
struct Condition {
    left: Operand,
    test: Option<(Compare, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A parsed path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`; `None` when malformed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if steps.len() == LONGEST {
                return None;
            }
            if let Some(tail) = rest.strip_prefix("..") {
                steps.push(Step::Descend);
                rest = tail;
                if !rest.starts_with('[') {
                    let (step, tail) = name(rest)?;
                    steps.push(step);
                    rest = tail;
                }
            } else if let Some(tail) = rest.strip_prefix('.') {
                if tail.is_empty() && steps.is_empty() {
                    return Some(Self::default());
                }
                if tail.starts_with('[') {
                    rest = tail;
                    continue;
                }
                let (step, tail) = name(tail)?;
                steps.push(step);
                rest = tail;
            } else if rest.starts_with('[') {
                let end = closing(rest)?;
                steps.push(bracket(rest[1..end].trim())?);
                rest = &rest[end + 1..];
            } else {
                return None;
            }
        }
        Some(Self(steps))
    }

    /// Everything the path leads to.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut here = vec![value];
        for step in &self.0 {
            here = here.into_iter().flat_map(|value| step.from(value)).collect();
        }
        here
    }
}

/// A name up to the next dot or bracket; a backslash keeps what follows.
fn name(text: &str) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            ']' | '{' | '}' | '(' | ')' | ' ' => return None,
            c => name.push(c),
        }
    }
    let step = match name.as_str() {
        "" => return None,
        "*" => Step::Every,
        _ => Step::Name(name),
    };
    Some((step, &text[end..]))
}

/// Where the bracket that `text` begins with closes; quotes count.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => _ = chars.next(),
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    if inner == "*" {
        return Some(Step::Every);
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return Some(Step::Where(Condition::parse(condition)?));
    }
    if inner.starts_with(['\'', '"']) {
        let names: Option<Vec<String>> = inner.split(',').map(|part| quoted(part.trim())).collect();
        let mut names = names?;
        return Some(if names.len() == 1 { Step::Name(names.remove(0)) } else { Step::Names(names) });
    }
    if let Some((from, to)) = inner.split_once(':') {
        let bound = |text: &str| match text.trim() {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        };
        return Some(Step::Slice(bound(from)?, bound(to)?));
    }
    inner.parse().ok().map(Step::Index)
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(out)
}

impl Condition {
    fn parse(text: &str) -> Option<Self> {
        const SIGNS: [(&str, Compare); 6] = [
            ("==", Compare::Equal),
            ("!=", Compare::NotEqual),
            ("<=", Compare::LessOrEqual),
            (">=", Compare::GreaterOrEqual),
            ("<", Compare::Less),
            (">", Compare::Greater),
        ];
        let mut quote = None;
        for (at, c) in text.char_indices() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(c),
                (None, _) => {
                    let found = SIGNS.iter().find(|(sign, _)| text[at..].starts_with(sign));
                    if let Some((sign, compare)) = found {
                        let left = Operand::parse(&text[..at])?;
                        let right = Operand::parse(&text[at + sign.len()..])?;
                        return Some(Self { left, test: Some((*compare, right)) });
                    }
                }
            }
        }
        Some(Self { left: Operand::parse(text)?, test: None })
    }

    fn holds(&self, value: &Value) -> bool {
        let left = self.left.of(value);
        let Some((compare, right)) = &self.test else { return left.is_some() };
        let (Some(left), Some(right)) = (left, right.of(value)) else { return false };
        let order = match (left, right) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        };
        match compare {
            Compare::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Compare::NotEqual => order.is_none_or(std::cmp::Ordering::is_ne),
            Compare::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Compare::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Compare::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Compare::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

impl Operand {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix('@') {
            return JsonPath::parse(path).map(Self::Path);
        }
        if text.starts_with(['\'', '"']) {
            return quoted(text).map(|text| Self::Literal(Value::String(text)));
        }
        serde_json::from_str(text).ok().map(Self::Literal)
    }

    fn of<'v>(&'v self, value: &'v Value) -> Option<&'v Value> {
        match self {
            Self::Path(path) => path.find(value).first().copied(),
            Self::Literal(literal) => Some(literal),
        }
    }
}

impl Step {
    fn from<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Name(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Names(names), Value::Object(map)) => {
                names.iter().filter_map(|name| map.get(name)).collect()
            }
            (Self::Every, Value::Object(map)) => map.values().collect(),
            (Self::Every, Value::Array(items)) => items.iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                items.get(place(*index, items.len())).into_iter().collect()
            }
            (Self::Slice(from, to), Value::Array(items)) => {
                let from = from.map_or(0, |from| place(from, items.len()));
                let to = to.map_or(items.len(), |to| place(to, items.len())).min(items.len());
                items.get(from..to).into_iter().flatten().collect()
            }
            (Self::Where(condition), Value::Array(items)) => {
                items.iter().filter(|item| condition.holds(item)).collect()
            }
            (Self::Where(condition), Value::Object(map)) => {
                map.values().filter(|item| condition.holds(item)).collect()
            }
            (Self::Descend, value) => {
                let mut all = Vec::new();
                descend(value, &mut all);
                all
            }
            _ => Vec::new(),
        }
    }
}

/// A place in a list; negative ones count from the end. One that is not there is past the end.
fn place(index: i64, length: usize) -> usize {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let index = if index < 0 { index + length } else { index };
    usize::try_from(index).unwrap_or(usize::MAX)
}

fn descend<'v>(value: &'v Value, all: &mut Vec<&'v Value>) {
    all.push(value);
    match value {
        Value::Object(map) => map.values().for_each(|value| descend(value, all)),
        Value::Array(items) => items.iter().for_each(|value| descend(value, all)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_where_they_say() {
        let object = json!({
            "spec": {"replicas": 3, "a.b": "dots", "list": [1, 2, 3]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "n": 2}, {"type": "Done", "status": "False", "n": 5},
            ]},
        });
        let cases = [
            (".spec.replicas", json!([3])),
            (".spec['a.b']", json!(["dots"])),
            (r".spec.a\.b", json!(["dots"])),
            (".spec.list[0]", json!([1])),
            (".spec.list[-1]", json!([3])),
            (".spec.list[5]", json!([])),
            (".spec.list[1:]", json!([2, 3])),
            (".spec.list[*]", json!([1, 2, 3])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type=='Done')].status", json!(["False"])),
            (".status.conditions[?(@.n>3)].type", json!(["Done"])),
            (".status.conditions[?(@.gone)].type", json!([])),
            ("..type", json!(["Ready", "Done"])),
            (".metadata.name", json!([])),
        ];
        for (path, wanted) in cases {
            let parsed = JsonPath::parse(path).expect(path);
            let found: Vec<Value> = parsed.find(&object).into_iter().cloned().collect();
            assert_eq!(Value::Array(found), wanted, "{path}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for path in ["spec", ".a[", ".a[x]", ".a..", ".a b", ".a[?(@.x==)]"] {
            assert_eq!(JsonPath::parse(path), None, "{path}");
        }
    }
}
