//! Property names as identifiers: `a-b` is written `a__dash__b`.

/// Words that are no identifiers.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Is it a word of the language, that no variable can be named by?
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// The identifier of a property; `None` when expressions cannot name it.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    if is_reserved(name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

/// The property an identifier names; `None` for an escape that means nothing.
pub fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("__")
            && let Some(end) = after.find('_').filter(|end| *end > 0 && after[*end..].starts_with("__"))
        {
            match &after[..end] {
                "underscores" => out.push_str("__"),
                "dot" => out.push('.'),
                "dash" => out.push('-'),
                "slash" => out.push('/'),
                word if is_reserved(word) && end + 4 == name.len() => out.push_str(word),
                _ => return None,
            }
            rest = &after[end + 2..];
            continue;
        }
        let c = rest.chars().next()?;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for (name, want) in [
            ("a", "a"),
            ("a-b.c/d", "a__dash__b__dot__c__slash__d"),
            ("a__b", "a__underscores__b"),
            ("namespace", "__namespace__"),
            ("namespaces", "namespaces"),
            ("_a", "_a"),
        ] {
            assert_eq!(escape(name).as_deref(), Some(want));
            assert_eq!(unescape(want).as_deref(), Some(name));
        }
        for name in ["", "1a", "a b", "a$", "é"] {
            assert_eq!(escape(name), None, "{name}");
        }
        for name in ["__other__", "a__if__"] {
            assert_eq!(unescape(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn escaping_is_undone(name in "[a-z_.\\-/]{1,12}") {
            let escaped = escape(&name).unwrap();
            prop_assert_eq!(unescape(&escaped), Some(name));
        }
    }
}
