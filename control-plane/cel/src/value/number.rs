//! Numbers: comparison across types, conversion, and printing as clients know it.

use std::cmp::Ordering;

/// A signed integer against a double.
pub(crate) fn int_double(int: i64, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Beyond the range of integers the comparison is decided; within it the whole part is exact.
    if double < -(2_f64.powi(63)) {
        return Some(Ordering::Greater);
    }
    if double >= 2_f64.powi(63) {
        return Some(Ordering::Less);
    }
    let whole = double.trunc();
    Some(
        int.cmp(&(whole as i64))
            .then_with(|| 0_f64.partial_cmp(&(double - whole)).unwrap_or(Ordering::Equal)),
    )
}

/// An unsigned integer against a double.
pub(crate) fn uint_double(uint: u64, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    if double < 0.0 {
        return Some(Ordering::Greater);
    }
    if double >= 2_f64.powi(64) {
        return Some(Ordering::Less);
    }
    let whole = double.trunc();
    Some(
        uint.cmp(&(whole as u64))
            .then_with(|| 0_f64.partial_cmp(&(double - whole)).unwrap_or(Ordering::Equal)),
    )
}

/// A signed integer against an unsigned one.
pub(crate) fn int_uint(int: i64, uint: u64) -> Ordering {
    i128::from(int).cmp(&i128::from(uint))
}

/// A double as text: the shortest form that reads back, with an exponent where the number is very large
/// or small.
pub(crate) fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Nanoseconds as seconds, without trailing zeros.
pub(crate) fn seconds(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (whole, part) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if part == 0 {
        return format!("{sign}{whole}");
    }
    let part = format!("{part:09}");
    format!("{sign}{whole}.{}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn across_types() {
        assert_eq!(int_double(1, 1.5), Some(Ordering::Less));
        assert_eq!(int_double(-1, -1.5), Some(Ordering::Greater));
        assert_eq!(int_double(i64::MAX, 9_223_372_036_854_775_807.0), Some(Ordering::Less));
        assert_eq!(int_double(i64::MIN, -9_223_372_036_854_775_808.0), Some(Ordering::Equal));
        assert_eq!(uint_double(u64::MAX, 1.8e19), Some(Ordering::Greater));
        assert_eq!(int_uint(-1, 0), Ordering::Less);
        assert_eq!(int_double(0, f64::NAN), None);
    }

    #[test]
    fn printing() {
        for (value, want) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (1e6, "1e+06"),
            (123_456_789.5, "1.234567895e+08"),
            (0.0001, "0.0001"),
            (1.5e-7, "1.5e-07"),
            (-0.0, "-0"),
        ] {
            assert_eq!(double(value), want);
        }
        assert_eq!(seconds(-1_500_000_000), "-1.5");
        assert_eq!(seconds(60_000_000_000), "60");
    }
}
