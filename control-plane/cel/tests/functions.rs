//! Every library.

use crate::support::table;

#[test]
fn conversions() {
    table(&[
        ("int('42') + int(2u) + int(1.9)", "45"),
        ("int('x')", "ERROR type conversion error from 'string' to 'int': \"x\""),
        ("int(9223372036854775808u)", "ERROR integer overflow"),
        ("int(1e19)", "ERROR integer overflow"),
        ("uint(-1)", "ERROR unsigned integer overflow"),
        ("uint('7')", "7u"),
        ("double('1.5') + double(1) + double(1u)", "3.5"),
        ("string(1) + string(1u) + string(1.5) + string(true) + string(b'a')", "\"111.5truea\""),
        ("string(1000000.0)", "\"1e+06\""),
        ("string(b'\\xff')", "ERROR invalid UTF-8 in bytes, cannot convert to string"),
        ("bytes('é')", "[195, 169]"),
        ("bool('true') && !bool('0')", "true"),
        ("bool('yes')", "ERROR type conversion error..."),
        ("string(timestamp('2024-01-02T03:04:05.5Z'))", "\"2024-01-02T03:04:05.5Z\""),
        ("string(duration('1h1.5s'))", "\"3601.5s\""),
        ("int(timestamp('1970-01-01T00:01:00Z'))", "60"),
        ("timestamp(60)", "\"1970-01-01T00:01:00Z\""),
        ("timestamp('nope')", "COMPILE ERROR: <input>:1:11: invalid timestamp argument"),
        ("duration('1x')", "COMPILE ERROR: <input>:1:10: invalid duration argument"),
        ("duration(x.s)", "ERROR time: invalid duration \"text\""),
        ("timestamp(x.s)", "ERROR invalid timestamp \"text\""),
        ("'a'.matches('(')", "COMPILE ERROR: <input>:1:13: invalid matches argument"),
    ]);
}

#[test]
fn time() {
    let at = "timestamp('2024-02-29T23:59:58.123Z')";
    let case = |call: &str| format!("{at}.{call}");
    for (call, want) in [
        ("getFullYear()", "2024"),
        ("getMonth()", "1"),
        ("getDate()", "29"),
        ("getDayOfMonth()", "28"),
        ("getDayOfYear()", "59"),
        ("getDayOfWeek()", "4"),
        ("getHours()", "23"),
        ("getHours('+02:00')", "1"),
        ("getHours('-01:30')", "22"),
        ("getMinutes()", "59"),
        ("getSeconds()", "58"),
        ("getMilliseconds()", "123"),
        ("getHours('Nowhere/City')", "ERROR unknown time zone Nowhere/City"),
    ] {
        table(&[(&case(call), want)]);
    }
    table(&[
        ("duration('1h30m').getMinutes()", "90"),
        ("duration('1h30m').getHours()", "1"),
        ("timestamp('2024-01-01T00:00:00Z') + duration('24h')", "\"2024-01-02T00:00:00Z\""),
        ("timestamp('2024-01-02T00:00:00Z') - timestamp('2024-01-01T00:00:00Z')", "\"86400s\""),
        ("timestamp('9998-12-31T23:59:59Z') + duration('8784h')", "ERROR timestamp overflow"),
        ("duration('2562047h') + duration('2562047h')", "ERROR duration overflow"),
    ]);
}

