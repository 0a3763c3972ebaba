//! Resource quantities: `500m`, `1.5Gi`, `12e6`.
//!
//! A quantity is a fixed-point number of billionths plus the notation it was written in. Printing is
//! canonical: no fraction, the largest suffix that loses nothing, so `1000m` prints `1` and `1.5Gi`
//! prints `1536Mi`. What is finer than a billionth rounds away from zero; magnitudes are capped at 2^63-1.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const CAP: i128 = i64::MAX as i128 * NANO;
/// Significant digits read exactly; more of them only round up. 28 hold every capped value to a
/// billionth; before a binary suffix 19 do, and leave room for its factor.
const DIGITS: [usize; 2] = [28, 19];
const MAX_TEXT: usize = 128;

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12k`, `500m`
    #[default]
    DecimalSi,
    /// `12Ki`
    BinarySi,
    /// `12e3`
    DecimalExponent,
}

/// Text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// A suffix that means nothing.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount of a resource. Compares by value, whatever the notation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// A whole number in decimal notation.
    pub fn from_int(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANO, format: Format::DecimalSi }
    }

    /// Thousandths in decimal notation.
    pub fn from_milli(value: i64) -> Self {
        Self { nanos: i128::from(value) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A whole number of bytes, in binary notation.
    pub fn from_bytes(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANO, format: Format::BinarySi }
    }

    /// The notation.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The whole number, rounded up.
    pub fn value(&self) -> i64 {
        saturate(ceil_div(self.nanos, NANO))
    }

    /// Thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        saturate(ceil_div(self.nanos, NANO / 1000))
    }

    /// Whether it is 0.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Whether it is a whole number.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// The sum, in this notation (the other's when this is 0).
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-CAP, CAP), format }
    }

    /// The difference, in this notation (the other's when this is 0).
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.plus(&Self { nanos: -other.nanos, format: other.format })
    }
}

fn saturate(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn ceil_div(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The suffix as a power of ten, a power of 1024, and the notation.
fn suffix(text: &str) -> Result<(i32, u32, Format), ParseError> {
    let decimal = |exponent| Ok((exponent, 0, Format::DecimalSi));
    let binary = |power| Ok((0, power, Format::BinarySi));
    match text {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent = text.strip_prefix(['e', 'E']).ok_or(ParseError::Suffix)?;
            let exponent: i32 = exponent.parse().map_err(|_| ParseError::Suffix)?;
            // Beyond this everything is capped or rounded to one billionth anyway.
            Ok((exponent.clamp(-1000, 1000), 0, Format::DecimalExponent))
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(ParseError::Format);
        }
        let (negative, unsigned) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, rest) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseError::Format);
        }
        if !rest.bytes().all(|b| b"eEinumkKMGTP+-".contains(&b) || b.is_ascii_digit()) {
            return Err(ParseError::Format);
        }
        let (tens, kibis, format) = suffix(rest)?;

        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let kept = &digits[..digits.len().min(DIGITS[usize::from(kibis > 0)])];
        let dropped = &digits[kept.len()..];
        let sticky = dropped.bytes().any(|b| b != b'0');
        let mantissa: u128 =
            if kept.is_empty() { 0 } else { kept.parse().map_err(|_| ParseError::Format)? };
        // At most MAX_TEXT digits and a clamped exponent: no overflow.
        let exponent = tens + 9 + dropped.len() as i32 - fraction.len() as i32;
        let scaled = mantissa << (10 * kibis);
        let magnitude = if let Ok(up) = u32::try_from(exponent) {
            10u128.checked_pow(up).and_then(|p| scaled.checked_mul(p)).unwrap_or(if mantissa == 0 {
                0
            } else {
                u128::MAX
            })
        } else {
            match 10u128.checked_pow(exponent.unsigned_abs()) {
                Some(power) => scaled / power + u128::from(sticky || !scaled.is_multiple_of(power)),
                None => u128::from(scaled != 0),
            }
        };
        let nanos = i128::try_from(magnitude).unwrap_or(CAP).min(CAP);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / NANO;
        if self.format == Format::BinarySi && self.is_integer() && whole.abs() >= 1024 {
            let mut value = whole;
            let mut power = 0;
            while value % 1024 == 0 && power < 6 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let mut value = self.nanos;
        let mut power = 0;
        while value % 1000 == 0 && power < 9 {
            value /= 1000;
            power += 1;
        }
        if self.format == Format::DecimalExponent {
            let exponent = power as i32 * 3 - 9;
            return if exponent == 0 { write!(f, "{value}") } else { write!(f, "{value}e{exponent}") };
        }
        write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        for (text, want) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1000", "1k"),
            ("100000", "100k"),
            ("12e6", "12e6"),
            ("12E6", "12e6"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("1e-3", "1e-3"),
            ("100u", "100u"),
            ("0.1n", "1n"),
            ("-1.5", "-1500m"),
            ("+3", "3"),
            ("999999999999999999999", "9223372036854775807"),
            ("1e1000", "9223372036854775807"),
            ("8Ei", "9223372036854775807"),
            ("7Ei", "7Ei"),
        ] {
            let quantity: Quantity = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(quantity.to_string(), want, "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in ["", "1.2.3", "abc", "1kk", "1 Gi", "Gi", "--1", "1e", "1ki", "1mi", ".", "é"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let half: Quantity = "500m".parse().unwrap();
        assert_eq!((half.value(), half.milli_value()), (1, 500));
        let minus: Quantity = "-500m".parse().unwrap();
        assert_eq!(minus.value(), 0);
        assert_eq!("1Gi".parse::<Quantity>().unwrap(), Quantity::from_bytes(1 << 30));
    }

    proptest! {
        #[test]
        fn printing_round_trips(value in any::<i64>(), scale in 0usize..16) {
            let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "e3", "e-6"];
            let quantity: Quantity = format!("{value}{}", suffixes[scale]).parse().unwrap();
            let printed = quantity.to_string();
            let again: Quantity = printed.parse().unwrap();
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(again.to_string(), printed);
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,40}") {
            let _ignored = text.parse::<Quantity>().map(|q| q.to_string());
        }

        #[test]
        fn addition_agrees_with_integers(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000_000i64..1_000_000_000) {
            let sum = Quantity::from_milli(a).plus(&Quantity::from_milli(b));
            prop_assert_eq!(sum.milli_value(), a + b);
            prop_assert_eq!(sum.minus(&Quantity::from_milli(b)), Quantity::from_milli(a));
        }
    }
}
