//! The figures: medians of repetitions, with what each is to be compared to.
//!
//! They come in parts, each measured at its own time: a run of some parts keeps what is written of the others.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) unit: String,
    pub(crate) samples: Vec<f64>,
    /// What it is to reach, in the same unit.
    pub(crate) goal: Option<f64>,
    /// The figure of the same part that it is compared to.
    pub(crate) of: Option<String>,
}

/// What was measured together.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    /// Where and under what load.
    pub(crate) environment: String,
    pub(crate) figures: Vec<Figure>,
}

/// All parts, in their order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) parts: Vec<Part>,
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

    /// More is better.
    pub(crate) fn more(&self) -> bool {
        !matches!(self.unit.as_str(), "ms" | "µs" | "bytes" | "MiB")
    }
}

impl Part {
    /// A part that begins now.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), environment: environment(), figures: Vec::new() }
    }

    /// Adds a sample to a figure, which is made by its first one.
    pub(crate) fn add(&mut self, what: &str, unit: &str, sample: f64) -> &mut Figure {
        let at = self.figures.iter().position(|figure| figure.what == what).unwrap_or_else(|| {
            let (what, unit) = (what.to_owned(), unit.to_owned());
            self.figures.push(Figure { what, unit, samples: Vec::new(), goal: None, of: None });
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

    fn markdown(&self, text: &mut String) -> std::fmt::Result {
        write!(text, "\n## {}\n\n{}\n\n", self.name, self.environment)?;
        text.push_str("| what | median | lowest..highest | goal | of |\n|---|--:|--:|--:|---|\n");
        for figure in &self.figures {
            let (low, high) =
                figure.samples.iter().fold((f64::MAX, 0f64), |(l, h), s| (l.min(*s), h.max(*s)));
            let goal = figure.goal.map_or_else(String::new, |goal| {
                let sign = if figure.more() { '>' } else { '<' };
                format!("{sign} {} {}", number(goal), figure.unit)
            });
            let of = match (&figure.of, self.ratio(figure)) {
                (Some(of), Some(ratio)) => format!("{ratio:.2} of {of}"),
                _ => String::new(),
            };
            writeln!(
                text,
                "| {} | {} {} | {}..{} | {goal} | {of} |",
                figure.what,
                number(figure.middle()),
                figure.unit,
                number(low),
                number(high)
            )?;
        }
        Ok(())
    }
}

impl Report {
    /// What an earlier run has written.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let Ok(text) = fs::read(file) else { return Ok(Self::default()) };
        let value: Value = serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
        Ok(Self { parts: Vec::deserialize(&value["parts"]).with_context(|| file.display().to_string())? })
    }

    /// Puts a part in the place of an older one; `order` has the names of all.
    pub(crate) fn put(&mut self, part: Part, order: &[&str]) {
        self.parts.retain(|other| other.name != part.name);
        self.parts.push(part);
        self.parts.sort_by_key(|part| order.iter().position(|name| *name == part.name));
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = "# apiserver\n".to_owned();
        for part in &self.parts {
            // Writing to a string can't fail.
            let _ = part.markdown(&mut text);
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let mut value = json!({"parts": self.parts});
        for (at, part) in self.parts.iter().enumerate() {
            for (index, figure) in part.figures.iter().enumerate() {
                let written = &mut value["parts"][at]["figures"][index];
                written["median"] = json!(figure.middle());
                written["ratio"] = json!(part.ratio(figure));
            }
        }
        value
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
