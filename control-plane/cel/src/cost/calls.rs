//! What calls may cost and how large their results may be, by overload.

use super::actual::CHECK;
use super::estimate::Estimator;
use super::{LIST, REGEX, Range, TRAVERSAL};
use crate::ast::{Call, Expr, Kind, Literal};
use crate::types::Type;

type Estimate = (Range, Option<Range>);

const ONE: Range = Range::fixed(1);

/// The cost of a call beyond that of its arguments, and the size of its result if it has one.
pub(super) fn call(estimator: &Estimator<'_>, call: &Call, id: &str) -> Estimate {
    let size = |expr: &Expr| estimator.size_or_unknown(expr);
    let target = call.target.as_deref();
    let args = call.args.as_slice();
    if let Some(estimate) = lists(estimator, target, args, id) {
        return estimate;
    }
    let walk = |range: Range| (range.scaled(TRAVERSAL), None);
    match (&*call.function, target, args) {
        ("check", ..) => (Range::fixed(CHECK), None),
        ("fieldSelector" | "labelSelector", _, [text]) => {
            let length = size(text);
            let requirements = length.scaled(0.5).scaled(50.0);
            (Range::fixed(LIST).plus(length.scaled(TRAVERSAL)).plus(requirements), None)
        }
        ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes", Some(target), _) => {
            let list = size(target);
            match estimator.item_size(target) {
                Some((item, true)) => (list.times(ONE.plus(item.scaled(TRAVERSAL))), None),
                Some((_, false)) => (list, None),
                None if *call.function == *"includes" => (list, None),
                None => walk(list),
            }
        }
        ("url" | "jsonpatch.escapeKey", None, [text]) => (size(text).scaled(TRAVERSAL), Some(size(text))),
        ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(text), _) => {
            (size(text).scaled(TRAVERSAL), Some(size(text)))
        }
        ("replace", Some(text), [from, to, ..]) => {
            (size(text).scaled(2.0 * TRAVERSAL), Some(replaced(size(text), size(from), size(to))))
        }
        ("split", Some(text), [_, rest @ ..]) => {
            let max = match rest {
                [Expr { kind: Kind::Literal(Literal::Int(count)), .. }] => *count as u64,
                _ => size(text).max,
            };
            (size(text).scaled(2.0 * TRAVERSAL), Some(Range::new(0, max)))
        }
        ("join", Some(list), separator) => {
            let count = size(list);
            let item = estimator.item_size(list).map_or(Range::UNKNOWN, |(size, _)| size);
            let mut total = count.times(item);
            if let [separator] = separator {
                let between = Range::new(count.min.saturating_sub(1), count.max.saturating_sub(1));
                total = total.plus(size(separator).times(between));
            }
            (total.scaled(TRAVERSAL), Some(total))
        }
        ("find" | "findAll", Some(text), [regex, ..]) => {
            let cost = size(text).plus(ONE).scaled(TRAVERSAL).times(size(regex).scaled(REGEX));
            (cost, Some(Range::new(0, size(text).max)))
        }
        ("ip", ..) if id == "cidr_ip" => (ONE, None),
        (
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver",
            _,
            [text, ..],
        ) => walk(size(text)),
        ("ip.isCanonical", _, [text]) => (size(text).scaled(2.0 * TRAVERSAL), None),
        ("containsIP" | "containsCIDR", _, [other]) => {
            let address = Range::new(4, 16);
            let mut cost = address.plus(address).scaled(TRAVERSAL);
            if *call.function == *"containsCIDR" {
                cost = cost.plus(address.scaled(TRAVERSAL)).plus(ONE);
            }
            if id.ends_with("_string") {
                cost = cost.plus(size(other).scaled(TRAVERSAL));
            }
            (cost, None)
        }
        ("validate", _, [text]) => (size(text).scaled(TRAVERSAL).scaled(128.0 * REGEX), None),
        _ => by_id(estimator, target, args, id),
    }
}

