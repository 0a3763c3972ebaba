//! Sets of completion indexes and their text: `1,3-5,7`.

use std::collections::BTreeSet;

/// More than any legal Job has.
const MOST: u32 = 1_000_000;

/// Reads a set; what makes no sense is left out.
pub(super) fn parse(text: &str) -> BTreeSet<u32> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
            set.extend(first..=last.min(MOST));
        }
    }
    set
}

/// Writes a set, ranges of three and more shortened.
pub(super) fn format(set: &BTreeSet<u32>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut run: Option<(u32, u32)> = None;
    let mut end = |run: Option<(u32, u32)>| match run {
        Some((a, b)) if a == b => parts.push(a.to_string()),
        Some((a, b)) if a + 1 == b => parts.extend([a.to_string(), b.to_string()]),
        Some((a, b)) => parts.push(format!("{a}-{b}")),
        None => {}
    };
    for index in set {
        run = match run {
            Some((a, b)) if b + 1 == *index => Some((a, *index)),
            other => {
                end(other);
                Some((*index, *index))
            }
        };
    }
    end(run);
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        assert_eq!(format(&parse("1,3-5,7,8")), "1,3-5,7,8");
        assert_eq!(format(&BTreeSet::new()), "");
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(set in prop::collection::btree_set(0_u32..60, 0..40)) {
            prop_assert_eq!(parse(&format(&set)), set);
        }
    }
}
