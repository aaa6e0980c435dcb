//! A bar for work that takes long, where standard error is a terminal.

use std::io::{IsTerminal, stderr};

use gristmill::eval;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `tokens` tokens; invisible where nobody would see it, and for work that is soon done.
pub fn tokens(what: &'static str, tokens: usize) -> Bar {
    if tokens < 256 || !stderr().is_terminal() {
        return Bar(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(tokens as u64).with_message(what);
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} tokens, {eta} left");
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.tick();
    Bar(bar)
}

/// A bar over `runs` pieces of work; invisible where nobody would see it.
pub fn runs(what: &'static str, runs: usize) -> Bar {
    if !stderr().is_terminal() {
        return Bar(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(runs as u64).with_message(what);
    let style = ProgressStyle::with_template("{msg} {bar:30} run {pos} of {len}, {eta} left");
    Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
}

/// A bar over `bytes` bytes of a file; invisible where nobody would see it.
pub fn bytes(what: &'static str, bytes: u64) -> Bar {
    if !stderr().is_terminal() {
        return Bar(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(bytes).with_message(what);
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}, {eta} left");
    Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
}

/// A bar over chunks of a text, or tasks, with the estimate of `what` so far.
pub struct Estimating(Bar, &'static str);

impl Estimating {
    /// For work of which nothing is done yet.
    pub fn new(what: &'static str) -> Self {
        if !stderr().is_terminal() {
            return Estimating(Bar(ProgressBar::hidden()), what);
        }
        let bar = ProgressBar::new(0).with_message(what);
        let style = ProgressStyle::with_template("{msg} {bar:30} {pos} of {len}, {eta} left");
        Estimating(Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))), what)
    }

    /// How much is done, and what was found.
    pub fn at(&self, progress: eval::Progress) {
        let Estimating(Bar(bar), what) = self;
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        if let Some(estimate) = progress.estimate {
            bar.set_message(format!("{what} {estimate}"));
        }
    }
}

/// A bar over steps that follow each other, each of parts of its own.
pub struct Steps(Bar);

impl Steps {
    /// Before the first step.
    pub fn new() -> Self {
        if !stderr().is_terminal() {
            return Steps(Bar(ProgressBar::hidden()));
        }
        let style = ProgressStyle::with_template("{msg} {bar:30} {pos} of {len}");
        Steps(Bar(ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))))
    }

    /// Which step is at hand, of what, and how far it is.
    pub fn at(&self, step: &str, of: &str, done: usize, total: usize) {
        let Steps(Bar(bar)) = self;
        bar.set_message(format!("{of}: {step}"));
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }
}

/// A bar that vanishes when it is dropped.
pub struct Bar(ProgressBar);

impl Bar {
    /// How much is done.
    pub fn at(&self, done: usize) {
        self.0.set_position(done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
