//! The figures: medians of repetitions, with what each is to be compared to.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) samples: Vec<f64>,
    /// More is better.
    pub(crate) more: bool,
    /// What it is to reach, in the same unit.
    pub(crate) goal: Option<f64>,
    /// The figure of the same run that it is a part of.
    pub(crate) of: Option<String>,
}

/// All figures, in their order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) figures: Vec<Figure>,
}

/// The middle of some values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

impl Figure {
    pub(crate) fn middle(&self) -> f64 {
        median(&self.samples)
    }
}

impl Report {
    /// Adds a sample to a figure, which is made by its first one.
    pub(crate) fn add(&mut self, what: &str, unit: &'static str, sample: f64) -> &mut Figure {
        let at = self.figures.iter().position(|figure| figure.what == what).unwrap_or_else(|| {
            let more = !matches!(unit, "ms" | "µs" | "bytes" | "MiB");
            let what = what.to_owned();
            self.figures.push(Figure { what, unit, samples: Vec::new(), more, goal: None, of: None });
            self.figures.len() - 1
        });
        let figure = &mut self.figures[at];
        figure.samples.push(sample);
        eprintln!("{what}: {} {unit}", number(sample));
        figure
    }

    /// The figure as a part of the one it is compared to: the median of the ratios within a repetition.
    pub(crate) fn ratio(&self, figure: &Figure) -> Option<f64> {
        let other = self.figures.iter().find(|other| Some(&other.what) == figure.of.as_ref())?;
        let ratios: Vec<f64> = figure.samples.iter().zip(&other.samples).map(|(a, b)| a / b).collect();
        Some(median(&ratios))
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("# apiserver\n\n{}\n\n", environment());
        text.push_str("| what | median | lowest..highest | goal | of |\n|---|--:|--:|--:|---|");
        for figure in &self.figures {
            let (low, high) =
                figure.samples.iter().fold((f64::MAX, 0f64), |(l, h), s| (l.min(*s), h.max(*s)));
            let goal = figure.goal.map_or_else(String::new, |goal| {
                let sign = if figure.more { '>' } else { '<' };
                format!("{sign} {} {}", number(goal), figure.unit)
            });
            let of = match (&figure.of, self.ratio(figure)) {
                (Some(of), Some(ratio)) => format!("{ratio:.2} of {of}"),
                _ => String::new(),
            };
            let middle = number(figure.middle());
            // Writing to a string can't fail.
            let _ = write!(
                text,
                "\n| {} | {middle} {} | {}..{} | {goal} | {of} |",
                figure.what,
                figure.unit,
                number(low),
                number(high)
            );
        }
        text.push('\n');
        text
    }

    pub(crate) fn json(&self) -> Value {
        let figure = |figure: &Figure| {
            json!({
                "what": figure.what,
                "unit": figure.unit,
                "median": figure.middle(),
                "samples": figure.samples,
                "goal": figure.goal,
                "of": figure.of,
                "ratio": self.ratio(figure),
            })
        };
        json!({
            "environment": environment(),
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
        })
    }
}

/// Three digits that count.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Kernel, processor and load: without them figures mean nothing.
pub(crate) fn environment() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "Linux {}, {count} × {model}, load average {}, {} build.",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or("?"),
        if cfg!(debug_assertions) { "debug" } else { "release" },
    )
}
