//! The figures as an SVG: a panel a mode, a bar a path, quartiles as whiskers.

use std::fmt::Write as _;

use crate::report::Report;

const LABELS: f64 = 260.0;
const BARS: f64 = 460.0;
const VALUES: f64 = 90.0;
const ROW: f64 = 26.0;
const HEAD: f64 = 44.0;
const FOOT: f64 = 16.0;

/// Writing to a string does not fail.
macro_rules! put {
    ($text:expr, $($words:tt)*) => { writeln!($text, $($words)*).expect("text") };
}

/// The plot.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn svg(report: &Report) -> String {
    let (modes, names) = (report.modes(), report.names());
    let panel = HEAD + ROW * names.len() as f64 + FOOT;
    let (width, height) = (LABELS + BARS + VALUES, panel * modes.len() as f64 + HEAD);
    let mut text = String::new();
    put!(
        text,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">"#
    );
    put!(
        text,
        "<style>text{{font:13px sans-serif;fill:#222}}.t{{font-weight:bold;font-size:15px}}.v{{font-size:12px}}</style>"
    );
    put!(text, r##"<rect width="{width}" height="{height}" fill="#fff"/>"##);
    put!(text, r#"<text class="t" x="12" y="26">service-path: {}</text>"#, report.title());
    for (index, mode) in modes.iter().enumerate() {
        let top = HEAD + panel * index as f64;
        put!(
            text,
            r#"<text class="t" x="12" y="{}">{}, transactions per second</text>"#,
            top + 20.0,
            mode.name()
        );
        let most = names.iter().map(|name| report.rate(*mode, name).high).fold(1.0, f64::max);
        let x = |value: f64| LABELS + BARS * value / most;
        for (row, name) in names.iter().enumerate() {
            let rate = report.rate(*mode, name);
            let (y, middle) = (top + HEAD + ROW * row as f64 - 12.0, top + HEAD + ROW * row as f64 - 3.0);
            let colour = if name.contains("Skep") { "#d18b00" } else { "#8a94a6" };
            put!(text, r#"<text x="{}" y="{}" text-anchor="end">{name}</text>"#, LABELS - 8.0, middle + 4.0);
            put!(
                text,
                r#"<rect x="{LABELS}" y="{y}" width="{:.1}" height="18" rx="2" fill="{colour}"/>"#,
                x(rate.middle) - LABELS
            );
            put!(
                text,
                r##"<path d="M{:.1} {middle}H{:.1}" stroke="#222" stroke-width="2"/>"##,
                x(rate.low),
                x(rate.high)
            );
            put!(
                text,
                r#"<text class="v" x="{:.1}" y="{}">{:.0}</text>"#,
                x(rate.high) + 6.0,
                middle + 4.0,
                rate.middle
            );
        }
    }
    text.push_str("</svg>\n");
    text
}
