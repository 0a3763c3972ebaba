//! The figures over the number of services, as an SVG: a panel each, a line a path or back end.

use std::fmt::Write as _;

use serde_json::Value;

const WIDTH: f64 = 410.0;
const HEIGHT: f64 = 250.0;
const MARGIN: (f64, f64, f64, f64) = (40.0, 150.0, 40.0, 62.0);

const COLOURS: [(&str, &str); 9] = [
    ("bare veth", "#b0b7c3"),
    ("pod to pod, Skep", "#7a5c00"),
    ("ClusterIP, Skep", "#d18b00"),
    ("ClusterIP, Skep per packet", "#e8b64c"),
    ("ClusterIP, nftables", "#3b6ea8"),
    ("ClusterIP, iptables", "#8a3ba8"),
    ("ebpf", "#d18b00"),
    ("nftables", "#3b6ea8"),
    ("iptables", "#8a3ba8"),
];

struct Panel {
    title: &'static str,
    logarithmic: bool,
    lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Writing to a string does not fail.
macro_rules! put {
    ($text:expr, $($words:tt)*) => { writeln!($text, $($words)*).expect("text") };
}

fn panel(all: &[Value], title: &'static str, logarithmic: bool, group: &str, field: &str) -> Panel {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for (name, _) in COLOURS {
        let points: Vec<(f64, f64)> = all
            .iter()
            .filter_map(|one| {
                let value = one[group].get(name)?.pointer(field)?.as_f64()?;
                Some((one["services"].as_f64()?, value))
            })
            .collect();
        if !points.is_empty() {
            lines.push((name.to_owned(), points));
        }
    }
    Panel { title, logarithmic, lines }
}

/// The plot.
pub(crate) fn svg(all: &[Value]) -> String {
    let panels = [
        panel(all, "TCP_CRR, of pod to pod", false, "paths", "/TCP_CRR/ofPodToPod"),
        panel(all, "first packet: connect, p50 µs", false, "paths", "/CONNECT/p50Us"),
        panel(all, "one endpoint to its effect, ms", true, "backEnds", "/effectMs/p50"),
        panel(all, "all services from nothing, s", true, "backEnds", "/coldSeconds"),
    ];
    let (width, height) = (WIDTH * 2.0, HEIGHT * 2.0);
    let mut text = String::new();
    put!(
        text,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">"#
    );
    put!(text, "<style>text{{font:11px sans-serif;fill:#222}}.t{{font-weight:bold;font-size:13px}}</style>");
    put!(text, r##"<rect width="{width}" height="{height}" fill="#fff"/>"##);
    for (number, panel) in panels.iter().enumerate() {
        #[allow(clippy::cast_precision_loss)]
        let (x, y) = ((number % 2) as f64 * WIDTH, (number / 2) as f64 * HEIGHT);
        put!(text, r#"<g transform="translate({x} {y})">"#);
        panel.draw(&mut text);
        put!(text, "</g>");
    }
    text.push_str("</svg>\n");
    text
}

impl Panel {
    fn draw(&self, text: &mut String) {
        put!(text, r#"<text class="t" x="12" y="22">{}</text>"#, self.title);
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let (left, right) = range(points().map(|(x, _)| x.log10()));
        let scale = |y: f64| if self.logarithmic { y.max(1e-6).log10() } else { y };
        let (mut low, high) = range(points().map(|(_, y)| scale(*y)));
        if !self.logarithmic {
            low = 0.0;
        }
        let (top, side, bottom, start) = MARGIN;
        let x = |x: f64| start + (x.log10() - left) / (right - left).max(0.1) * (WIDTH - side - start);
        let y =
            |y: f64| HEIGHT - bottom - (scale(y) - low) / (high - low).max(1e-3) * (HEIGHT - bottom - top);
        let mut numbers: Vec<f64> = points().map(|(x, _)| *x).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        for number in numbers {
            put!(
                text,
                r##"<path d="M{0:.1} {top}V{1}" stroke="#eee"/><text x="{0:.1}" y="{2}" text-anchor="middle">{number}</text>"##,
                x(number),
                HEIGHT - bottom,
                HEIGHT - bottom + 16.0
            );
        }
        for step in 0..=4 {
            let value = low + (high - low) * f64::from(step) / 4.0;
            let shown = if self.logarithmic { 10_f64.powf(value) } else { value };
            put!(
                text,
                r##"<path d="M{start} {0:.1}H{1}" stroke="#eee"/><text x="{2}" y="{3:.1}" text-anchor="end">{shown:.3}</text>"##,
                y(shown),
                WIDTH - side,
                start - 6.0,
                y(shown) + 4.0
            );
        }
        for (number, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS.iter().find(|(of, _)| of == name).map_or("#222", |(_, colour)| colour);
            let places: Vec<String> =
                points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
            put!(
                text,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
                places.join(" ")
            );
            for (px, py) in points {
                put!(text, r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#, x(*px), y(*py));
            }
            #[allow(clippy::cast_precision_loss)]
            let line = top + 6.0 + 15.0 * number as f64;
            put!(
                text,
                r#"<rect x="{0}" y="{1}" width="9" height="9" fill="{colour}"/><text x="{2}" y="{3}">{name}</text>"#,
                WIDTH - side + 8.0,
                line - 8.0,
                WIDTH - side + 21.0,
                line
            );
        }
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { (0.0, 1.0) } else { (low, high) }
}