#[test]
fn strings() {
    table(&[
        ("size('é') + 'abc'.size() + size([1]) + size({'a': 1}) + size(b'ab')", "8"),
        ("'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')", "true"),
        ("'abc123'.matches('^[a-z]+[0-9]+$')", "true"),
        ("matches('a', 'b')", "false"),
        ("'tacocat'.charAt(3)", "\"o\""),
        ("'tacocat'.charAt(7)", "\"\""),
        ("'tacocat'.charAt(8)", "ERROR index out of range: 8"),
        ("'hello'.indexOf('l')", "2"),
        ("'hello'.indexOf('l', 3)", "3"),
        ("'hello'.indexOf('')", "0"),
        ("'hello'.indexOf('z')", "-1"),
        ("'hello'.indexOf('l', -1)", "ERROR index out of range: -1"),
        ("'héllo'.lastIndexOf('l')", "3"),
        ("'hello mello'.lastIndexOf('ello', 6)", "1"),
        ("'hello mello'.lastIndexOf('ello', 7)", "7"),
        ("'hello'.lastIndexOf('')", "5"),
        ("'TacoCät'.lowerAscii() + 'é'.upperAscii()", "\"tacocäté\""),
        ("'hello hello'.replace('he', 'we')", "\"wello wello\""),
        ("'hello hello'.replace('he', 'we', 1)", "\"wello hello\""),
        ("'ab'.replace('', '-')", "\"-a-b-\""),
        ("'a,b,c'.split(',')", "[\"a\",\"b\",\"c\"]"),
        ("'a,b,c'.split(',', 2)", "[\"a\",\"b,c\"]"),
        ("'a,b,c'.split(',', 0)", "[]"),
        ("'abc'.split('')", "[\"a\",\"b\",\"c\"]"),
        ("'abc'.split('', 2)", "[\"a\",\"bc\"]"),
        ("'tacocat'.substring(4)", "\"cat\""),
        ("'tacocat'.substring(0, 4)", "\"taco\""),
        ("'tacocat'.substring(5, 3)", "ERROR invalid substring range. start: 5, end: 3"),
        ("'tacocat'.substring(0, 40)", "ERROR index out of range: 40"),
        ("'  a '.trim()", "\"a\""),
        ("['a', 'b'].join() + ['a', 'b'].join('-')", "\"aba-b\""),
        ("strings.quote('a\"b\\n')", "\"\\\"a\\\\\\\"b\\\\n\\\"\""),
        ("jsonpatch.escapeKey('a/b~c')", "\"a~1b~0c\""),
        ("'abc'.reverse()", "COMPILE..."),
    ]);
}

#[test]
fn formatting() {
    table(&[
        ("'%s and %d'.format(['a', dyn(3)])", "\"a and 3\""),
        ("'%s'.format([[1, 'a', true]])", "COMPILE..."),
        ("'%s %s'.format([dyn([1, 2]), {'k': null}])", "\"[1, 2] {k: null}\""),
        ("'%.2f %f %e'.format([1.005, 2.0, 1234.5])", "\"1.00 2.000000 1.234500e+03\""),
        ("'%x %X %b %o'.format([dyn(255), 'hi', 5, 8])", "\"ff 6869 101 10\""),
        ("'%x %b'.format([dyn(-255), true])", "\"-ff 1\""),
        ("'100%%'.format([])", "\"100%\""),
        ("'%s'.format([])", "ERROR index 0 out of range"),
        (
            "'%d'.format(['a'])",
            "ERROR error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("'%q'.format([1])", "ERROR could not parse formatting clause: unrecognized formatting clause \"q\""),
        ("'%'.format([1])", "ERROR unexpected end of string"),
        (
            "'%s %s'.format([dyn(timestamp('2024-01-01T00:00:00Z')), duration('90s')])",
            "\"2024-01-01T00:00:00Z 90s\"",
        ),
        ("'%s'.format([double('NaN')]) + '%d'.format([1.0 / 0.0])", "\"NaNInfinity\""),
    ]);
}

#[test]
fn lists() {
    table(&[
        ("[1, 2, 2].isSorted() && !['b', 'a'].isSorted() && [].isSorted()", "true"),
        ("[1, 2].sum() + [3].sum()", "6"),
        ("[1.5, 2.0].sum()", "3.5"),
        ("[duration('1s'), duration('2s')].sum()", "\"3s\""),
        ("[9223372036854775807, 1].sum()", "ERROR integer overflow"),
        ("[1, 3, 2].max() + [1, 3, 2].min()", "4"),
        ("ints.filter(i, i > 9).max()", "ERROR max called on empty list"),
        ("[1, 2, 2].indexOf(2) + [1, 2, 2].lastIndexOf(2)", "3"),
        ("['a'].indexOf('z')", "-1"),
        ("[1, 2, 3, 4].slice(1, 3)", "[2,3]"),
        ("[1].slice(0, 2)", "ERROR cannot slice(0, 2), list is length 1"),
        ("[1].slice(-1, 1)", "ERROR cannot slice(-1, 1), negative indexes not supported"),
        ("[[1], [2, 3]].flatten()", "[1,2,3]"),
        ("[dyn([1, dyn([2])]), 3].flatten(2)", "[1,2,3]"),
        ("[dyn([1])].flatten(-1)", "ERROR level must be non-negative"),
        ("lists.range(3)", "[0,1,2]"),
        ("lists.range(1000000000)", "ERROR operation cancelled: actual cost limit exceeded"),
        ("[1, 2].reverse()", "[2,1]"),
        ("[1, 2, 1].distinct()", "[1,2]"),
        ("['b', 'a'].sort()", "[\"a\",\"b\"]"),
        ("[{'n': 2}, {'n': 1}].sortBy(e, e.n)", "[{\"n\":1},{\"n\":2}]"),
        ("ints.sortBy(i, -i)", "[3,2,1]"),
        ("[null].sort()", "ERROR no such overload"),
        (
            "sets.contains([1, 2], [1]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2])",
            "true",
        ),
        ("sets.contains([1], [2]) || sets.intersects([1], [2])", "false"),
    ]);
}

