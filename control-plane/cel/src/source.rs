//! The text of an expression, and errors that point into it.
//!
//! Columns count characters, as the errors clients know do.

use std::fmt;

/// One complaint about an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Offset in characters; `None` when it is about the whole.
    pub position: Option<u32>,
    /// What is wrong.
    pub message: String,
}

impl Issue {
    pub(crate) fn at(position: u32, message: impl Into<String>) -> Self {
        Self { position: Some(position), message: message.into() }
    }

    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self { position: None, message: message.into() }
    }
}

/// Why an expression was refused: every complaint, with the line it is about, as API clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileErrors {
    /// The complaints, in the order of the text.
    pub issues: Vec<Issue>,
    text: String,
}

impl CompileErrors {
    pub(crate) fn new(text: &str, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| issue.position);
        issues.dedup();
        issues.truncate(100);
        let text = text.chars().take(SHOWN * 4).collect();
        Self { issues, text }
    }
}

/// A longer line is not shown below its error.
const SHOWN: usize = 16384;

impl std::error::Error for CompileErrors {}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            show(f, &self.text, issue)?;
        }
        Ok(())
    }
}

fn show(f: &mut fmt::Formatter<'_>, text: &str, issue: &Issue) -> fmt::Result {
    let Some(position) = issue.position else {
        return write!(f, "ERROR: <input>:-1:0: {}", issue.message);
    };
    let (mut line, mut column, mut left) = (1, 0, position);
    let mut snippet = "";
    for part in text.split('\n') {
        let length = u32::try_from(part.chars().count()).unwrap_or(u32::MAX);
        snippet = part;
        column = left.min(length);
        if left <= length {
            break;
        }
        left -= length + 1;
        line += 1;
    }
    write!(f, "ERROR: <input>:{line}:{}: {}", column + 1, issue.message)?;
    if snippet.chars().count() > SHOWN {
        return Ok(());
    }
    write!(f, "\n | {}\n | ", snippet.replace('\t', " "))?;
    let mut characters = snippet.chars();
    for c in characters.by_ref().take(column as usize) {
        f.write_str(if c.len_utf8() > 1 { "\u{ff0e}" } else { "." })?;
    }
    let wide = characters.next().is_some_and(|c| c.len_utf8() > 1);
    f.write_str(if wide { "\u{ff3e}" } else { "^" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_point_at_their_line() {
        let errors = CompileErrors::new(
            "a &&\n  é + b",
            vec![Issue::at(9, "second"), Issue::at(0, "first"), Issue::whole("none")],
        );
        let want = "ERROR: <input>:-1:0: none\n\
            ERROR: <input>:1:1: first\n | a &&\n | ^\n\
            ERROR: <input>:2:5: second\n |   é + b\n | ..\u{ff0e}.^";
        assert_eq!(errors.to_string(), want);
    }
}
