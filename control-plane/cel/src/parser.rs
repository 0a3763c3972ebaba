//! Tokens to a tree, by precedence climbing.
//!
//! An expression comes from outside: its length, the nesting of its text and the height of its tree are
//! bounded here, and everything after relies on that.

mod macros;

use std::sync::Arc;

use crate::ast::{Call, Expr, FieldInit, Kind, Literal, MapEntry, op};
use crate::lexer::{Token, TokenKind, tokens};
use crate::source::Issue;

/// No expression is longer, in characters.
const LENGTH: usize = 100_000;
/// No expression nests deeper.
const DEPTH: u16 = 250;

/// Identifiers the language keeps for itself.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
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
];

/// A parsed expression.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) root: Expr,
    /// All ids are below.
    pub(crate) nodes: u32,
}

/// Parses a text.
pub(crate) fn parse(text: &str) -> Result<Tree, Issue> {
    let length = text.chars().take(LENGTH + 1).count();
    if length > LENGTH {
        let size = text.chars().count();
        return Err(Issue::whole(format!(
            "expression code point size exceeds limit: size: {size}, limit {LENGTH}"
        )));
    }
    let characters: Vec<char> = text.chars().collect();
    let mut parser = Parser { tokens: tokens(&characters)?, at: 0, next_id: 0, depth: 0 };
    let root = parser.expr()?;
    match parser.peek() {
        TokenKind::End => Ok(Tree { root, nodes: parser.next_id }),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    next_id: u32,
    depth: u16,
}

/// What may begin an operand, as errors list it.
const OPERAND: &str = "'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
     STRING, BYTES, IDENTIFIER";

impl Parser {
    fn peek(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    fn position(&self) -> u32 {
        self.tokens[self.at].position
    }

    fn advance(&mut self) -> TokenKind {
        let kind = self.tokens[self.at].kind.clone();
        // The last token is the end; it stays.
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        kind
    }

    fn is(&self, text: &str) -> bool {
        matches!(self.peek(), TokenKind::Punct(found) if *found == text)
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.is(text);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, text: &str) -> Result<(), Issue> {
        if self.take(text) { Ok(()) } else { Err(self.unexpected(&format!("'{text}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> Issue {
        let text = self.peek().text();
        let word = if wanted == "<EOF>" { "extraneous" } else { "mismatched" };
        Issue::at(self.position(), format!("Syntax error: {word} input '{text}' expecting {wanted}"))
    }

    /// A node; fails when the tree gets too high.
    fn node(&mut self, position: u32, kind: Kind) -> Result<Expr, Issue> {
        let mut node = Expr { id: self.next_id, position, height: 0, kind };
        self.next_id += 1;
        let below = node.children().into_iter().map(|child| child.height).max().unwrap_or(0);
        node.height = below + 1;
        if node.height > DEPTH { Err(too_deep()) } else { Ok(node) }
    }

    fn call(&mut self, position: u32, function: &str, args: Vec<Expr>) -> Result<Expr, Issue> {
        self.node(position, Kind::Call(Call { function: function.into(), target: None, args }))
    }

    fn expr(&mut self) -> Result<Expr, Issue> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(too_deep());
        }
        let condition = self.binary(0)?;
        let position = self.position();
        let expr = if self.take("?") {
            let yes = self.binary(0)?;
            self.expect(":")?;
            let no = self.expr()?;
            self.call(position, op::CONDITIONAL, vec![condition, yes, no])?
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn operator(&self) -> Option<(u8, &'static str)> {
        let TokenKind::Punct(text) = self.peek() else { return None };
        Some(match *text {
            "||" => (1, op::OR),
            "&&" => (2, op::AND),
            "<" => (3, op::LESS),
            "<=" => (3, op::LESS_EQUALS),
            ">" => (3, op::GREATER),
            ">=" => (3, op::GREATER_EQUALS),
            "==" => (3, op::EQUALS),
            "!=" => (3, op::NOT_EQUALS),
            "in" => (3, op::IN),
            "+" => (4, op::ADD),
            "-" => (4, op::SUBTRACT),
            "*" => (5, op::MULTIPLY),
            "/" => (5, op::DIVIDE),
            "%" => (5, op::MODULO),
            _ => return None,
        })
    }

    /// Operators that bind tighter than `above`.
    fn binary(&mut self, above: u8) -> Result<Expr, Issue> {
        let mut left = self.unary()?;
        while let Some((strength, function)) = self.operator() {
            if strength <= above {
                break;
            }
            let position = self.position();
            self.advance();
            let right = self.binary(strength)?;
            left = match (function, left.kind) {
                (op::AND, Kind::And(mut terms)) => {
                    terms.push(right);
                    self.node(left.position, Kind::And(terms))?
                }
                (op::OR, Kind::Or(mut terms)) => {
                    terms.push(right);
                    self.node(left.position, Kind::Or(terms))?
                }
                (function, kind) => {
                    let left = Expr { kind, ..left };
                    match function {
                        op::AND => self.node(position, Kind::And(vec![left, right]))?,
                        op::OR => self.node(position, Kind::Or(vec![left, right]))?,
                        _ => self.call(position, function, vec![left, right])?,
                    }
                }
            };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Issue> {
        let position = self.position();
        for (text, function) in [("!", op::NOT), ("-", op::NEGATE)] {
            let mut count = 0;
            while self.is(text) {
                let number =
                    matches!(self.tokens[self.at + 1].kind, TokenKind::Int(_) | TokenKind::Double(_));
                if text == "-" && number {
                    break;
                }
                self.advance();
                count += 1;
            }
            if count > 0 {
                let operand = self.member()?;
                return if count % 2 == 0 {
                    Ok(operand)
                } else {
                    self.call(position, function, vec![operand])
                };
            }
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, Issue> {
        let mut operand = self.primary()?;
        loop {
            let position = self.position();
            if self.take(".") {
                let optional = self.take("?");
                let (field, quoted) = self.field_name()?;
                if self.is("(") && !optional && !quoted {
                    let open = self.position();
                    let args = self.arguments()?;
                    operand = self.member_call(open, operand, &field, args)?;
                } else {
                    let operand_box = Box::new(operand);
                    let field = field.into();
                    let select = Kind::Select { operand: operand_box, field, test: false, optional };
                    operand = self.node(position, select)?;
                }
            } else if self.take("[") {
                let function = if self.take("?") { op::OPTIONAL_INDEX } else { op::INDEX };
                let index = self.expr()?;
                self.expect("]")?;
                operand = self.call(position, function, vec![operand, index])?;
            } else if self.is("{") {
                let Some(name) = operand.qualified_name() else { return Ok(operand) };
                operand = self.structure(&name)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn field_name(&mut self) -> Result<(String, bool), Issue> {
        match self.peek() {
            TokenKind::Ident(_) | TokenKind::Quoted(_) => {}
            _ => return Err(self.unexpected("IDENTIFIER")),
        }
        Ok(match self.advance() {
            TokenKind::Quoted(name) => (name, true),
            other => (other.text(), false),
        })
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, Issue> {
        self.expect("(")?;
        let mut args = Vec::new();
        while !self.is(")") {
            args.push(self.expr()?);
            if !self.take(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(args)
    }

    fn primary(&mut self) -> Result<Expr, Issue> {
        let position = self.position();
        if self.take("(") {
            let inner = self.expr()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.is("[") {
            return self.list();
        }
        if self.is("{") {
            return self.map();
        }
        let leading = self.take(".");
        if leading || matches!(self.peek(), TokenKind::Ident(_)) {
            if !matches!(self.peek(), TokenKind::Ident(_)) {
                return Err(self.unexpected("IDENTIFIER"));
            }
            let name = self.advance().text();
            if RESERVED.contains(&name.as_str()) || name == "while" {
                return Err(Issue::at(position, format!("reserved identifier: {name}")));
            }
            if self.is("(") {
                let open = self.position();
                let args = self.arguments()?;
                return self.global_call(open, &name, args);
            }
            return self.node(position, Kind::Ident(name.into()));
        }
        let literal = self.literal(position)?;
        self.node(position, Kind::Literal(literal))
    }

    fn literal(&mut self, position: u32) -> Result<Literal, Issue> {
        let negative = self.take("-");
        let wrong = match self.peek() {
            TokenKind::Int(_) | TokenKind::Double(_) => false,
            TokenKind::Uint(_) | TokenKind::String(_) | TokenKind::Bytes(_) => negative,
            TokenKind::Punct("true" | "false" | "null") => negative,
            _ => true,
        };
        if wrong {
            return Err(self.unexpected(&format!("{{{OPERAND}}}")));
        }
        let invalid = |kind: &str| Issue::at(position, format!("invalid {kind} literal"));
        Ok(match self.advance() {
            TokenKind::Int(digits) => Literal::Int(integer(&digits, negative).ok_or_else(|| invalid("int"))?),
            TokenKind::Uint(digits) => {
                let (digits, radix) = radix(&digits);
                Literal::Uint(u64::from_str_radix(digits, radix).map_err(|_| invalid("uint"))?)
            }
            TokenKind::Double(text) => {
                let value: f64 = text.parse().map_err(|_| invalid("double"))?;
                if !value.is_finite() {
                    return Err(invalid("double"));
                }
                Literal::Double(if negative { -value } else { value })
            }
            TokenKind::String(text) => Literal::String(text.into()),
            TokenKind::Bytes(bytes) => Literal::Bytes(bytes.into()),
            TokenKind::Punct("true") => Literal::Bool(true),
            TokenKind::Punct("false") => Literal::Bool(false),
            _ => Literal::Null,
        })
    }

    fn list(&mut self) -> Result<Expr, Issue> {
        let position = self.position();
        self.expect("[")?;
        let mut items = Vec::new();
        while !self.is("]") {
            let optional = self.take("?");
            items.push((self.expr()?, optional));
            if !self.take(",") {
                break;
            }
        }
        self.expect("]")?;
        self.node(position, Kind::List(items))
    }

    fn map(&mut self) -> Result<Expr, Issue> {
        let position = self.position();
        self.expect("{")?;
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.take("?");
            let key = self.expr()?;
            self.expect(":")?;
            let value = self.expr()?;
            entries.push(MapEntry { key, value, optional });
            if !self.take(",") {
                break;
            }
        }
        self.expect("}")?;
        self.node(position, Kind::Map(entries))
    }

    fn structure(&mut self, name: &str) -> Result<Expr, Issue> {
        let position = self.position();
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.is("}") {
            let optional = self.take("?");
            let field_name = self.field_name()?.0.into();
            let position = self.position();
            self.expect(":")?;
            let value = self.expr()?;
            fields.push(FieldInit { position, name: field_name, value, optional });
            if !self.take(",") {
                break;
            }
        }
        self.expect("}")?;
        self.node(position, Kind::Struct { name: Arc::from(name), fields })
    }
}

fn too_deep() -> Issue {
    Issue::whole(format!("expression recursion limit exceeded: {DEPTH}"))
}

fn radix(digits: &str) -> (&str, u32) {
    digits.strip_prefix("0x").map_or((digits, 10), |hex| (hex, 16))
}

fn integer(digits: &str, negative: bool) -> Option<i64> {
    let (digits, radix) = radix(digits);
    let sign = if negative { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

#[cfg(test)]
mod tests;
