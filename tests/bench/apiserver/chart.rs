//! The figures as an SVG: a bar each, as long as the figure is of its goal or of what it is compared to.

use std::fmt::Write as _;

use crate::report::{Report, number};

const LABELS: f64 = 330.0;
const BARS: f64 = 360.0;
const VALUES: f64 = 190.0;
const ROW: f64 = 26.0;
const HEAD: f64 = 60.0;

/// The plot.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn svg(report: &Report) -> String {
    // What has neither goal nor measure has no length.
    let rows: Vec<_> = report
        .parts
        .iter()
        .flat_map(|part| part.figures.iter().map(move |figure| (part, figure)))
        .filter_map(|(part, figure)| {
            let part = match (part.ratio(figure), figure.goal) {
                (Some(ratio), _) => ratio,
                (None, Some(goal)) if figure.more() => figure.middle() / goal,
                (None, Some(goal)) => goal / figure.middle(),
                (None, None) => return None,
            };
            let to = figure.of.as_ref().map_or("goal", |_| "limit");
            Some((figure, part, to))
        })
        .collect();
    let most = rows.iter().map(|(_, part, _)| *part).fold(1.0, f64::max);
    let (width, height) = (LABELS + BARS + VALUES, HEAD + ROW * rows.len() as f64 + 20.0);
    let mut text = String::new();
    macro_rules! put {
        ($($words:tt)*) => { let _ = writeln!(text, $($words)*); };
    }
    put!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">"#
    );
    put!("<style>text{{font:13px sans-serif;fill:#222}}.t{{font-weight:bold;font-size:15px}}</style>");
    put!(r##"<rect width="{width}" height="{height}" fill="#fff"/>"##);
    put!(
        r#"<text class="t" x="12" y="26">apiserver: how much of its goal, or of the store's own limit</text>"#
    );
    let one = LABELS + BARS / most;
    for (index, (figure, part, to)) in rows.iter().enumerate() {
        let y = HEAD + ROW * index as f64;
        let colour = if *to == "goal" { "#d18b00" } else { "#8a94a6" };
        put!(r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#, LABELS - 8.0, y + 13.0, figure.what);
        put!(
            r#"<rect x="{LABELS}" y="{y}" width="{:.1}" height="18" rx="2" fill="{colour}"/>"#,
            BARS * part / most
        );
        let value = number(figure.middle());
        put!(
            r#"<text x="{:.1}" y="{}">{value} {}, {part:.2} of {to}</text>"#,
            LABELS + BARS * part / most + 6.0,
            y + 13.0,
            figure.unit
        );
    }
    put!(
        r##"<line x1="{one:.1}" x2="{one:.1}" y1="{}" y2="{}" stroke="#222" stroke-dasharray="4 3"/>"##,
        HEAD - 10.0,
        height - 12.0
    );
    put!("</svg>");
    text
}
