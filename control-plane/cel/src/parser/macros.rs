//! Macros: calls that are rewritten into folds while the text is parsed.

use std::sync::Arc;

use super::Parser;
use crate::ast::{ACCUMULATOR, Call, Expr, Fold, Kind, Literal, MapEntry, op};
use crate::source::Issue;

/// A tree with more nodes was made by macros in macros.
const NODES: u32 = 250_000;

/// What goes round in a fold.
struct Loop {
    init: Kind,
    condition: Condition,
    step: Expr,
    result: Ending,
}

enum Condition {
    Always,
    WhileTrue,
    WhileFalse,
}

enum Ending {
    Accumulator,
    IsOne,
}

impl Parser {
    pub(super) fn global_call(&mut self, open: u32, name: &str, args: Vec<Expr>) -> Result<Expr, Issue> {
        if name == "has" && args.len() == 1 {
            let position = args[0].position;
            let Some(Expr { kind: Kind::Select { operand, field, test: false, .. }, .. }) =
                args.into_iter().next()
            else {
                return Err(Issue::at(position, "invalid argument to has() macro"));
            };
            return self.node(open, Kind::Select { operand, field, test: true, optional: false });
        }
        self.call(open, name, args)
    }

    pub(super) fn member_call(
        &mut self,
        open: u32,
        target: Expr,
        name: &str,
        args: Vec<Expr>,
    ) -> Result<Expr, Issue> {
        match (name, args.len()) {
            ("all" | "exists" | "exists_one" | "existsOne", 2) => {
                self.quantifier(open, target, name, args, 1)
            }
            ("all" | "exists" | "exists_one" | "existsOne", 3) => {
                self.quantifier(open, target, name, args, 2)
            }
            ("map", 2 | 3) | ("filter", 2) => self.list_macro(open, target, name, args, 1),
            ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => {
                self.list_macro(open, target, name, args, 2)
            }
            ("sortBy", 2) => self.sort_by(open, target, args),
            ("optMap" | "optFlatMap", 2) => self.optional_map(open, target, name, args),
            _ => {
                let call = Call { function: name.into(), target: Some(Box::new(target)), args };
                self.node(open, Kind::Call(call))
            }
        }
    }

    fn ident(&mut self, position: u32, name: &str) -> Result<Expr, Issue> {
        self.node(position, Kind::Ident(name.into()))
    }

    fn quantifier(
        &mut self,
        open: u32,
        target: Expr,
        name: &str,
        mut args: Vec<Expr>,
        variables: usize,
    ) -> Result<Expr, Issue> {
        let names = variable_names(&args[..variables], "argument must be a simple name")?;
        let predicate = args.remove(variables);
        let accumulator = self.ident(open, ACCUMULATOR)?;
        let looped = match name {
            "all" => Loop {
                init: Kind::Literal(Literal::Bool(true)),
                condition: Condition::WhileTrue,
                step: self.node(open, Kind::And(vec![accumulator, predicate]))?,
                result: Ending::Accumulator,
            },
            "exists" => Loop {
                init: Kind::Literal(Literal::Bool(false)),
                condition: Condition::WhileFalse,
                step: self.node(open, Kind::Or(vec![accumulator, predicate]))?,
                result: Ending::Accumulator,
            },
            _ => {
                let one = self.node(open, Kind::Literal(Literal::Int(1)))?;
                let more = self.call(open, op::ADD, vec![accumulator, one])?;
                let same = self.ident(open, ACCUMULATOR)?;
                Loop {
                    init: Kind::Literal(Literal::Int(0)),
                    condition: Condition::Always,
                    step: self.call(open, op::CONDITIONAL, vec![predicate, more, same])?,
                    result: Ending::IsOne,
                }
            }
        };
        self.fold(open, target, names, looped)
    }

    /// Macros that build a list or a map, with a filter or without.
    fn list_macro(
        &mut self,
        open: u32,
        target: Expr,
        name: &str,
        mut args: Vec<Expr>,
        variables: usize,
    ) -> Result<Expr, Issue> {
        let complaint =
            if variables == 1 { "argument is not an identifier" } else { "argument must be a simple name" };
        let names = variable_names(&args[..variables], complaint)?;
        let mut rest = args.split_off(variables);
        let transform =
            if name == "filter" { args.remove(0) } else { rest.pop().unwrap_or_else(|| args.remove(0)) };
        let filter = rest.pop();
        let accumulator = self.ident(open, ACCUMULATOR)?;
        let mut step = match name {
            "transformMap" => {
                let key = self.ident(open, &names.0)?;
                self.call(open, op::MAP_INSERT, vec![accumulator, key, transform])?
            }
            "transformMapEntry" => self.call(open, op::MAP_INSERT, vec![accumulator, transform])?,
            _ => {
                let item = self.node(open, Kind::List(vec![(transform, false)]))?;
                self.call(open, op::ADD, vec![accumulator, item])?
            }
        };
        if let Some(filter) = filter {
            let same = self.ident(open, ACCUMULATOR)?;
            step = self.call(open, op::CONDITIONAL, vec![filter, step, same])?;
        }
        let entries: Vec<MapEntry> = Vec::new();
        let init = if name.starts_with("transformMap") { Kind::Map(entries) } else { Kind::List(Vec::new()) };
        let looped = Loop { init, condition: Condition::Always, step, result: Ending::Accumulator };
        self.fold(open, target, names, looped)
    }

