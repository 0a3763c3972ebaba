//! Which type fits where: unification of type parameters, with `dyn` fitting everywhere.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::Type;

/// Chains of parameters and nested types are followed this far; only an expression made to hurt gets there.
const DEPTH: u16 = 400;

/// What is known about type parameters so far, and how to forget what was learnt last.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    known: HashMap<Arc<str>, Type>,
    log: Vec<(Arc<str>, Option<Type>)>,
    depth: u16,
}

impl Mapping {
    /// Does a value of type `from` fit where `to` is wanted. What that says about parameters is kept only
    /// when it does.
    pub(super) fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        self.all_assignable(&[from], &[to])
    }

    /// The same for several at once.
    pub(super) fn all_assignable(&mut self, from: &[&Type], to: &[&Type]) -> bool {
        let fits = self.fits_all(from, to);
        while let (false, Some((name, before))) = (fits, self.log.pop()) {
            match before {
                Some(before) => self.known.insert(name, before),
                None => self.known.remove(&name),
            };
        }
        self.log.clear();
        fits
    }

    fn learn(&mut self, name: &Arc<str>, kind: Type) {
        let before = self.known.insert(Arc::clone(name), kind);
        self.log.push((Arc::clone(name), before));
    }

    fn fits_all(&mut self, from: &[&Type], to: &[&Type]) -> bool {
        from.len() == to.len() && from.iter().zip(to).all(|(from, to)| self.fits(from, to))
    }

    fn fits(&mut self, from: &Type, to: &Type) -> bool {
        if self.depth > DEPTH {
            return false;
        }
        self.depth += 1;
        let fits = self.fits_below(from, to);
        self.depth -= 1;
        fits
    }

    fn fits_below(&mut self, from: &Type, to: &Type) -> bool {
        if let Type::Param(name) = to {
            let (valid, known) = self.substitutes(from, to, name);
            if valid || known {
                return valid;
            }
        }
        if let Type::Param(name) = from {
            return self.substitutes(to, from, name).0;
        }
        if from.is_dyn_or_error() || to.is_dyn_or_error() {
            return true;
        }
        if *from == Type::Null || *to == Type::Null {
            let other = if *from == Type::Null { to } else { from };
            // The types a null was always allowed for.
            return matches!(
                other,
                Type::Null | Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp
            );
        }
        match (from, to) {
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Opaque(a, _), Type::Opaque(b, _)) if a != b => false,
            (Type::Opaque(..), Type::Opaque(..))
            | (Type::List(_), Type::List(_))
            | (Type::Map(_), Type::Map(_)) => self.fits_all(&from.parameters(), &to.parameters()),
            (from, to) => from == to,
        }
    }

    /// Can `other` stand for the parameter `name`; was anything known of it.
    fn substitutes(&mut self, other: &Type, param: &Type, name: &Arc<str>) -> (bool, bool) {
        if other == param {
            return (true, true);
        }
        if let Some(known) = self.known.get(name).cloned() {
            if *other == known {
                return (true, true);
            }
            if !self.fits(other, &known) {
                return (false, true);
            }
            let general = most_general(other, &known);
            if self.absent(param, &general, 0) {
                self.learn(name, general);
            }
            return (true, true);
        }
        let fresh = self.absent(param, other, 0);
        if fresh {
            self.learn(name, other.clone());
        }
        (fresh, false)
    }

    /// Does a type not occur in another: else it would contain itself.
    fn absent(&self, param: &Type, within: &Type, depth: u16) -> bool {
        if param == within || depth > DEPTH {
            return false;
        }
        match within {
            Type::Param(name) => {
                self.known.get(name).is_none_or(|known| self.absent(param, known, depth + 1))
            }
            other => other.parameters().iter().all(|part| self.absent(param, part, depth + 1)),
        }
    }

    /// Replaces the parameters that are known, and the others by `dyn` when `finally`.
    pub(super) fn substitute(&self, kind: &Type, finally: bool) -> Type {
        self.replace(kind, finally, 0)
    }

    fn replace(&self, kind: &Type, finally: bool, depth: u16) -> Type {
        if depth > DEPTH {
            return Type::Dyn;
        }
        match kind {
            Type::Param(name) => match self.known.get(name) {
                Some(known) => self.replace(known, finally, depth + 1),
                None if finally => Type::Dyn,
                None => kind.clone(),
            },
            other => other.with(&mut |part| self.replace(part, finally, depth + 1)),
        }
    }
}

/// The more general of two types that fit each other.
pub(super) fn most_general(a: &Type, b: &Type) -> Type {
    if less_specific(a, b) { a.clone() } else { b.clone() }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    if a.is_dyn() || matches!(a, Type::Param(_)) {
        return true;
    }
    if b.is_dyn() || matches!(b, Type::Param(_)) {
        return false;
    }
    match (a, b) {
        (Type::Type(_), Type::Type(_)) => true,
        (Type::Opaque(x, _), Type::Opaque(y, _)) if x != y => false,
        (Type::Opaque(..), Type::Opaque(..))
        | (Type::List(_), Type::List(_))
        | (Type::Map(_), Type::Map(_)) => {
            let (a, b) = (a.parameters(), b.parameters());
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| less_specific(a, b))
        }
        (a, b) => a == b,
    }
}