#[test]
fn regex_and_urls() {
    table(&[
        ("'abc 123'.find('[0-9]+')", "\"123\""),
        ("'abc'.find('[0-9]+')", "\"\""),
        ("'1 2 3'.findAll('[0-9]')", "[\"1\",\"2\",\"3\"]"),
        ("'1 2 3'.findAll('[0-9]', 2)", "[\"1\",\"2\"]"),
        ("'a'.find('[')", "ERROR Illegal regex..."),
        ("'a'.matches('(((a{1000}){1000}){1000})' + x.s)", "ERROR Illegal regex..."),
        ("isURL('https://a.b/c') && isURL('/abs/path') && !isURL('../rel') && !isURL('')", "true"),
        ("url('https://user@example.com:80/a b?k=1&k=2&z=%20#f').getHost()", "\"example.com:80\""),
        (
            "url('https://example.com:80/').getHostname() + url('https://example.com:80/').getPort()",
            "\"example.com80\"",
        ),
        ("url('https://[::1]:80/').getHostname()", "\"::1\""),
        (
            "url('HTTPS://e.com/with space').getEscapedPath() + url('HTTPS://e.com/').getScheme()",
            "\"/with%20spacehttps\"",
        ),
        ("url('https://e.com/?k=1&k=2&z=%20').getQuery()", "{\"k\":[\"1\",\"2\"],\"z\":[\" \"]}"),
        ("url('/path') == url('/path')", "true"),
        (
            "url('../rel')",
            "ERROR URL parse error during conversion from string: parse \"../rel\": invalid URI for request",
        ),
    ]);
}

#[test]
fn quantities() {
    table(&[
        ("isQuantity('1.5Gi') && !isQuantity('1.5Xi')", "true"),
        ("quantity('1').compareTo(quantity('1000m'))", "0"),
        ("quantity('1') == quantity('1000m')", "true"),
        ("quantity('2k').isGreaterThan(quantity('1Ki')) && quantity('1').isLessThan(quantity('2'))", "true"),
        ("quantity('50k').asInteger()", "50000"),
        ("quantity('1500m').isInteger()", "false"),
        ("quantity('1500m').asInteger()", "ERROR cannot convert value to integer"),
        ("quantity('1500m').asApproximateFloat()", "1.5"),
        ("quantity('1').add(quantity('2')).sub(1).asInteger()", "2"),
        ("quantity('1').add(5).asInteger()", "6"),
        ("sign(quantity('-1'))", "-1"),
        ("quantity('x')", "ERROR quantities must match the regular expression..."),
    ]);
}

