//! The static check: every identifier is declared, every call has an overload, and every node gets a type.

mod unify;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::unify::{Mapping, most_general};
use crate::ast::{Call, Expr, FieldInit, Fold, Kind, Literal, MapEntry};
use crate::env::Env;
use crate::functions::{Function, Overload};
use crate::source::Issue;
use crate::types::Type;

/// What the check found out, by node id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    /// The type of a node.
    pub(crate) types: Vec<Type>,
    /// The overloads a call may use, in the order they are tried.
    pub(crate) overloads: Vec<Vec<&'static Overload>>,
    /// The declared variables that occur.
    pub(crate) variables: BTreeSet<String>,
}

/// Checks a tree. Names of several parts (`authorizer.requestResource`, `quantity.of`) become one
/// identifier or function name in it.
pub(crate) fn check(env: &Env, root: &mut Expr, nodes: u32) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        env,
        mapping: Mapping::default(),
        fresh: 0,
        scopes: Vec::new(),
        issues: Vec::new(),
        checked: Checked {
            types: vec![Type::Dyn; nodes as usize],
            overloads: vec![Vec::new(); nodes as usize],
            variables: BTreeSet::new(),
        },
    };
    checker.check(root);
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let Checker { mut checked, mapping, .. } = checker;
    for kind in &mut checked.types {
        *kind = mapping.substitute(kind, true);
    }
    Ok(checked)
}

struct Checker<'e> {
    env: &'e Env,
    mapping: Mapping,
    fresh: u32,
    scopes: Vec<(Arc<str>, Type)>,
    issues: Vec<Issue>,
    checked: Checked,
}

