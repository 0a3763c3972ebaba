//! Rules of the spec of a Job: counts, indexes, and what its policies may say.

use std::collections::BTreeSet;

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;
use skep_api::selector::LabelSelector;

use super::LABELS;
use crate::kinds::pod::spec::template;
use crate::kinds::workload;
use crate::strategy::check::At;

const COUNTS: [&str; 6] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
];
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const MAX_RULES: usize = 20;
const MAX_CODES: usize = 255;
const MAX_PATTERNS: usize = 20;
const MAX_PARALLEL: i64 = 100_000;
const MAX_FAILED: i64 = 100_000;
const MAX_COMPLETIONS: i64 = 1_000_000;
const MAX_PARALLEL_MANY: i64 = 10_000;
const MAX_FAILED_MANY: i64 = 10_000;
const MAX_INDEXES: usize = 64 * 1024;
const MAX_MANAGED_BY: usize = 63;

/// The spec, its selector aside.
pub(in crate::kinds) fn spec(spec: &At<'_>) {
    for field in COUNTS {
        spec.child(field).non_negative();
    }
    failed_indexes(spec);
    managed_by(&spec.child("managedBy"));
    completion(spec);
    if spec.child("podFailurePolicy").is_set() {
        failure_policy(spec);
    }
    if spec.child("successPolicy").is_set() {
        success_policy(spec);
    }
    let replacement = spec.child("podReplacementPolicy");
    if spec.child("podFailurePolicy").is_set() {
        replacement.one_of(&["Failed"]);
    } else {
        replacement.one_of(&["Failed", "TerminatingOrFailed"]);
    }
    let pods = spec.child("template");
    template(&pods);
    let policy = pods.child("spec").child("restartPolicy");
    match policy.text() {
        "Always" | "" => policy.required("valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.child("podFailurePolicy").is_set() => {
            policy.invalid("only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        _ => policy.one_of(&["OnFailure", "Never"]),
    }
}

fn failed_indexes(spec: &At<'_>) {
    let most = spec.child("maxFailedIndexes");
    most.non_negative();
    if most.is_set() && !spec.child("backoffLimitPerIndex").is_set() {
        spec.child("backoffLimitPerIndex").required("when maxFailedIndexes is specified");
    }
}

fn managed_by(by: &At<'_>) {
    if !by.is_set() {
        return;
    }
    let path = by.text().split_once('/');
    match path {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            for detail in names::dns1123_subdomain(domain) {
                by.error(Error::invalid(by.path(), domain, detail));
            }
        }
        _ => by.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if by.text().len() > MAX_MANAGED_BY {
        by.error(Error::too_long(by.path(), MAX_MANAGED_BY));
    }
}

fn completion(spec: &At<'_>) {
    let mode = spec.child("completionMode");
    let (wanted, parallel) = (spec.child("completions"), spec.child("parallelism"));
    let (limit, most) = (spec.child("backoffLimitPerIndex"), spec.child("maxFailedIndexes"));
    match mode.text() {
        "" => {}
        "NonIndexed" => {
            for field in [&limit, &most] {
                if field.is_set() {
                    field.invalid("requires indexed completion mode");
                }
            }
        }
        "Indexed" => {
            if !wanted.is_set() {
                wanted.required("when completion mode is Indexed");
            }
            if parallel.int().is_some_and(|n| n > MAX_PARALLEL) {
                parallel.invalid(format!(
                    "must be less than or equal to {MAX_PARALLEL} when completion mode is Indexed"
                ));
            }
            indexed(spec, &wanted, &parallel, &most);
        }
        _ => mode.one_of(&["NonIndexed", "Indexed"]),
    }
}

fn indexed(spec: &At<'_>, wanted: &At<'_>, parallel: &At<'_>, most: &At<'_>) {
    let completions = wanted.int().unwrap_or(0);
    if let Some(failed) = most.int() {
        if completions < failed {
            most.invalid("must be less than or equal to completions");
        }
        if failed > MAX_FAILED {
            most.invalid(format!("must be less than or equal to {MAX_FAILED}"));
        }
    }
    if completions > MAX_COMPLETIONS {
        wanted.invalid(format!("must be less than or equal to {MAX_COMPLETIONS}"));
    }
    if !spec.child("backoffLimitPerIndex").is_set() || completions <= MAX_PARALLEL {
        return;
    }
    match most.int() {
        None => most.required(format!("must be specified when completions is above {MAX_PARALLEL}")),
        Some(failed) if failed > MAX_FAILED_MANY => most.invalid(format!(
            "must be less than or equal to {MAX_FAILED_MANY} when completions are above {MAX_PARALLEL} and used with backoff limit per index"
        )),
        Some(_) => {}
    }
    if parallel.int().is_some_and(|n| n > MAX_PARALLEL_MANY) {
        parallel.invalid(format!(
            "must be less than or equal to {MAX_PARALLEL_MANY} when completions are above {MAX_PARALLEL} and used with backoff limit per index"
        ));
    }
}

fn failure_policy(spec: &At<'_>) {
    let rules = spec.child("podFailurePolicy").child("rules");
    if rules.items().len() > MAX_RULES {
        rules.error(Error::too_many(rules.path(), rules.items().len(), MAX_RULES));
    }
    let pods = spec.child("template").child("spec");
    let containers: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pods.child(list).items())
        .map(|container| container.child("name").text())
        .collect();
    for rule in rules.items() {
        let action = rule.child("action");
        if action.require() {
            action.one_of(ACTIONS);
        }
        if action.text() == "FailIndex" && !spec.child("backoffLimitPerIndex").is_set() {
            action.invalid("requires the backoffLimitPerIndex to be set");
        }
        let (codes, conditions) = (rule.child("onExitCodes"), rule.child("onPodConditions"));
        if codes.is_set() {
            exit_codes(&codes, &containers);
        }
        let items = conditions.items();
        if items.len() > MAX_PATTERNS {
            conditions.error(Error::too_many(conditions.path(), items.len(), MAX_PATTERNS));
        }
        for pattern in &items {
            let kind = pattern.child("type");
            kind.invalid_text(names::qualified_name(kind.text()));
            pattern.child("status").require_one_of(&["False", "True", "Unknown"]);
        }
        let complain = |detail: &str| rule.invalid(detail);
        match (codes.is_set(), items.is_empty()) {
            (true, false) => complain("specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, true) => complain("specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}

fn exit_codes(codes: &At<'_>, containers: &BTreeSet<&str>) {
    let operator = codes.child("operator");
    operator.require_one_of(&["In", "NotIn"]);
    let name = codes.child("containerName");
    if name.is_set() && !containers.contains(name.text()) {
        name.invalid("must be one of the container or initContainer names in the pod template");
    }
    let values = codes.child("values");
    let items = values.items();
    if items.is_empty() {
        values.error(Error::invalid(
            values.path(),
            Value::Array(Vec::new()),
            "at least one value is required",
        ));
    } else if items.len() > MAX_CODES {
        values.error(Error::too_many(values.path(), items.len(), MAX_CODES));
    }
    let mut seen = BTreeSet::new();
    let mut ordered = true;
    let mut last = i64::MIN;
    for item in &items {
        let code = item.int().unwrap_or(0);
        if code == 0 && operator.text() == "In" {
            item.invalid("must not be 0 for the In operator");
        }
        if seen.insert(code) {
            ordered &= last < code;
            last = code;
        } else {
            item.duplicate();
        }
    }
    if !ordered {
        values.invalid("must be ordered");
    }
}

fn success_policy(spec: &At<'_>) {
    let policy = spec.child("successPolicy");
    if spec.child("completionMode").text() != "Indexed" {
        policy.invalid("requires indexed completion mode");
        return;
    }
    let rules = policy.child("rules");
    let items = rules.items();
    if items.is_empty() {
        rules.required("at least one rules must be specified when the successPolicy is specified");
    }
    if items.len() > MAX_RULES {
        rules.error(Error::too_many(rules.path(), items.len(), MAX_RULES));
    }
    let completions = spec.child("completions").int().unwrap_or(0);
    for rule in &items {
        let (count, indexes) = (rule.child("succeededCount"), rule.child("succeededIndexes"));
        if !count.is_set() && !indexes.is_set() {
            rule.required("at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = None;
        if indexes.is_set() {
            if indexes.text().len() > MAX_INDEXES {
                indexes.error(Error::too_long(indexes.path(), MAX_INDEXES));
            }
            match intervals(indexes.text(), completions) {
                Ok(found) => total = Some(found.iter().map(|(first, last)| last - first + 1).sum::<i64>()),
                Err(detail) => indexes.invalid(format!("error parsing succeededIndexes: {detail}")),
            }
        }
        count.non_negative();
        if let Some(wanted) = count.int() {
            if wanted > completions {
                count.invalid(format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                ));
            }
            if let Some(total) = total
                && wanted > total
            {
                count.invalid(format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                ));
            }
        }
    }
}

/// The intervals that `1,3-5` names; they must rise and lie below the completions.
pub(super) fn intervals(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let (mut found, mut last) = (Vec::new(), -1);
    if text.is_empty() {
        return Ok(found);
    }
    for part in text.split(',') {
        let parse = |number: &str| {
            number
                .parse::<i64>()
                .map_err(|_| format!("cannot convert string to integer for index: {number:?}"))
                .and_then(|index| {
                    if (0..completions).contains(&index) {
                        Ok(index)
                    } else {
                        Err(format!("too large index: {number:?}"))
                    }
                })
        };
        let (first, end) = match part.split_once('-') {
            None => (parse(part)?, None),
            Some((first, end)) if !end.contains('-') => (parse(first)?, Some(parse(end)?)),
            Some(_) => {
                return Err(format!(
                    "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        if first <= last {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        if let Some(end) = end.filter(|end| *end <= first) {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        last = end.unwrap_or(first);
        found.push((first, last));
    }
    Ok(found)
}

/// The Job as a whole: its spec, and a selector that selects what the template makes.
pub(super) fn job(root: &At<'_>) {
    let spec = root.child("spec");
    self::spec(&spec);
    let selector = spec.child("selector");
    if !selector.is_set() {
        selector.required("");
        workload::no_match(&spec);
        return;
    }
    selector.selector();
    if let Ok(parsed) = LabelSelector::from_object(Some(selector.value())) {
        workload::matches(&spec, &parsed);
    }
}

/// Labels and selector that the system makes are as it makes them.
pub(super) fn generated_selector(root: &At<'_>) {
    let spec = root.child("spec");
    let selector = spec.child("selector");
    if spec.child("manualSelector").flag() || !selector.is_set() {
        return;
    }
    let metadata = spec.child("template").child("metadata");
    let labels = metadata.child("labels");
    let mut made = serde_json::Map::new();
    for (pair, own) in LABELS.iter().zip(["uid", "name"]) {
        let own = root.child("metadata").child(own).text();
        for key in pair {
            match labels.child(key) {
                label if !label.is_set() => {
                    metadata.error(Error::required(&labels.path().key(key), format!("must be '{own}'")));
                }
                label if label.text() != own => {
                    label.error(Error::invalid(
                        &labels.path().key(key),
                        labels.value().clone(),
                        format!("must be '{own}'"),
                    ));
                }
                _ => {}
            }
            made.insert((*key).to_owned(), own.into());
        }
    }
    if let Ok(parsed) = LabelSelector::from_object(Some(selector.value()))
        && !parsed.matches(Some(&made))
    {
        selector.invalid("`selector` not auto-generated");
    }
}

/// The pods of an indexed job are named after it, and their names are names of hosts.
pub(super) fn host_names(root: &At<'_>) {
    let spec = root.child("spec");
    let completions = spec.child("completions").int().unwrap_or(0);
    if spec.child("completionMode").text() != "Indexed" || completions == 0 {
        return;
    }
    let name = root.child("metadata").child("name");
    let last = format!("{}-{}", name.text(), completions - 1);
    if !names::dns1123_label(&last).is_empty() {
        name.invalid(format!("will not able to create pod with invalid DNS label: {last}"));
    }
}
