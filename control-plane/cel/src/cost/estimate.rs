//! What an expression may cost, by the sizes its literals and the schemas of its variables allow.

use std::collections::HashMap;
use std::sync::Arc;

use super::{LIST, Range, calls};
use crate::ast::{Call, Expr, Fold, Kind, Literal, op};
use crate::checker::Checked;
use crate::env::Env;
use crate::types::Type;

/// Estimates the cost of a checked tree.
pub(crate) fn estimate(env: &Env, checked: &Checked, root: &Expr) -> Range {
    let mut estimator = Estimator {
        env,
        checked,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(root)
}

/// The sizes of the keys (or positions) and values of a list or map.
#[derive(Clone, Copy, Debug)]
struct Entry {
    list: bool,
    key: Range,
    value: Range,
}

impl Entry {
    fn union(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        let (a, b) = (a?, b?);
        Some(Self { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) })
    }
}

struct Local {
    name: Arc<str>,
    path: Vec<String>,
    size: Option<Range>,
    entry: Option<Entry>,
}

pub(super) struct Estimator<'e> {
    env: &'e Env,
    pub(super) checked: &'e Checked,
    /// Where in the variables' schemas a node lies: a variable, then fields, `@items`, `@keys`, `@values`.
    paths: HashMap<u32, Vec<String>>,
    sizes: HashMap<u32, Range>,
    entries: HashMap<u32, Entry>,
    locals: Vec<Local>,
}

