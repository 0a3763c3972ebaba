//! Operators, macros, and what they do with errors.

use proptest::prelude::*;

use crate::support::{run, table};

#[test]
fn arithmetic() {
    table(&[
        ("1 + 2 * 3", "7"),
        ("7 / -2", "-3"),
        ("-7 % 3", "-1"),
        ("1u + 2u", "3u"),
        ("1.5 + 1.0", "2.5"),
        ("1.0 / 0.0 > 1e300", "true"),
        ("9223372036854775807 + 1", "ERROR integer overflow"),
        ("-9223372036854775808 - 1", "ERROR integer overflow"),
        ("-9223372036854775808 / -1", "ERROR integer overflow"),
        ("-9223372036854775808 % -1", "ERROR integer overflow"),
        ("-(-9223372036854775808)", "ERROR integer overflow"),
        ("9223372036854775807 * 2", "ERROR integer overflow"),
        ("0u - 1u", "ERROR unsigned integer overflow"),
        ("1 / 0", "ERROR division by zero"),
        ("1 % 0", "ERROR modulus by zero"),
        ("1u / 0u", "ERROR division by zero"),
        ("'a' + 'b'", "\"ab\""),
        ("b'a' + b'b'", "[97, 98]"),
        ("[1] + [2]", "[1,2]"),
        (
            "1 + 1.0",
            "COMPILE ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, double)'",
        ),
        ("x.a + 1", "2"),
        ("x.a + 'b'", "ERROR no such overload"),
    ]);
}

#[test]
fn comparison() {
    table(&[
        (
            "1 == 1u",
            "COMPILE ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, uint)'",
        ),
        ("dyn(1) == 1u", "true"),
        ("dyn(1) == 1.0", "true"),
        ("dyn(1) == '1'", "false"),
        ("1 < 1u", "false"),
        ("1 < 1.5", "true"),
        ("1.5 > 1u", "true"),
        ("-1 < 0u", "true"),
        ("9223372036854775807 < 9223372036854775808.0", "true"),
        ("double('NaN') == double('NaN')", "false"),
        ("double('NaN') < 1.0", "false"),
        ("'a' < 'b' && b'a' < b'b' && false < true", "true"),
        ("[1, 2] == [1, 2] && {'a': 1} == {'a': 1}", "true"),
        ("[1, 2] == [2, 1]", "false"),
        ("x.n == null", "true"),
        ("x.m == {'k': 'v'}", "false"),
        ("type(1) == int && type(x) == map && type(type(1)) == type", "true"),
        ("type(null)", "type null_type"),
        ("timestamp('2024-01-01T00:00:00Z') < timestamp('2024-01-01T00:00:01Z')", "true"),
        ("1 in [1, 2] && 'k' in x.m && !(3 in ints.map(i, i * 10))", "true"),
        ("1.0 in {1: 'a'} || dyn(1u) in {1: 'a'}", "COMPILE..."),
        ("dyn(1.0) in {1: 'a'}", "true"),
    ]);
}