    fn fold(
        &mut self,
        open: u32,
        range: Expr,
        (variable, second): (Arc<str>, Option<Arc<str>>),
        looped: Loop,
    ) -> Result<Expr, Issue> {
        let init = self.node(open, looped.init)?;
        let condition = match looped.condition {
            Condition::Always => self.node(open, Kind::Literal(Literal::Bool(true)))?,
            Condition::WhileTrue => {
                let accumulator = self.ident(open, ACCUMULATOR)?;
                self.call(open, op::NOT_STRICTLY_FALSE, vec![accumulator])?
            }
            Condition::WhileFalse => {
                let accumulator = self.ident(open, ACCUMULATOR)?;
                let not = self.call(open, op::NOT, vec![accumulator])?;
                self.call(open, op::NOT_STRICTLY_FALSE, vec![not])?
            }
        };
        let mut result = self.ident(open, ACCUMULATOR)?;
        if matches!(looped.result, Ending::IsOne) {
            let one = self.node(open, Kind::Literal(Literal::Int(1)))?;
            result = self.call(open, op::EQUALS, vec![result, one])?;
        }
        let fold = Fold {
            range,
            variable,
            second,
            accumulator: ACCUMULATOR.into(),
            init,
            condition,
            step: looped.step,
            result,
        };
        self.node(open, Kind::Fold(Box::new(fold)))
    }

    /// A variable bound to a value for one expression.
    fn bind(&mut self, open: u32, name: &str, value: Expr, result: Expr) -> Result<Expr, Issue> {
        let fold = Fold {
            range: self.node(open, Kind::List(Vec::new()))?,
            variable: "#unused".into(),
            second: None,
            accumulator: name.into(),
            init: value,
            condition: self.node(open, Kind::Literal(Literal::Bool(false)))?,
            step: self.ident(open, name)?,
            result,
        };
        self.node(open, Kind::Fold(Box::new(fold)))
    }

    /// `target.hasValue() ? optional.of(bind(v, target.value(), f)) : optional.none()`
    fn optional_map(
        &mut self,
        open: u32,
        target: Expr,
        name: &str,
        mut args: Vec<Expr>,
    ) -> Result<Expr, Issue> {
        let Kind::Ident(variable) = args[0].kind.clone() else {
            let why = format!("{name}() variable name must be a simple identifier");
            return Err(Issue::at(args[0].position, why));
        };
        let again = self.copy(&target)?;
        let member = |parser: &mut Self, target: Expr, function: &str| {
            let call = Call { function: function.into(), target: Some(Box::new(target)), args: Vec::new() };
            parser.node(open, Kind::Call(call))
        };
        let has = member(self, target, "hasValue")?;
        let value = member(self, again, "value")?;
        let mut yes = self.bind(open, &variable, value, args.remove(1))?;
        if name == "optMap" {
            yes = self.call(open, "optional.of", vec![yes])?;
        }
        let none = self.call(open, "optional.none", Vec::new())?;
        self.call(open, op::CONDITIONAL, vec![has, yes, none])
    }

    fn sort_by(&mut self, open: u32, target: Expr, args: Vec<Expr>) -> Result<Expr, Issue> {
        const INPUT: &str = "@__sortBy_input__";
        if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct { .. }) {
            return Err(Issue::at(
                target.position,
                "sortBy can only be applied to a list, identifier, comprehension, call or select expression",
            ));
        }
        let input = self.ident(open, INPUT)?;
        let keys = self.list_macro(open, input, "map", args, 1)?;
        let sorted = self.ident(open, INPUT)?;
        let call =
            Call { function: op::SORT_BY_KEYS.into(), target: Some(Box::new(sorted)), args: vec![keys] };
        let sorted = self.node(open, Kind::Call(call))?;
        self.bind(open, INPUT, target, sorted)
    }

    /// The same tree with ids of its own. Copies of copies double each time, so their number is bounded.
    fn copy(&mut self, expr: &Expr) -> Result<Expr, Issue> {
        let mut copy = expr.clone();
        renumber(&mut copy, &mut self.next_id);
        if self.next_id > NODES {
            return Err(Issue::whole(format!("expression expands to more than {NODES} nodes")));
        }
        Ok(copy)
    }
}

fn renumber(expr: &mut Expr, next: &mut u32) {
    expr.id = *next;
    *next += 1;
    match &mut expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => renumber(operand, next),
        Kind::Call(call) => {
            call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(|e| renumber(e, next));
        }
        Kind::And(terms) | Kind::Or(terms) => terms.iter_mut().for_each(|e| renumber(e, next)),
        Kind::List(items) => items.iter_mut().for_each(|(e, _)| renumber(e, next)),
        Kind::Map(entries) => entries.iter_mut().for_each(|entry| {
            renumber(&mut entry.key, next);
            renumber(&mut entry.value, next);
        }),
        Kind::Struct { fields, .. } => fields.iter_mut().for_each(|f| renumber(&mut f.value, next)),
        Kind::Fold(fold) => {
            let Fold { range, init, condition, step, result, .. } = &mut **fold;
            [range, init, condition, step, result].into_iter().for_each(|e| renumber(e, next));
        }
    }
}

/// The names of one or two variables.
fn variable_names(args: &[Expr], complaint: &str) -> Result<(Arc<str>, Option<Arc<str>>), Issue> {
    let name = |arg: &Expr| match &arg.kind {
        Kind::Ident(name) if **name == *"__result__" => {
            Err(Issue::at(arg.position, "iteration variable overwrites accumulator variable"))
        }
        Kind::Ident(name) => Ok(Arc::clone(name)),
        _ => Err(Issue::at(arg.position, complaint)),
    };
    let first = name(&args[0])?;
    let second = args.get(1).map(name).transpose()?;
    if second.as_ref() == Some(&first) {
        return Err(Issue::at(args[1].position, format!("duplicate variable name: {first}")));
    }
    Ok((first, second))
}
