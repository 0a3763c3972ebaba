//! Text to tokens.

use crate::source::Issue;

/// A token and where it begins, in characters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) position: u32,
    pub(crate) kind: TokenKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TokenKind {
    Ident(String),
    /// `` `a-b` ``: a field name that is no identifier.
    Quoted(String),
    Int(String),
    Uint(String),
    Double(String),
    String(String),
    Bytes(Vec<u8>),
    /// Operators, brackets, and the words `in`, `true`, `false`, `null`.
    Punct(&'static str),
    End,
}

impl TokenKind {
    /// How errors show it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Ident(text) | Self::Int(text) | Self::Double(text) => text.clone(),
            Self::Uint(text) => format!("{text}u"),
            Self::Quoted(text) => format!("`{text}`"),
            Self::String(text) => format!("{text:?}"),
            Self::Bytes(_) => "b\"...\"".to_owned(),
            Self::Punct(text) => (*text).to_owned(),
            Self::End => "<EOF>".to_owned(),
        }
    }
}

/// Longest first, so that `==` is not read as `=`.
const PUNCTUATION: [&str; 25] = [
    "&&", "||", "==", "!=", "<=", ">=", "(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "+", "-", "*", "/",
    "%", "<", ">", "!", "=",
];

const WORDS: [&str; 4] = ["in", "true", "false", "null"];

/// The tokens of a text, the last of which is [`TokenKind::End`].
pub(crate) fn tokens(text: &[char]) -> Result<Vec<Token>, Issue> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let position = lexer.position();
        let kind = lexer.token()?;
        let end = kind == TokenKind::End;
        tokens.push(Token { position, kind });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn position(&self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    fn peek(&self, ahead: usize) -> char {
        self.text.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn take(&mut self, accept: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.at < self.text.len() && accept(self.text[self.at]) {
            self.at += 1;
        }
        self.text[start..self.at].iter().collect()
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}'));
            if self.peek(0) != '/' || self.peek(1) != '/' {
                return;
            }
            self.take(|c| c != '\n');
        }
    }

    fn token(&mut self) -> Result<TokenKind, Issue> {
        if self.at >= self.text.len() {
            return Ok(TokenKind::End);
        }
        let c = self.peek(0);
        if let Some(kind) = self.string()? {
            return Ok(kind);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let word = self.take(|c| c.is_ascii_alphanumeric() || c == '_');
            return Ok(match WORDS.iter().find(|known| **known == word) {
                Some(known) => TokenKind::Punct(known),
                None => TokenKind::Ident(word),
            });
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return Ok(self.number());
        }
        if c == '`' {
            let start = self.position();
            self.at += 1;
            let name = self.take(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c));
            if self.peek(0) != '`' || name.is_empty() {
                return Err(Issue::at(start, "Syntax error: token recognition error at: '`'"));
            }
            self.at += 1;
            return Ok(TokenKind::Quoted(name));
        }
        for known in PUNCTUATION {
            if known.chars().enumerate().all(|(ahead, want)| self.peek(ahead) == want) {
                if known == "=" {
                    break;
                }
                self.at += known.len();
                return Ok(TokenKind::Punct(known));
            }
        }
        Err(Issue::at(self.position(), format!("Syntax error: token recognition error at: '{c}'")))
    }

    fn number(&mut self) -> TokenKind {
        if self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            let digits = format!("0x{}", self.take(|c| c.is_ascii_hexdigit()));
            return self.integer(digits);
        }
        let mut text = self.take(|c| c.is_ascii_digit());
        let mut double = false;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            double = true;
            self.at += 1;
            text.push('.');
            text.push_str(&self.take(|c| c.is_ascii_digit()));
        }
        let sign = usize::from(matches!(self.peek(1), '+' | '-'));
        if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
            double = true;
            for _ in 0..=sign {
                text.push(self.peek(0));
                self.at += 1;
            }
            text.push_str(&self.take(|c| c.is_ascii_digit()));
        }
        if double { TokenKind::Double(text) } else { self.integer(text) }
    }

    fn integer(&mut self, digits: String) -> TokenKind {
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return TokenKind::Uint(digits);
        }
        TokenKind::Int(digits)
    }

    /// A string or bytes literal with its prefix, if one begins here.
    fn string(&mut self) -> Result<Option<TokenKind>, Issue> {
        let start = self.position();
        let (mut raw, mut bytes, mut prefix) = (false, false, 0);
        loop {
            match self.peek(prefix) {
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                '"' | '\'' => break,
                _ => return Ok(None),
            }
            prefix += 1;
        }
        self.at += prefix;
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        self.at += if triple { 3 } else { 1 };
        let mut out = Vec::new();
        let unfinished = || Issue::at(start, "Syntax error: token recognition error: unterminated string");
        loop {
            if self.at >= self.text.len() {
                return Err(unfinished());
            }
            let c = self.peek(0);
            if c == quote && (!triple || (self.peek(1) == quote && self.peek(2) == quote)) {
                self.at += if triple { 3 } else { 1 };
                break;
            }
            if !triple && matches!(c, '\n' | '\r') {
                return Err(unfinished());
            }
            if c == '\\' && !raw {
                self.escape(bytes, &mut out)?;
            } else {
                push(&mut out, c);
                self.at += 1;
            }
        }
        if bytes {
            return Ok(Some(TokenKind::Bytes(out)));
        }
        match String::from_utf8(out) {
            Ok(text) => Ok(Some(TokenKind::String(text))),
            Err(_) => Err(Issue::at(start, "invalid unicode in string literal")),
        }
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), Issue> {
        let position = self.position();
        let bad = |why: &str| Issue::at(position, format!("Syntax error: {why}"));
        let c = self.peek(1);
        self.at += 2;
        let simple = match c {
            'a' => Some(0x07),
            'b' => Some(0x08),
            'f' => Some(0x0c),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(0x0b),
            '\\' | '\'' | '"' | '`' | '?' => Some(c as u8),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            return Ok(());
        }
        let (digits, radix) = match c {
            'x' | 'X' => (2, 16),
            'u' if !bytes => (4, 16),
            'U' if !bytes => (8, 16),
            '0'..='3' => (3, 8),
            _ => return Err(bad("unable to unescape string")),
        };
        if radix == 8 {
            self.at -= 1;
        }
        let mut value = 0_u32;
        for _ in 0..digits {
            let digit = self.peek(0).to_digit(radix).ok_or_else(|| bad("unable to unescape string"))?;
            value = value.wrapping_mul(radix).wrapping_add(digit);
            self.at += 1;
        }
        if bytes {
            out.push(u8::try_from(value).map_err(|_| bad("octal value out of range"))?);
        } else {
            push(out, char::from_u32(value).ok_or_else(|| bad("invalid unicode code point"))?);
        }
        Ok(())
    }
}

fn push(out: &mut Vec<u8>, c: char) {
    let mut buffer = [0; 4];
    out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
}