#[test]
fn logic() {
    table(&[
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("1 / 0 == 1 || false", "ERROR division by zero"),
        ("false && 1 / 0 == 1", "false"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 && true", "ERROR division by zero"),
        ("x.a || true", "true"),
        ("x.a || false", "ERROR no such overload"),
        ("1 && true", "COMPILE ERROR: <input>:1:1: expected type 'bool' but found 'int'"),
        ("x.b ? 1 : 2", "1"),
        ("true ? 1 : 1 / 0", "1"),
        ("x.a ? 1 : 2", "ERROR no such overload"),
        (
            "true ? 1 : 'a'",
            "COMPILE ERROR: <input>:1:6: found no matching overload for '_?_:_' applied to '(bool, int, string)'",
        ),
        ("!true", "false"),
        ("!!true", "true"),
    ]);
}

#[test]
fn selection() {
    table(&[
        ("x.m.k", "\"v\""),
        ("x.m['a-b']", "2"),
        ("x.m.`a-b`", "2"),
        ("x.m.nested.deep[0].c", "7"),
        ("x.nope", "ERROR no such key: nope"),
        ("x['nope']", "ERROR no such key: nope"),
        ("x.a.b", "ERROR no such overload"),
        ("x.list[3]", "ERROR index out of bounds: 3"),
        ("x.list[-1]", "ERROR index out of bounds: -1"),
        ("x.list[1.0]", "1"),
        ("{1: 'a'}[1]", "\"a\""),
        ("{1: 'a'}[dyn(1u)]", "\"a\""),
        ("{true: 1, false: 2}[true]", "1"),
        ("{'a': 1, 'a': 2}", "ERROR Failed with repeated key"),
        ("has(x.m.k)", "true"),
        ("has(x.m.z)", "false"),
        ("has(x.z.k)", "ERROR no such key: z"),
        ("has(x.n)", "true"),
        ("has(x.a.b)", "ERROR no such overload"),
        ("one.two", "\"both\""),
        ("y", "COMPILE ERROR: <input>:1:1: undeclared reference to 'y' (in container '')"),
        ("f(1)", "COMPILE ERROR: <input>:1:2: undeclared reference to 'f' (in container '')"),
        ("'a'.b", "COMPILE ERROR: <input>:1:4: type 'string' does not support field selection"),
        ("[1, 'a']", "COMPILE ERROR: <input>:1:5: expected type 'int' but found 'string'"),
        ("{'a': 1, 2: 3}", "COMPILE ERROR: <input>:1:10: expected type 'string' but found 'int'"),
        ("{[1]: 2}", "COMPILE ERROR: <input>:1:2: unsupported key type 'list(int)'"),
        ("[dyn(1), 'a']", "[1,\"a\"]"),
    ]);
}

#[test]
fn macros() {
    table(&[
        ("ints.all(i, i > 0)", "true"),
        ("ints.all(i, i > 1)", "false"),
        ("[].all(i, false)", "true"),
        ("x.list.exists(i, i == 2)", "true"),
        ("x.list.exists_one(i, i > 1)", "false"),
        ("x.list.existsOne(i, i > 2)", "true"),
        ("ints.map(i, i * 2)", "[6,2,4]"),
        ("ints.map(i, i > 1, i * 2)", "[6,4]"),
        ("ints.filter(i, i > 1)", "[3,2]"),
        ("x.m.all(k, k != 'z')", "true"),
        ("{'a': 1, 'b': 2}.map(k, k)", "[\"a\",\"b\"]"),
        // Errors are absorbed by what decides.
        ("[0, 1].exists(i, 1 / i == 1)", "true"),
        ("[0, 2].exists(i, 1 / i == 1)", "ERROR division by zero"),
        ("[0, 1].all(i, 1 / i == 2)", "false"),
        ("[0, 1].map(i, 1 / i)", "ERROR division by zero"),
        ("[0, 1].exists_one(i, 1 / i == 1)", "ERROR division by zero"),
        ("ints.map(i, ints.filter(j, j < i))", "[[1,2],[],[1]]"),
        ("ints.all(i, i)", "COMPILE ERROR: <input>:1:13: expected type 'bool' but found 'int'"),
        (
            "1.all(i, true)",
            "COMPILE ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("x.a.all(i, true)", "ERROR no such overload"),
        // Two variables.
        ("ints.all(i, v, i >= 0 && v > 0)", "true"),
        ("{'a': 1}.exists(k, v, k == 'a' && v == 1)", "true"),
        ("ints.existsOne(i, v, i == v)", "false"),
        ("ints.transformList(i, v, i + v)", "[3,2,4]"),
        ("ints.transformList(i, v, i > 0, v)", "[1,2]"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v * 10)", "{\"a\":10,\"b\":20}"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", "{\"b\":20}"),
        ("{'a': 'x'}.transformMapEntry(k, v, {v: k})", "{\"x\":\"a\"}"),
        ("[1, 1].transformMapEntry(i, v, {v: i})", "ERROR insert failed: key 1 already exists"),
        ("ints.map(x, x)", "[3,1,2]"),
        ("[1].map(i, [i].map(i, i + 1))[0][0]", "2"),
    ]);
}

#[test]
fn optionals() {
    table(&[
        ("x.?m.?k", "some \"v\""),
        ("x.?m.k", "some \"v\""),
        ("x.?z.k", "none"),
        ("x.?m.z", "none"),
        ("x.m[?'k']", "some \"v\""),
        ("x.list[?5]", "none"),
        ("x.?list[0]", "some 3"),
        ("x.?z.orValue('d')", "\"d\""),
        ("x.?s.orValue('d')", "\"text\""),
        ("x.?z.or(x.?s).value()", "\"text\""),
        ("optional.of(1).orValue(1 / 0)", "1"),
        ("optional.none().hasValue()", "false"),
        ("optional.none().value()", "ERROR optional.none() dereference"),
        ("optional.ofNonZeroValue('')", "none"),
        ("optional.ofNonZeroValue('a')", "some \"a\""),
        ("optional.of(2).optMap(v, v * 2)", "some 4"),
        ("optional.none().optMap(v, v)", "none"),
        ("x.?m.optFlatMap(m, m.?k)", "some \"v\""),
        ("[1, ?optional.of(2), ?optional.none()]", "[1,2]"),
        ("{?'a': optional.of(1), ?'b': optional.none()}", "{\"a\":1}"),
        ("[?1]", "COMPILE ERROR: <input>:1:3: expected type 'optional_type(int)' but found 'int'"),
        ("optional.unwrap([optional.of(1), optional.none()])", "[1]"),
        ("[optional.of(1), optional.none()].unwrapOpt()", "[1]"),
        ("has(x.?z.k)", "false"),
        ("[1, 2].first().value() + [1, 2].last().value()", "3"),
        ("[].first()", "none"),
    ]);
}

#[test]
fn structures() {
    use skep_cel::{Budget, Env, Type, Variables};
    let patch = Type::object("JSONPatch", [("op", Type::String), ("value", Type::Dyn)]);
    let env = Env::new().with_structure("JSONPatch", patch).with_open_structure("Object");
    let run = |text: &str| match env.compile(text) {
        Err(errors) => errors.to_string().lines().next().unwrap_or_default().to_owned(),
        Ok(program) => {
            let value = program.eval(&Variables::new(), &mut Budget::new(1000)).unwrap();
            format!("{} {}", program.kind(), value.to_json().unwrap())
        }
    };
    for (text, want) in [
        ("[JSONPatch{op: 'add', value: 1}]", r#"list(JSONPatch) [{"op":"add","value":1}]"#),
        ("JSONPatch{ob: 'add'}", "ERROR: <input>:1:13: undefined field 'ob'"),
        (
            "JSONPatch{op: 1}",
            "ERROR: <input>:1:13: expected type of field 'op' is 'string' but provided type is 'int'",
        ),
        ("Object{spec: Object.spec{n: [1]}}", r#"Object {"spec":{"n":[1]}}"#),
        ("Object{spec: Object.spec{?n: optional.of(2)}}", r#"Object {"spec":{"n":2}}"#),
        ("Objects{}", "ERROR: <input>:1:8: undeclared reference to 'Objects' (in container '')"),
    ] {
        assert_eq!(run(text), want, "{text}");
    }
}

#[test]
fn deep_expressions_run_on_a_small_stack() {
    let nested = |depth: usize, open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    for (text, want) in [
        (nested(240, "(", "1", ")"), "1"),
        (nested(120, "[", "1", "]"), "NO JSON"),
        (format!("1{}", " + 1".repeat(240)), "241"),
        (nested(80, "[1].map(i, ", "i", ")"), "[[["),
        (nested(50, "[1].all(i, ", "true", ")"), "true"),
        (nested(200, "dyn(", "1", ")"), "1"),
    ] {
        let got = run(&text);
        assert!(got.starts_with(want), "{}: {got}", &text[..30]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_that_compiles_panics(
        parts in prop::collection::vec(prop::sample::select(vec![
            "x", "x.a", "x.list", "x.m", "l", "1", "-1", "2u", "1.5", "'s'", "b'a'", "null", "true", "[]", "{}",
            "(", ")", "[", "]", "[?", ".?a", ".a", " + ", " - ", " * ", " / ", " % ", " == ", " < ", " in ", " && ",
            " || ", " ? ", " : ", "!", "-", ".map(i, i)", ".all(i, i == 1)", ".filter(i, true)", ".size()",
            "size(", "dyn(", "string(", "int(", "duration('1h')", "timestamp('2024-01-01T00:00:00Z')",
            ".sort()", ".sortBy(i, i)", ".optMap(v, v)", ".orValue(1)", ".split('')", ".substring(1)", ".indexOf('s')",
            ".format([1])", ".reverse()", ".transformMap(k, v, v)", "lists.range(3)", "optional.of(1)", ",",
        ]), 1..12)
    ) {
        skep_cel::fuzz(&parts.concat());
    }

    #[test]
    fn no_text_panics(text in "[a-z0-9.()\\[\\]{}'\"+*/<>=!&|?: -]{0,50}") {
        skep_cel::fuzz(&text);
    }

    #[test]
    fn integers_compare_like_integers(a: i64, b in 0..i64::MAX) {
        let text = format!("[{a} < {b}, {a} <= {b}, {a} == {b}, dyn({a}) == dyn({b}u) ]");
        let want = format!("[{},{},{},{}]", a < b, a <= b, a == b, a == b);
        prop_assert_eq!(run(&text), want);
    }
}