impl Checker<'_> {
    fn issue(&mut self, position: u32, message: impl Into<String>) {
        self.issues.push(Issue::at(position, message));
    }

    fn undeclared(&mut self, position: u32, name: &str) -> Type {
        self.issue(position, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn type_of(&self, expr: &Expr) -> &Type {
        &self.checked.types[expr.id as usize]
    }

    fn resolved(&self, expr: &Expr) -> Type {
        self.mapping.substitute(self.type_of(expr), false)
    }

    fn type_variable(&mut self) -> Type {
        self.fresh += 1;
        Type::param(&format!("_var{}", self.fresh - 1))
    }

    fn mismatch(&mut self, position: u32, wanted: &Type, found: &Type) {
        let wanted = self.mapping.substitute(wanted, false);
        let found = self.mapping.substitute(found, false);
        self.issue(position, format!("expected type '{wanted}' but found '{found}'"));
    }

    fn expect(&mut self, expr: &Expr, wanted: &Type) {
        let found = self.type_of(expr).clone();
        if !self.mapping.assignable(wanted, &found) {
            self.mismatch(expr.position, wanted, &found);
        }
    }

    fn check(&mut self, expr: &mut Expr) {
        // One complaint a thousand times helps nobody; the rest may cost much.
        if self.issues.len() > 100 {
            return;
        }
        let position = expr.position;
        let kind = match &mut expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => match self.variable(name) {
                Some(kind) => kind,
                None => {
                    let name = Arc::clone(name);
                    self.undeclared(position, &name)
                }
            },
            Kind::Select { .. } => self.select(expr),
            Kind::Call(_) => self.call(expr),
            Kind::And(terms) | Kind::Or(terms) => {
                for term in terms.iter_mut() {
                    self.check(term);
                }
                for term in terms.iter() {
                    self.expect(term, &Type::Bool);
                }
                Type::Bool
            }
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => {
                let name = Arc::clone(name);
                self.structure(position, &name, fields)
            }
            Kind::Fold(fold) => self.fold(fold),
        };
        self.checked.types[expr.id as usize] = kind;
    }

    fn local(&self, name: &str) -> Option<&Type> {
        self.scopes.iter().rev().find(|(local, _)| **local == *name).map(|(_, kind)| kind)
    }

    fn variable(&mut self, name: &str) -> Option<Type> {
        self.local(name).cloned().or_else(|| self.global(name))
    }

    fn global(&mut self, name: &str) -> Option<Type> {
        let declared = self.env.variable_type(name).cloned();
        if declared.is_some() {
            self.checked.variables.insert(name.to_owned());
        }
        declared.or_else(|| type_ident(name))
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        // A declared name of several parts wins over the fields of its beginning.
        if let Some(name) = expr.qualified_name() {
            let root = name.split('.').next().unwrap_or_default();
            if self.local(root).is_none()
                && let Some(kind) = self.global(&name)
            {
                expr.kind = Kind::Ident(name.into());
                return kind;
            }
        }
        let position = expr.position;
        let Kind::Select { operand, field, test, optional } = &mut expr.kind else { return Type::Error };
        self.check(operand);
        let (test, optional) = (*test, *optional);
        let kind = self.mapping.substitute(&self.checked.types[operand.id as usize], false);
        let (target, inside_optional) = match kind.unwrap_optional() {
            Some(inner) => (inner.clone(), true),
            None => (kind, false),
        };
        let result = match &target {
            Type::Map(entry) => entry.1.clone(),
            Type::Object(object) => match object.fields.get(&**field) {
                Some(kind) => kind.clone(),
                None => {
                    let message = format!("undefined field '{field}'");
                    self.issue(position, message);
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.mapping.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other if other.is_dyn_or_error() => Type::Dyn,
            other => {
                self.issue(position, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if test {
            Type::Bool
        } else if inside_optional || optional {
            Type::optional(result)
        } else {
            result
        }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let (id, position) = (expr.id, expr.position);
        let Kind::Call(call) = &mut expr.kind else { return Type::Error };
        for arg in &mut call.args {
            self.check(arg);
        }
        if let Some(target) = &mut call.target {
            // Either a function of a longer name or a method.
            let longer = target.qualified_name().map(|prefix| format!("{prefix}.{}", call.function));
            if let Some(name) = longer.filter(|name| self.env.function(name).is_some()) {
                call.function = name.into();
                call.target = None;
            } else {
                self.check(target);
            }
        }
        let Some(function) = self.env.function(&call.function) else {
            let name = Arc::clone(&call.function);
            return self.undeclared(position, &name);
        };
        self.resolve(id, position, function, call)
    }

    fn resolve(&mut self, id: u32, position: u32, function: &'static Function, call: &Call) -> Type {
        let member = call.target.is_some();
        let args: Vec<Type> = call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .map(|arg| self.type_of(arg).clone())
            .collect();
        let given: Vec<&Type> = args.iter().collect();
        let mut result: Option<Type> = None;
        let mut candidates = Vec::new();
        for overload in &function.overloads {
            if overload.member != member || overload.args.len() != args.len() {
                continue;
            }
            let (wanted, returned) = self.instantiate(overload);
            if !self.mapping.all_assignable(&given, &wanted.iter().collect::<Vec<_>>()) {
                continue;
            }
            candidates.push(overload);
            let returned = self.mapping.substitute(&returned, false);
            result = Some(match result {
                None => returned,
                Some(kind) if kind.is_dyn() || kind == returned => kind,
                Some(_) => Type::Dyn,
            });
        }
        self.checked.overloads[id as usize] = candidates;
        result.unwrap_or_else(|| {
            let mut shown = args.iter().map(|kind| self.mapping.substitute(kind, true).to_string());
            let receiver =
                if member { format!("{}.", shown.next().unwrap_or_default()) } else { String::new() };
            let list: Vec<String> = shown.collect();
            let message = format!(
                "found no matching overload for '{}' applied to '{receiver}({})'",
                call.function,
                list.join(", ")
            );
            self.issue(position, message);
            Type::Error
        })
    }

    /// A signature with type variables of its own.
    fn instantiate(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        if overload.params.is_empty() {
            return (overload.args.clone(), overload.result.clone());
        }
        let fresh: Vec<(Arc<str>, Type)> =
            overload.params.iter().map(|name| (Arc::clone(name), self.type_variable())).collect();
        let args = overload.args.iter().map(|kind| rename(kind, &fresh)).collect();
        (args, rename(&overload.result, &fresh))
    }

    fn join(&mut self, position: u32, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else { return current };
        if self.mapping.assignable(&previous, &current) {
            return most_general(&previous, &current);
        }
        self.mismatch(position, &previous, &current);
        Type::Error
    }

    /// The type of an item, out of its optional when it is marked `?`.
    fn item_type(&mut self, item: &Expr, optional: bool) -> Type {
        let kind = self.type_of(item).clone();
        if !optional {
            return kind;
        }
        let kind = self.mapping.substitute(&kind, false);
        match kind.unwrap_optional() {
            Some(inner) => inner.clone(),
            None => {
                if !kind.is_dyn_or_error() {
                    self.mismatch(item.position, &Type::optional(kind.clone()), &kind);
                }
                kind
            }
        }
    }

    fn list(&mut self, items: &mut [(Expr, bool)]) -> Type {
        let mut joined = None;
        for (item, optional) in items {
            self.check(item);
            let kind = self.item_type(item, *optional);
            joined = Some(self.join(item.position, joined, kind));
        }
        Type::list(joined.unwrap_or_else(|| self.type_variable()))
    }

    fn map(&mut self, entries: &mut [MapEntry]) -> Type {
        let (mut key, mut value) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            let kind = self.resolved(&entry.key);
            // Besides being useless, keys of keys would let types grow without bound.
            if matches!(
                kind,
                Type::List(_) | Type::Map(_) | Type::Object(_) | Type::Opaque(..) | Type::Type(_)
            ) {
                self.issue(entry.key.position, format!("unsupported key type '{kind}'"));
            }
            key = Some(self.join(entry.key.position, key, kind));
            self.check(&mut entry.value);
            let kind = self.item_type(&entry.value, entry.optional);
            value = Some(self.join(entry.value.position, value, kind));
        }
        let key = key.unwrap_or_else(|| self.type_variable());
        let value = value.unwrap_or_else(|| self.type_variable());
        Type::map(key, value)
    }

    fn structure(&mut self, position: u32, name: &str, fields: &mut [FieldInit]) -> Type {
        let Some(kind) = self.env.structure(name) else {
            fields.iter_mut().for_each(|field| self.check(&mut field.value));
            return self.undeclared(position, name);
        };
        for field in fields {
            self.check(&mut field.value);
            let found = self.item_type(&field.value, field.optional);
            let wanted = match &kind {
                Type::Object(_) if self.env.is_open(name) => Some(Type::Dyn),
                Type::Object(object) => object.fields.get(&*field.name).cloned(),
                _ => None,
            };
            match wanted {
                None => self.issue(field.position, format!("undefined field '{}'", field.name)),
                Some(wanted) if !self.mapping.assignable(&wanted, &found) => {
                    let found = self.mapping.substitute(&found, false);
                    let message = format!(
                        "expected type of field '{}' is '{wanted}' but provided type is '{found}'",
                        field.name
                    );
                    self.issue(field.position, message);
                }
                Some(_) => {}
            }
        }
        kind
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let range = self.resolved(&fold.range);
        let accumulated = self.type_of(&fold.init).clone();
        let (first, second) = match &range {
            Type::List(item) if fold.second.is_some() => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(entry) => (entry.0.clone(), entry.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.mapping.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(fold.range.position, message);
                (Type::Error, Type::Error)
            }
        };
        let depth = self.scopes.len();
        self.scopes.push((Arc::clone(&fold.accumulator), accumulated.clone()));
        self.scopes.push((Arc::clone(&fold.variable), first));
        if let Some(name) = &fold.second {
            self.scopes.push((Arc::clone(name), second));
        }
        self.check(&mut fold.condition);
        self.expect(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.expect(&fold.step, &accumulated);
        self.scopes.truncate(depth + 1);
        self.check(&mut fold.result);
        self.scopes.truncate(depth);
        self.resolved(&fold.result)
    }
}

fn rename(kind: &Type, names: &[(Arc<str>, Type)]) -> Type {
    match kind {
        Type::Param(name) => {
            names.iter().find(|(param, _)| param == name).map_or(Type::Dyn, |(_, fresh)| fresh.clone())
        }
        other => other.with(&mut |part| rename(part, names)),
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

/// Names of types are values: `type(x) == int`.
pub(crate) fn type_ident(name: &str) -> Option<Type> {
    let of = match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Type(None),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        "net.IP" | "net.CIDR" => crate::functions::named(name)?,
        _ => return None,
    };
    Some(Type::Type(Some(Arc::new(of))))
}
