//! Timestamps and durations.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

/// The years 1 to 9999, in seconds.
const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// RFC 3339.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    // The parser takes more than the standard: a blank, a missing offset, a zone name.
    let strict = text.is_ascii() && text.len() >= 20 && text.len() <= 40 && text.as_bytes()[10] == b'T';
    if !strict || text.contains('[') {
        return None;
    }
    text.parse().ok().filter(|at: &Timestamp| in_range(*at))
}

/// Within the years 1 to 9999.
pub(crate) fn in_range(at: Timestamp) -> bool {
    RANGE.contains(&at.as_second())
}

/// RFC 3339 with as many digits as needed.
pub(crate) fn format_timestamp(at: Timestamp) -> String {
    at.to_string()
}

/// `1h30m`, `-1.5s`: nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1_i128, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || rest.len() > 100 {
        return None;
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => {
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                after.split_at(end)
            }
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let digits = &fraction[..fraction.len().min(18)];
        if !digits.is_empty() {
            let part: i128 = digits.parse().ok()?;
            total += part * unit / 10_i128.pow(u32::try_from(digits.len()).ok()?);
        }
        rest = after;
    }
    i64::try_from(sign * total).ok()
}

/// `America/New_York`, `UTC`, `-08:00`.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    if name.len() > 100 {
        return None;
    }
    if let Some((hours, minutes)) = name.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.trim_start_matches('+').parse().ok()?;
        let minutes: i32 = minutes.parse().ok()?;
        if hours.abs() > 24 || !(0..60).contains(&minutes) {
            return None;
        }
        let signed = if negative { -minutes } else { minutes };
        return Offset::from_seconds(hours * 3600 + signed * 60).ok().map(TimeZone::fixed);
    }
    match name {
        "" | "UTC" => Some(TimeZone::UTC),
        name => TimeZone::get(name).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("1us2ns", Some(1_002)),
            (".5ms", Some(500_000)),
            ("0", Some(0)),
            ("", None),
            ("1", None),
            ("1d", None),
            ("s", None),
            ("99999999999h", None),
        ] {
            assert_eq!(parse_duration(text), want, "{text}");
        }
    }

    #[test]
    fn timestamps() {
        for text in ["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.123456789+01:00", "0001-01-01T00:00:00Z"] {
            assert!(parse_timestamp(text).is_some(), "{text}");
        }
        for text in ["2024-01-02 03:04:05Z", "2024-01-02", "2024-13-02T03:04:05Z", "x", ""] {
            assert!(parse_timestamp(text).is_none(), "{text}");
        }
        assert_eq!(
            format_timestamp(parse_timestamp("2024-01-02T03:04:05.500Z").unwrap()),
            "2024-01-02T03:04:05.5Z"
        );
    }
}
