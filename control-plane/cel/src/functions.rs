//! Declarations of functions: overloads with their signatures and bodies.
//!
//! Signatures are written as text (`"(string).contains(string) -> bool"`, a receiver in brackets) and
//! parsed once, when the table is built.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::eval::EvalError;
use crate::library;
use crate::types::Type;
use crate::value::Value;

/// A function's body. The values are those of the receiver, if any, and of the arguments.
pub(crate) type Body = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, EvalError>;

/// One overload.
pub(crate) struct Overload {
    /// Its name in tables of costs.
    pub(crate) id: String,
    pub(crate) member: bool,
    /// Receiver first.
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    /// The parameters that occur.
    pub(crate) params: Vec<Arc<str>>,
    pub(crate) body: Body,
}

impl std::fmt::Debug for Overload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)
    }
}

/// A function: its overloads, in the order they are tried.
#[derive(Default)]
pub(crate) struct Function {
    pub(crate) overloads: Vec<Overload>,
}

/// All functions of an environment, by name.
pub(crate) type Functions = HashMap<String, Function>;

/// The functions the API server enables. One table for all environments: a function whose receiver is
/// never declared cannot be called.
pub(crate) static ALL: LazyLock<Functions> = LazyLock::new(|| {
    let mut functions = Functions::new();
    library::declare(&mut |id, signature, body| {
        let (name, overload) = parse(id, signature, body);
        functions.entry(name).or_default().overloads.push(overload);
    });
    functions
});

/// Adds overloads: id, signature, body.
pub(crate) type Declare<'d> = &'d mut dyn FnMut(&str, &str, Body);

fn parse(id: &str, signature: &str, body: Body) -> (String, Overload) {
    let mut reader = Reader { rest: signature, params: Vec::new() };
    let mut args = Vec::new();
    let member = reader.take("(");
    if member {
        args.push(reader.kind());
        reader.expect(").");
    }
    let end = reader.rest.find('(').unwrap_or_else(|| panic!("no arguments in {signature}"));
    let name = reader.rest[..end].to_owned();
    reader.rest = &reader.rest[end + 1..];
    while !reader.take(")") {
        args.push(reader.kind());
        reader.take(", ");
    }
    reader.expect(" -> ");
    let result = reader.kind();
    assert!(reader.rest.is_empty(), "left over in {signature}: {}", reader.rest);
    (name, Overload { id: id.to_owned(), member, args, result, params: reader.params, body })
}

struct Reader<'a> {
    rest: &'a str,
    params: Vec<Arc<str>>,
}

impl Reader<'_> {
    fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, text: &str) {
        assert!(self.take(text), "expected {text:?} in a signature at {:?}", self.rest);
    }

    fn kind(&mut self) -> Type {
        let end = self.rest.find([',', '(', ')', ' ']).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        match name {
            "list" => {
                self.expect("(");
                let item = self.kind();
                self.expect(")");
                Type::list(item)
            }
            "map" => {
                self.expect("(");
                let key = self.kind();
                self.expect(", ");
                let value = self.kind();
                self.expect(")");
                Type::map(key, value)
            }
            "optional" => {
                self.expect("(");
                let value = self.kind();
                self.expect(")");
                Type::optional(value)
            }
            "type" => {
                self.expect("(");
                let of = self.kind();
                self.expect(")");
                Type::Type(Some(Arc::new(of)))
            }
            name if name.len() == 1 => {
                if !self.params.iter().any(|param| **param == *name) {
                    self.params.push(name.into());
                }
                Type::param(name)
            }
            name => named(name).unwrap_or_else(|| panic!("unknown type {name:?} in a signature")),
        }
    }
}

/// A type without parameters, by the name signatures use.
pub(crate) fn named(name: &str) -> Option<Type> {
    Some(match name {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "net.IP" => Type::Opaque("net.IP", Arc::from([])),
        "net.CIDR" => Type::Opaque("net.CIDR", Arc::from([])),
        "kubernetes.URL"
        | "kubernetes.Quantity"
        | "kubernetes.Semver"
        | "kubernetes.NamedFormat"
        | "kubernetes.authorization.Authorizer"
        | "kubernetes.authorization.PathCheck"
        | "kubernetes.authorization.GroupCheck"
        | "kubernetes.authorization.ResourceCheck"
        | "kubernetes.authorization.Decision" => Type::object::<String>(name, []),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_parses_and_ids_are_unique() {
        let mut seen = std::collections::HashSet::new();
        for (name, function) in ALL.iter() {
            for overload in &function.overloads {
                assert!(seen.insert(overload.id.clone()), "{name}: {} is there twice", overload.id);
            }
        }
        assert!(seen.len() > 200, "{}", seen.len());
    }
}