#[test]
fn addresses() {
    table(&[
        (
            "isIP('10.0.0.1') && isIP('::1') && !isIP('10.0.0') && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0')",
            "true",
        ),
        ("ip('10.0.0.1').family() + ip('::1').family()", "10"),
        (
            "ip('x')",
            "ERROR IP Address \"x\" parse error during conversion from string: ParseAddr(\"x\"): unable to parse IP",
        ),
        ("ip.isCanonical('127.0.0.1') && !ip.isCanonical('2001:DB8::ABCD')", "true"),
        ("ip('0.0.0.0').isUnspecified() && ip('127.0.0.1').isLoopback()", "true"),
        ("ip('224.0.0.1').isLinkLocalMulticast() && ip('169.254.1.1').isLinkLocalUnicast()", "true"),
        ("ip('10.0.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast()", "true"),
        ("string(ip('::0001')) == '::1' && ip('::1') == ip('0::1')", "true"),
        (
            "isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0/33') && !isCIDR('10.0.0.0') && !isCIDR('10.0.0.0/08')",
            "true",
        ),
        (
            "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsIP(ip('10.1.2.3'))",
            "true",
        ),
        (
            "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.1.0.0/16').containsCIDR(cidr('10.0.0.0/8'))",
            "true",
        ),
        ("cidr('10.0.0.0/8').containsIP('x')", "ERROR IP Address..."),
        (
            "string(cidr('10.1.2.3/8').masked()) + ' ' + string(cidr('10.1.2.3/8'))",
            "\"10.0.0.0/8 10.1.2.3/8\"",
        ),
        ("cidr('10.1.2.3/8').prefixLength()", "8"),
        ("string(cidr('10.1.2.3/8').ip())", "\"10.1.2.3\""),
        ("cidr('x')", "ERROR network address parse error..."),
        ("type(ip('::1')) == net.IP && type(cidr('::/0')) == net.CIDR", "true"),
    ]);
}

#[test]
fn formats_and_versions() {
    table(&[
        ("format.dns1123Label().validate('a-b')", "none"),
        ("format.dns1123Label().validate('A_b').value().size()", "1"),
        ("format.named('uuid').value().validate('123e4567-e89b-12d3-a456-426614174000')", "none"),
        ("format.named('nope')", "none"),
        ("format.date().validate('2024-01-32')", "some [\"invalid date\"]"),
        ("format.datetime().validate('2024-01-01T00:00:00Z')", "none"),
        ("format.byte().validate('aGk=').hasValue() || format.uri().validate('nope').hasValue()", "true"),
        (
            "format.labelValue().validate('a').hasValue() || format.qualifiedName().validate('a/b').hasValue()",
            "false",
        ),
        (
            "isSemver('1.2.3-rc.1+b') && !isSemver('v1.2') && isSemver('v1.2', true) && !isSemver('1', false)",
            "true",
        ),
        ("semver('1.2.3').major() + semver('1.2.3').minor() + semver('1.2.3').patch()", "6"),
        (
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('2.0.0').isGreaterThan(semver('2.0.0-rc1'))",
            "true",
        ),
        ("semver('1.2.3+a').compareTo(semver('1.2.3+b'))", "0"),
        ("semver('v01.2', true) == semver('1.2.0')", "true"),
        ("semver('x')", "ERROR Invalid Semantic Version..."),
    ]);
}

#[test]
fn the_authorizer_is_asked_by_the_caller() {
    use skep_cel::authorizer::{Check, Decision, Decisions};
    use skep_cel::{Budget, Env, EvalError, Type, Value, Variables};
    let kind = Type::object::<String>("kubernetes.authorization.Authorizer", []);
    let env = Env::new().with_variable("authorizer", kind);
    let text = "authorizer.serviceAccount('default', 'sa').group('apps').resource('deployments')\
        .subresource('status').namespace('ns').name('n').check('update').allowed() \
        && !authorizer.path('/healthz').check('get').allowed()";
    let program = env.compile(text).unwrap();
    let decisions = Decisions::default();
    let variables = Variables::new().with("authorizer", decisions.authorizer());
    let mut asked = Vec::new();
    let value = loop {
        match program.eval(&variables, &mut Budget::new(10_000_000)) {
            Err(EvalError::Pending(check)) => {
                let allowed = check.path.is_none();
                asked.push((*check).clone());
                decisions.add(*check, Decision { allowed, reason: "because".to_owned(), error: None });
            }
            other => break other,
        }
    };
    assert!(matches!(value, Ok(Value::Bool(true))), "{value:?}");
    let text = |text: &str| text.to_owned();
    let resource = Check {
        service_account: Some((text("default"), text("sa"))),
        verb: text("update"),
        group: text("apps"),
        resource: text("deployments"),
        subresource: text("status"),
        namespace: text("ns"),
        name: text("n"),
        path: None,
        ..Check::default()
    };
    let path = Check { verb: text("get"), path: Some(text("/healthz")), ..Check::default() };
    assert_eq!(asked, [resource, path]);
}
