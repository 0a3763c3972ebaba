//! What parses, what does not, and that nothing panics.

use proptest::prelude::*;

use super::*;

fn issue(text: &str) -> String {
    crate::CompileErrors::new(text, vec![parse(text).unwrap_err()]).to_string()
}

#[test]
fn literals() {
    let literal = |text: &str| match parse(text).unwrap().root.kind {
        Kind::Literal(literal) => literal,
        other => panic!("{text}: {other:?}"),
    };
    for (text, want) in [
        ("-9223372036854775808", Literal::Int(i64::MIN)),
        ("0x1F", Literal::Int(31)),
        ("-0x1F", Literal::Int(-31)),
        ("18446744073709551615u", Literal::Uint(u64::MAX)),
        ("0xFu", Literal::Uint(15)),
        ("1.5e3", Literal::Double(1500.0)),
        (".5", Literal::Double(0.5)),
        ("1e-2", Literal::Double(0.01)),
        ("null", Literal::Null),
        ("true // yes", Literal::Bool(true)),
        (r#""a\n\x41\u00e9\U0001F600\101\"""#, Literal::String("a\nAé😀A\"".into())),
        (r#"'it\'s'"#, Literal::String("it's".into())),
        (r#"r'\d+\'"#, Literal::String(r"\d+\".into())),
        ("'''a\n'b'''", Literal::String("a\n'b".into())),
        (r#"b'\xff\000a'"#, Literal::Bytes([0xff, 0, b'a'].as_slice().into())),
        (r#"bR"\x""#, Literal::Bytes([b'\\', b'x'].as_slice().into())),
        ("b'é'", Literal::Bytes([0xc3, 0xa9].as_slice().into())),
    ] {
        assert_eq!(literal(text), want, "{text}");
    }
}

#[test]
fn refused() {
    for (text, want) in [
        ("", "mismatched input '<EOF>' expecting"),
        ("1 +", "<input>:1:4: Syntax error: mismatched input '<EOF>'"),
        ("a b", "<input>:1:3: Syntax error: extraneous input 'b' expecting <EOF>"),
        ("a.", "expecting IDENTIFIER"),
        ("f(1", "expecting ')'"),
        ("a = b", "token recognition error at: '='"),
        ("a # b", "token recognition error at: '#'"),
        ("'abc", "unterminated string"),
        (r"'\q'", "unable to unescape string"),
        (r"'\ud800'", "invalid unicode code point"),
        ("9223372036854775808", "invalid int literal"),
        ("0x1FFFFFFFFFFFFFFFFu", "invalid uint literal"),
        ("1e999", "invalid double literal"),
        ("namespace", "reserved identifier: namespace"),
        ("has(a)", "invalid argument to has() macro"),
        ("a.all(b.c, true)", "argument must be a simple name"),
        ("a.map(1, 2)", "argument is not an identifier"),
        ("a.all(i, i, true)", "duplicate variable name: i"),
        ("a.map(__result__, 1)", "iteration variable overwrites accumulator variable"),
        ("a.optMap(1, 2)", "optMap() variable name must be a simple identifier"),
    ] {
        let found = issue(text);
        assert!(found.contains(want), "{text}: {found}");
    }
}

#[test]
fn precedence() {
    fn show(expr: &Expr) -> String {
        match &expr.kind {
            Kind::Literal(Literal::Int(value)) => value.to_string(),
            Kind::Ident(name) => name.to_string(),
            Kind::Select { operand, field, test, optional } => {
                let mark = if *optional { "?" } else { "" };
                let text = format!("{}.{mark}{field}", show(operand));
                if *test { format!("has({text})") } else { text }
            }
            Kind::Call(call) => {
                let args: Vec<_> = call.target.as_deref().into_iter().chain(&call.args).map(show).collect();
                format!("({} {})", call.function, args.join(" "))
            }
            Kind::And(terms) => format!("(and {})", terms.iter().map(show).collect::<Vec<_>>().join(" ")),
            Kind::Or(terms) => format!("(or {})", terms.iter().map(show).collect::<Vec<_>>().join(" ")),
            other => format!("{other:?}"),
        }
    }
    for (text, want) in [
        ("1 + 2 * 3 - 4", "(_-_ (_+_ 1 (_*_ 2 3)) 4)"),
        ("a || b && c || d", "(or a (and b c) d)"),
        ("a < b == c", "(_==_ (_<_ a b) c)"),
        ("a ? b : c ? d : e", "(_?_:_ a b (_?_:_ c d e))"),
        ("!a.b", "(!_ a.b)"),
        ("!!a", "a"),
        ("-a", "(-_ a)"),
        ("1 - -1", "(_-_ 1 -1)"),
        ("a.b[1].c(2)", "(c (_[_] a.b 1) 2)"),
        ("a.?b[?1]", "(_[?_] a.?b 1)"),
        ("has(a.b.c)", "has(a.b.c)"),
        ("a in b", "(@in a b)"),
        ("object.metadata.namespace", "object.metadata.namespace"),
        ("a.`b-c/d`", "a.b-c/d"),
    ] {
        assert_eq!(show(&parse(text).unwrap().root), want, "{text}");
    }
}

#[test]
fn bounds() {
    let nested =
        |depth: usize, open: &str, close: &str| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    assert!(parse(&nested(200, "(", ")")).is_ok());
    for text in [
        nested(300, "(", ")"),
        nested(300, "-(", ")"),
        nested(20_000, "(", ")"),
        nested(20_000, "[", "]"),
        nested(20_000, "f(", ")"),
        nested(20_000, "{1:", "}"),
        nested(5_000, "a ? (", ") : 1"),
        format!("{}1", "a ? b : ".repeat(10_000)),
        format!("1{}", " + 1".repeat(20_000)),
        format!("a{}", ".b".repeat(20_000)),
        format!("a{}", ".b(1)".repeat(15_000)),
    ] {
        assert!(issue(&text).contains("expression recursion limit exceeded: 250"), "{}", &text[..20]);
    }
    // Chains of && and || do not nest.
    assert!(parse(&format!("a{}", " && b".repeat(10_000))).is_ok());
    assert!(issue(&"a".repeat(100_001)).contains("size: 100001, limit 100000"));
    let doubled = format!("a{}", ".optMap(x, x)".repeat(40));
    assert!(issue(&doubled).contains("nodes"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        let _ignored = parse(&text);
    }

    #[test]
    fn no_soup_of_tokens_panics(
        parts in prop::collection::vec(prop::sample::select(vec![
            "a", "1", "-", "'s'", "b'\\x00'", "(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "&&", "||",
            "has", "all", "map", "x", "==", "in", "!", "1.5", "2u", "r'", "'''", "\\", "`", "optMap", "sortBy",
        ]), 0..30)
    ) {
        let _ignored = parse(&parts.concat());
        let _ignored = parse(&parts.join(" "));
    }
}
