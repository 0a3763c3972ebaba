//! The expression language.

use std::str;

use crate::Target;

/// Expressions: parsed, checked, and evaluated within a budget.
pub(crate) const EXPRESSION: Target = Target {
    name: "cel",
    about: "expressions of policies and custom resources",
    run: expression,
    seeds: &[
        b"x.a.all(i, i == 1) || has(x.b) && !(l.size() in [1, 2])",
        b"l.map(i, i > 1, string(i) + 'a').join(',').matches('^[0-9a,]*$') ? {'k': [1.5, 2u]} : x",
        b"x.?a[?0].optMap(v, v + 1).orValue(l.sortBy(i, -i)[0])",
        b"l.transformMap(i, v, v > 1, duration('1h') + duration(string(v) + 's'))",
        b"quantity('1Gi').isLessThan(quantity('2')) && cidr('10.0.0.0/8').containsIP(ip('10.1.2.3'))",
        b"'%s %d %.2f'.format([x, 1, 2.0]).split('').reverse()[?-1]",
        b"timestamp('2024-01-01T00:00:00Z').getHours('+01:00') % 5 == semver('1.2.3').minor()",
    ],
};

fn expression(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        skep_cel::fuzz(text);
    }
}
