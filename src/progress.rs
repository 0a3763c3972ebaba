//! What `skep up` shows while it starts: one line a step, with the time it took.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// The display. Without a terminal it prints plain lines.
pub(crate) struct Progress {
    spinner: Option<ProgressBar>,
    began: Instant,
    step: Option<(String, Instant)>,
}

impl Progress {
    /// A display that begins now.
    pub(crate) fn new() -> Self {
        Self { spinner: None, began: Instant::now(), step: None }
    }

    /// A step begins; the one before is done.
    pub(crate) fn step(&mut self, what: &str) {
        self.done();
        if std::io::stderr().is_terminal() {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner:.cyan} {msg}") {
                spinner.set_style(style);
            }
            spinner.set_message(what.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(80));
            self.spinner = Some(spinner);
        }
        self.step = Some((what.to_owned(), Instant::now()));
    }

    /// The step is done.
    pub(crate) fn done(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        if let Some((what, since)) = self.step.take() {
            eprintln!("  \u{2713} {what} ({:.2} s)", since.elapsed().as_secs_f64());
        }
    }

    /// Seconds since the display began.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}