impl Estimator<'_> {
    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            Kind::Literal(_) => Range::fixed(0),
            Kind::Ident(name) => {
                let path =
                    self.local(name).map_or_else(|| vec![name.to_string()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                Range::fixed(1)
            }
            Kind::Select { operand, test: true, .. } => self.cost(operand),
            Kind::Select { operand, field, optional, .. } => {
                let mut sum = self.cost(operand);
                let kind = &self.checked.types[operand.id as usize];
                if *optional || matches!(kind, Type::Map(_) | Type::Object(_) | Type::Param(_)) {
                    sum = sum.plus(Range::fixed(1));
                }
                let mut path = self.path(operand);
                path.push(field.to_string());
                self.paths.insert(expr.id, path);
                sum
            }
            Kind::Call(call) => self.call(expr, call),
            Kind::And(terms) | Kind::Or(terms) => {
                let mut costs = terms.iter().map(|term| self.cost(term)).collect::<Vec<_>>().into_iter();
                let first = costs.next().unwrap_or(Range::fixed(0));
                // The cheapest case ends at the first term.
                costs.fold(first, |sum, cost| Range::new(first.min, sum.plus(cost).max))
            }
            Kind::List(items) => {
                let mut sum = Range::fixed(LIST);
                let mut value = if items.is_empty() { Range::fixed(0) } else { Range::new(u64::MAX, 0) };
                for (item, _) in items {
                    sum = sum.plus(self.cost(item));
                    value = value.union(self.size_or_unknown(item));
                }
                self.entries.insert(expr.id, Entry { list: true, key: Range::fixed(1), value });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Range::fixed(30);
                let empty = if entries.is_empty() { Range::fixed(0) } else { Range::new(u64::MAX, 0) };
                let (mut key, mut value) = (empty, empty);
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    key = key.union(self.size_or_unknown(&entry.key));
                    value = value.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, Entry { list: false, key, value });
                sum
            }
            Kind::Struct { fields, .. } => fields
                .iter()
                .map(|field| self.cost(&field.value))
                .collect::<Vec<_>>()
                .into_iter()
                .fold(Range::fixed(40), Range::plus),
            Kind::Fold(fold) if fold.is_bind() => self.bind(expr, fold),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Range {
        let args: Vec<Range> = call.args.iter().map(|arg| self.cost(arg)).collect();
        let sum = args.iter().fold(Range::fixed(0), |sum, cost| sum.plus(*cost));
        if *call.function == *"dyn" {
            if let [arg] = call.args.as_slice() {
                self.copy_sizes(expr.id, arg);
            }
            return sum.plus(Range::fixed(1));
        }
        let target = call.target.as_deref().map_or(Range::fixed(0), |target| self.cost(target));
        if let (op::CONDITIONAL, [_, yes, no]) = (&*call.function, call.args.as_slice()) {
            let size = self.size_or_unknown(yes).union(self.size_or_unknown(no));
            if let Some(entry) = Entry::union(self.entry(yes), self.entry(no)) {
                self.entries.insert(expr.id, entry);
            }
            self.sizes.insert(expr.id, size);
            return args[0].plus(args[1].union(args[2]));
        }
        let mut cost: Option<Range> = None;
        let mut size: Option<Range> = None;
        for overload in &self.checked.overloads[expr.id as usize] {
            let (one, result) = calls::call(self, call, &overload.id);
            cost = Some(cost.map_or(one, |cost| cost.union(one)));
            size = match (size, result) {
                (Some(size), Some(result)) => Some(size.union(result)),
                (size, result) => size.or(result),
            };
            let below = match overload.id.as_str() {
                "index_list" => "@items",
                "index_map" => "@values",
                _ => continue,
            };
            if let [list, ..] = call.args.as_slice() {
                size = self.entry(list).map(|entry| entry.value);
                let mut path = self.path(list);
                path.push(below.to_owned());
                self.paths.insert(expr.id, path);
            }
        }
        if let (op::ADD, [left, right]) = (&*call.function, call.args.as_slice())
            && let Some(entry) = Entry::union(self.entry(left), self.entry(right))
        {
            self.entries.insert(expr.id, entry);
        }
        if let Some(size) = size.or_else(|| self.size(expr)) {
            self.sizes.insert(expr.id, size);
        }
        target.plus(sum).plus(cost.unwrap_or(Range::fixed(1)))
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_value(&fold.accumulator, &fold.init);
        let depth = self.locals.len();
        self.push_variables(fold);
        let turn = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.locals.truncate(depth);
        sum = sum.plus(self.cost(&fold.result));
        self.locals.truncate(depth - 1);
        let count = self.size_or_unknown(&fold.range);
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.sizes.insert(expr.id, count);
                if let Some(entry) = self.entry(&fold.step) {
                    self.entries.insert(expr.id, entry);
                }
            }
            _ => {}
        }
        sum.plus(count.times(turn))
    }

    fn push_variables(&mut self, fold: &Fold) {
        let entry = self.entry(&fold.range);
        let range_type = &self.checked.types[fold.range.id as usize];
        let list = entry.map_or(matches!(range_type, Type::List(_)), |entry| entry.list);
        let path = self.path(&fold.range);
        let mut push = |name: &Arc<str>, below: &str, size: Option<Range>| {
            let mut path = path.clone();
            path.push(below.to_owned());
            self.locals.push(Local { name: Arc::clone(name), path, size, entry: None });
        };
        let (key, value) = (entry.map(|entry| entry.key), entry.map(|entry| entry.value));
        let (keys, values) = if list { ("@indices", "@items") } else { ("@keys", "@values") };
        match &fold.second {
            Some(second) => {
                push(&fold.variable, keys, key);
                push(second, values, value);
            }
            None if list => push(&fold.variable, values, value),
            None => push(&fold.variable, keys, key),
        }
    }

    fn push_value(&mut self, name: &Arc<str>, value: &Expr) {
        let local = Local {
            name: Arc::clone(name),
            path: self.path(value),
            size: self.size(value),
            entry: self.entry(value),
        };
        self.locals.push(local);
    }

    fn bind(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_value(&fold.accumulator, &fold.init);
        let sum = sum.plus(self.cost(&fold.result));
        self.copy_sizes(expr.id, &fold.result);
        self.locals.pop();
        sum
    }

    fn copy_sizes(&mut self, to: u32, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to, size);
        }
        if let Some(entry) = self.entry(from) {
            self.entries.insert(to, entry);
        }
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| *local.name == *name)
    }

    fn path(&self, expr: &Expr) -> Vec<String> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn entry(&self, expr: &Expr) -> Option<Entry> {
        if let Some(entry) = self.entries.get(&expr.id) {
            return Some(*entry);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entry,
            _ => None,
        }
    }

    /// The size of a node's value, when anything is known of it.
    pub(super) fn size(&self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        let written = match &expr.kind {
            Kind::Literal(Literal::String(text)) => Some(text.chars().count()),
            Kind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            Kind::Literal(_) => Some(1),
            Kind::List(items) => Some(items.len()),
            Kind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(size) = written {
            return Some(Range::fixed(size as u64));
        }
        if let Some(size) = self.declared(&self.path(expr)) {
            return Some(size);
        }
        if self.checked.types[expr.id as usize].is_scalar() {
            return Some(Range::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    pub(super) fn size_or_unknown(&self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    /// What a schema says of the place.
    fn declared(&self, path: &[String]) -> Option<Range> {
        let (variable, rest) = path.split_first()?;
        let max = self.env.schema(variable)?.size_at(rest)?;
        Some(Range::new(0, max))
    }

    /// The size of the items of a list, and whether they are text or bytes. `None` when it is no list.
    pub(super) fn item_size(&self, list: &Expr) -> Option<(Range, bool)> {
        let Type::List(item) = &self.checked.types[list.id as usize] else { return None };
        let mut path = self.path(list);
        let size = if path.is_empty() {
            None
        } else {
            path.push("@items".to_owned());
            self.declared(&path)
        };
        Some((size.unwrap_or(Range::UNKNOWN), matches!(**item, Type::String | Type::Bytes)))
    }
}
