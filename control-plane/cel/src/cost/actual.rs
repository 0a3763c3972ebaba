//! What a call did cost.

use super::{LIST, REGEX, TRAVERSAL, scale};
use crate::value::{Library, Value};

/// An authorization check: so dear that an expression can afford two.
pub(super) const CHECK: u64 = 350_000;

/// The cost of a call; `args` begin with the receiver.
pub(crate) fn call(function: &str, id: &str, args: &[Value<'_>], result: &Value<'_>) -> u64 {
    let size = |index: usize| args.get(index).map_or(1, Value::size);
    let traversal = |size: u64| scale(size, TRAVERSAL);
    if let Some(cost) = by_id(id, args, result) {
        return cost;
    }
    match function {
        "check" => CHECK,
        "fieldSelector" | "labelSelector" => {
            let length = size(1);
            LIST.saturating_add(traversal(length)).saturating_add(scale(scale(length, 0.5), 50.0))
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => {
            args.first().map_or(1, walk)
        }
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => traversal(size(0)),
        "ip" if id != "cidr_ip" => traversal(size(0)),
        "replace" | "split" | "ip.isCanonical" => scale(size(0), 2.0 * TRAVERSAL),
        "join" => scale(result.size(), 2.0 * TRAVERSAL),
        "find" | "findAll" => {
            scale(size(0).saturating_add(1), TRAVERSAL).saturating_mul(scale(size(1), REGEX))
        }
        "containsIP" | "containsCIDR" => {
            let mut cost = scale(size(0) * 2, TRAVERSAL);
            if function == "containsCIDR" {
                cost += traversal(size(0)) + 1;
            }
            if id.ends_with("_string") {
                cost += traversal(size(1));
            }
            cost
        }
        "validate" => {
            let regex = match args.first() {
                Some(Value::Library(Library::Format(format))) => format.regex_size,
                _ => 1,
            };
            scale(size(1).saturating_add(1), TRAVERSAL).saturating_mul(scale(regex, REGEX))
        }
        "_==_" if matches!(args.first(), Some(Value::Library(_))) => 1,
        _ => 1,
    }
}

fn by_id(id: &str, args: &[Value<'_>], result: &Value<'_>) -> Option<u64> {
    let size = |index: usize| args.get(index).map_or(1, Value::size);
    let list = |factor: f64, size: u64| 1 + LIST + (size as f64 * factor) as u64;
    Some(match id {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string"
        | "strings_quote" | "string_format" => scale(size(0), TRAVERSAL),
        "in_list" => size(1),
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes" => scale(size(0).min(size(1)), TRAVERSAL),
        "equals" | "not_equals" if !matches!(args.first(), Some(Value::Library(_))) => {
            scale(size(0).min(size(1)), TRAVERSAL)
        }
        "add_string" | "add_bytes" => scale(size(0).saturating_add(size(1)), TRAVERSAL),
        "matches_string" => scale(size(0).saturating_add(1), TRAVERSAL).saturating_mul(scale(size(1), REGEX)),
        "contains_string" => scale(size(0), TRAVERSAL).saturating_mul(scale(size(1), TRAVERSAL)),
        "list_slice" | "lists_range" | "list_reverse" => list(1.0, result.size()),
        "list_flatten" => list(1.0, size(0)),
        "list_flatten_int" => match args.get(1) {
            Some(Value::Int(depth)) => list((*depth).max(0) as f64, size(0)),
            _ => list(1.0, size(0)),
        },
        "list_distinct" => self_compare(args.first()),
        "list_sets_contains" | "list_sets_intersects" => 1 + size(0).saturating_mul(size(1)),
        "list_sets_equivalent" => 1 + size(0).saturating_mul(size(1)).saturating_mul(2),
        id if id.starts_with("list_") && id.ends_with("_sort") => self_compare(args.first()),
        id if id.ends_with("_sortByAssociatedKeys") => self_compare(args.get(1)),
        _ => return None,
    })
}

fn self_compare(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 };
    let mut factor = 2.0;
    if matches!(list.get(0), Some(Value::String(_) | Value::Bytes(_))) {
        factor += TRAVERSAL;
    }
    let size = (list.len() as u64).saturating_mul(list.len() as u64);
    ((size as f64 * factor) as u64).saturating_add(1 + LIST)
}

/// The cost of walking over all of a value. Lists that share their items are cut short: what counts as
/// more than any limit need not be counted to the end.
fn walk(value: &Value<'_>) -> u64 {
    fn below(value: &Value<'_>, left: &mut u64, depth: u32) -> u64 {
        if *left == 0 || depth == 0 {
            return u64::MAX / 2;
        }
        *left -= 1;
        match value {
            Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
            Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
            Value::List(list) => {
                list.iter().fold(0, |sum: u64, item| sum.saturating_add(below(&item, left, depth - 1)))
            }
            Value::Map(map) => map.iter().fold(0, |sum: u64, (key, value)| {
                sum.saturating_add(below(&key.value(), left, depth - 1)).saturating_add(below(
                    &value,
                    left,
                    depth - 1,
                ))
            }),
            _ => 1,
        }
    }
    below(value, &mut 2_000_000, 200)
}
