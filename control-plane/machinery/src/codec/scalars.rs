//! Texts with a syntax of their own: times, durations, quantities, base64. Parsing returns upstream-like messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

/// The layout Go names in its parse errors.
const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";

/// Parses RFC 3339 text.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    let bytes = text.as_bytes();
    let fail = || {
        format!("parsing time \"{text}\" as \"{LAYOUT}\": cannot parse \"{text}\" as \"2006\"")
            .replace('\n', " ")
    };
    // The parser below is more generous than RFC 3339: fix the shape first.
    let shape = bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[10] == b'T'
        && bytes[13] == b':'
        && bytes[16] == b':'
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && (text.ends_with('Z') || matches!(bytes.get(bytes.len().wrapping_sub(6)), Some(b'+' | b'-')));
    if !shape {
        return Err(fail());
    }
    text.parse().map_err(|_| fail())
}

/// Prints with whole seconds, in UTC.
pub(crate) fn print_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Prints with six digits of a second, in UTC.
pub(crate) fn print_micro_time(at: Timestamp) -> String {
    let micros = at.subsec_nanosecond().rem_euclid(1_000_000_000) / 1_000;
    // A negative fraction belongs to the second before.
    let floor = Timestamp::from_second(at.as_nanosecond().div_euclid(1_000_000_000) as i64).unwrap_or(at);
    format!("{}.{micros:06}Z", floor.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// Checks a quantity as the API does while decoding; the text itself stays as written.
pub(crate) fn check_quantity(text: &str) -> Result<(), String> {
    const SYNTAX: &str =
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(number_end);
    if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
        return Err(SYNTAX.to_owned());
    }
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if decimal.contains(&suffix) {
        return Ok(());
    }
    let exponent = suffix.strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
    match exponent {
        Some(digits)
            if !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            Ok(())
        }
        _ if suffix.chars().all(|c| "eEinumkKMGTP+-0123456789".contains(c)) => {
            Err("unable to parse quantity's suffix".to_owned())
        }
        _ => Err(SYNTAX.to_owned()),
    }
}

/// Standard base64, line breaks allowed as in Go; the canonical text.
pub(crate) fn canonical_base64(text: &str) -> Result<String, String> {
    if STANDARD.decode(text).is_ok() {
        return Ok(text.to_owned());
    }
    decode_base64(text).map(|bytes| STANDARD.encode(bytes))
}

/// Standard base64, line breaks allowed as in Go.
pub(crate) fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let packed: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    STANDARD.decode(packed).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
        };
        format!("illegal base64 data at input byte {at}")
    })
}

/// Parses a Go duration (`1h2m3.5s`) into nanoseconds.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    let fail = || format!("time: invalid duration \"{text}\"");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(fail());
    }
    let mut total: f64 = 0.0;
    let mut exact: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: i64 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(fail()),
        };
        if let Ok(whole) = number.parse::<i64>() {
            exact += i128::from(whole) * i128::from(scale);
        } else {
            total += number.parse::<f64>().map_err(|_| fail())? * scale as f64;
        }
        rest = tail;
    }
    let sum = exact + total.round() as i128;
    i64::try_from(if negative { -sum } else { sum }).map_err(|_| fail())
}

/// Prints nanoseconds as Go does.
pub(crate) fn print_duration(nanos: i64) -> String {
    let magnitude = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let fraction = |value: u64, unit: u64| {
        let text = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let text = text.trim_end_matches('0');
        if text.is_empty() { String::new() } else { format!(".{text}") }
    };
    match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{magnitude}ns"),
        1_000..1_000_000 => format!("{sign}{}{}\u{b5}s", magnitude / 1_000, fraction(magnitude, 1_000)),
        1_000_000..1_000_000_000 => {
            format!("{sign}{}{}ms", magnitude / 1_000_000, fraction(magnitude, 1_000_000))
        }
        _ => {
            let seconds = magnitude / 1_000_000_000;
            let tail = format!("{}{}s", seconds % 60, fraction(magnitude, 1_000_000_000));
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{sign}{tail}"),
                (0, minutes) => format!("{sign}{minutes}m{tail}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{tail}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Syntaxes, both directions.
    use super::*;

    #[test]
    fn times_normalise_to_utc() {
        let at = time("2024-05-06T07:08:09.123456789+02:00").expect("parses");
        assert_eq!(print_time(at), "2024-05-06T05:08:09Z");
        assert_eq!(print_micro_time(at), "2024-05-06T05:08:09.123456Z");
        for bad in ["", "2024-05-06", "2024-05-06 07:08:09Z", "x", "2024-13-06T07:08:09Z"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_round_trip() {
        for text in ["0s", "5m0s", "1h2m3.5s", "1.5ms", "10ns", "-3s", "2540400h0m0s"] {
            assert_eq!(print_duration(duration(text).expect(text)), text);
        }
        assert_eq!(duration("1.5h"), Ok(5_400_000_000_000));
        assert!(duration("5").is_err() && duration("").is_err() && duration("1x").is_err());
    }

    #[test]
    fn quantities_are_checked_not_changed() {
        for good in ["1", "100m", "1.5Gi", "-1k", "1e3", "12E-2", "5E", "0"] {
            assert_eq!(check_quantity(good), Ok(()), "{good}");
        }
        for bad in ["", "x", "1Kb", "1.2.3", "--1", "1ee"] {
            assert!(check_quantity(bad).is_err(), "{bad}");
        }
    }
}