fn by_id(estimator: &Estimator<'_>, target: Option<&Expr>, args: &[Expr], id: &str) -> Estimate {
    let size = |expr: &Expr| estimator.size_or_unknown(expr);
    match (id, target, args) {
        ("string_format", Some(target), _) => (size(target).scaled(TRAVERSAL), None),
        ("string_to_bytes", _, [text]) => {
            let size = size(text);
            (size.scaled(TRAVERSAL), Some(Range::new(size.min, size.max.saturating_mul(4))))
        }
        ("bytes_to_string", _, [bytes]) => {
            let size = size(bytes);
            (size.scaled(TRAVERSAL), Some(Range::new(size.min / 4, size.max)))
        }
        ("strings_quote", _, [text]) => {
            let size = size(text);
            let quoted = Range::new(size.min.saturating_add(2), size.max.saturating_mul(2).saturating_add(2));
            (size.scaled(TRAVERSAL), Some(quoted))
        }
        ("starts_with_string" | "ends_with_string", _, [text]) => (size(text).scaled(TRAVERSAL), None),
        ("in_list", _, [_, list]) => (size(list), None),
        ("matches_string", Some(text), [regex]) | ("matches", None, [text, regex]) => {
            (size(text).plus(ONE).scaled(TRAVERSAL).times(size(regex).scaled(REGEX)), None)
        }
        ("contains_string", Some(text), [part]) => {
            (size(text).scaled(TRAVERSAL).times(size(part).scaled(TRAVERSAL)), None)
        }
        ("add_list", _, [left, right]) => (ONE, Some(size(left).plus(size(right)))),
        ("add_string" | "add_bytes", _, [left, right]) => {
            let size = size(left).plus(size(right));
            (size.scaled(TRAVERSAL), Some(size))
        }
        ("equals", _, [left, right]) if is_library(estimator, left) => {
            let size = size(left).union(size(right));
            let named = |name: &str| estimator.checked.types[left.id as usize].to_string() == name;
            if named("kubernetes.URL") {
                (Range::new(1, size.max).scaled(TRAVERSAL), None)
            } else if named("kubernetes.NamedFormat") {
                (Range::new(1, 64).scaled(TRAVERSAL), None)
            } else {
                (ONE, None)
            }
        }
        (
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals",
            _,
            [left, right],
        ) => {
            let max = size(left).max.min(size(right).max);
            (Range::new(u64::from(max > 0), max).scaled(TRAVERSAL), None)
        }
        _ => (ONE, None),
    }
}

fn is_library(estimator: &Estimator<'_>, expr: &Expr) -> bool {
    match &estimator.checked.types[expr.id as usize] {
        Type::Object(object) => object.name.starts_with("kubernetes.") && object.fields.is_empty(),
        Type::Opaque(name, _) => name.starts_with("net."),
        _ => false,
    }
}

fn whole(expr: &Expr, otherwise: u64) -> u64 {
    match &expr.kind {
        Kind::Literal(Literal::Int(value)) => u64::try_from(*value).unwrap_or(0),
        _ => otherwise,
    }
}

/// Functions over lists and sets, with their own weights.
fn lists(estimator: &Estimator<'_>, target: Option<&Expr>, args: &[Expr], id: &str) -> Option<Estimate> {
    let size = |expr: &Expr| estimator.size_or_unknown(expr);
    let allocating =
        |factor: f64, size: Range| (size.scaled(factor).plus(Range::fixed(1 + LIST)), Some(size));
    let squared = |list: &Expr| {
        let text = estimator.item_size(list).is_some_and(|(_, text)| text);
        allocating(if text { 2.0 + TRAVERSAL } else { 2.0 }, size(list).times(size(list)))
    };
    Some(match (id, target, args) {
        ("list_slice", Some(target), [start, end]) => {
            let count = whole(end, size(target).max).saturating_sub(whole(start, 0));
            allocating(1.0, Range::fixed(count))
        }
        ("lists_range", _, [count]) => allocating(1.0, Range::fixed(whole(count, u64::MAX))),
        ("list_reverse", Some(target), _) => allocating(1.0, size(target)),
        ("list_flatten", Some(target), _) => allocating(1.0, size(target)),
        ("list_flatten_int", Some(target), [depth]) => {
            allocating(whole(depth, u64::MAX) as f64, size(target))
        }
        ("list_distinct", Some(target), _) => allocating(2.0, size(target).times(size(target))),
        ("list_sets_contains" | "list_sets_intersects" | "list_sets_equivalent", _, [left, right]) => {
            let factor = if id == "list_sets_equivalent" { 2.0 } else { 1.0 };
            (size(left).times(size(right)).scaled(factor).plus(ONE), None)
        }
        (id, Some(target), _) if id.starts_with("list_") && id.ends_with("_sort") => squared(target),
        (id, _, [keys]) if id.ends_with("_sortByAssociatedKeys") => squared(keys),
        _ => return None,
    })
}

/// The size of a text in which `from` became `to`.
fn replaced(text: Range, from: Range, to: Range) -> Range {
    let (count, kept) = if from.min == 0 {
        (text.max.saturating_add(1), text.max)
    } else if to.max <= from.min {
        (0, text.max)
    } else {
        (text.max.div_ceil(from.min), 0)
    };
    let max = count.saturating_mul(to.max).saturating_add(kept);
    let (count, kept) = if from.max == 0 {
        (text.min.saturating_add(1), text.min)
    } else if from.max <= to.min {
        (0, text.min)
    } else {
        (text.min.div_ceil(from.max), 0)
    };
    Range::new(count.saturating_mul(to.min).saturating_add(kept), max)
}
