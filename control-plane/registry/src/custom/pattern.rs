//! Patterns of schemas: written for Go's regular expressions, run by ours.
//!
//! The two agree but for classes: `\d`, `\w`, `\s` and `\b` know ASCII only there, and inside brackets
//! `[`, `&&`, `--` and `~~` are plain characters.

use regex::{Regex, RegexBuilder};

/// A compiled pattern takes no more memory.
const LARGEST: usize = 4 * 1024 * 1024;

/// Compiles a pattern.
pub(crate) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translate(pattern)).size_limit(LARGEST).build()
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    // The character before, inside a class: doubled, some of them are operators here.
    let mut before = None;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let Some(escaped) = chars.next() else {
                    out.push('\\');
                    break;
                };
                match escaped {
                    'd' => out.push_str("[0-9]"),
                    'D' => out.push_str("[^0-9]"),
                    'w' => out.push_str("[0-9A-Za-z_]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    's' => out.push_str("[\\t\\n\\f\\r ]"),
                    'S' => out.push_str("[^\\t\\n\\f\\r ]"),
                    'b' if !in_class => out.push_str("(?-u:\\b)"),
                    other => out.extend(['\\', other]),
                }
                before = None;
                continue;
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
                // A bracket that comes first closes nothing.
                if chars.peek() == Some(&']') {
                    chars.next();
                    out.push_str("\\]");
                }
                before = None;
                continue;
            }
            '[' if chars.peek() == Some(&':') => {
                out.push('[');
                // `[:alpha:]`, taken over whole.
                for next in chars.by_ref() {
                    out.push(next);
                    if next == ']' {
                        break;
                    }
                }
            }
            '[' => out.push_str("\\["),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class && before == Some(c) => out.extend(['\\', c]),
            '-' if in_class && before == Some('-') => out.push_str("\\-"),
            other => out.push(other),
        }
        before = in_class.then_some(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\w.-]+$", "a_b.c-d", true),
            (r"^[[a-z]+$", "[a", true),
            (r"^[^]]+$", "a]", false),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", "a-b", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "a.b-c", true),
        ];
        for (pattern, text, matches) in cases {
            let regex = compile(pattern).expect(pattern);
            assert_eq!(regex.is_match(text), matches, "{pattern} {text}");
        }
        assert!(compile("(").is_err());
    }
}
