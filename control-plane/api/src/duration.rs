//! Durations: Go's notation (`1h30m`, `250ms`) and the short form of ages in tables (`2d3h`).

use std::time::Duration;

const UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("\u{b5}s", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Reads Go's notation. Negative durations and garbage are `None`.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos += number * factor;
        rest = tail;
    }
    // Go's durations are 63 bits of nanoseconds.
    (nanos <= i64::MAX as f64).then(|| Duration::from_nanos(nanos.round() as u64))
}

/// Writes Go's notation: `1h30m0s`, `1.5s`, `250ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (unit, scale) = match nanos {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("\u{b5}s", 1_000),
            _ => ("ms", 1_000_000),
        };
        return decimal(nanos, scale) + unit;
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = u128::from(seconds % 60) * 1_000_000_000 + u128::from(duration.subsec_nanos());
    let rest = decimal(rest, 1_000_000_000) + "s";
    match (hours, minutes) {
        (0, 0) => rest,
        (0, m) => format!("{m}m{rest}"),
        (h, m) => format!("{h}h{m}m{rest}"),
    }
}

fn decimal(value: u128, scale: u128) -> String {
    let (whole, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = scale.to_string().len() - 1;
    format!("{whole}.{}", format!("{fraction:0width$}").trim_end_matches('0'))
}

/// The age column of tables: two or three significant figures. Slightly negative ages count as now,
/// because clocks differ; more negative ones are `<invalid>`.
pub fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_notation() {
        for (text, want) in
            [("1h30m", 5400.0), ("1.5s", 1.5), ("250ms", 0.25), ("0", 0.0), ("2h0m1s", 7201.0)]
        {
            assert_eq!(parse(text), Some(Duration::from_secs_f64(want)), "{text}");
        }
        for bad in ["", "1", "-1s", "1x", "s", "h1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for (want, millis) in
            [("1h0m0s", 3_600_000), ("1m30s", 90_000), ("1.5s", 1500), ("250ms", 250), ("0s", 0)]
        {
            assert_eq!(format(Duration::from_millis(millis)), want);
        }
    }

    #[test]
    fn ages() {
        for (seconds, want) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (130, "2m10s"),
            (601, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (47 * 3600, "47h"),
            (49 * 3600, "2d1h"),
            (9 * 86400, "9d"),
            (800 * 86400, "2y70d"),
            (3000 * 86400, "8y"),
        ] {
            assert_eq!(human(seconds), want, "{seconds}");
        }
    }
}
