//! llama.cpp's llama-bench, run for comparison.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::readings::{self, Reading};
use crate::{CacheType, CacheTypes, Error, Result};

/// A `llama-bench`: llama.cpp's, or one of a fork that has its flags and its JSON.
#[derive(Clone, Debug)]
pub struct LlamaBench {
    /// Where it lies.
    pub program: PathBuf,
}

/// What one process of it is to measure: each test once, after a run that warms up.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The file.
    pub model: &'a Path,
    /// Lengths of prompts; 0 for none.
    pub prompts: &'a [usize],
    /// How many tokens to generate; 0 for none.
    pub generations: &'a [usize],
    /// Tokens before the test.
    pub depth: usize,
    /// Threads.
    pub threads: usize,
    /// Tokens of a prompt in one pass, where it is not what the program takes by itself.
    pub batch: Option<usize>,
    /// In which form keys and values are kept.
    pub cache: CacheTypes,
    /// Flash attention: `on`, `off`; `None` leaves it to the program.
    pub flash: Option<&'static str>,
}

impl LlamaBench {
    /// Settings of flash attention to try at this depth with this cache, of which the faster counts; `None` leaves it to
    /// the program.
    pub fn flash(depth: usize, cache: CacheTypes) -> &'static [Option<&'static str>] {
        // Without flash attention llama.cpp refuses values in blocks.
        let blocks = matches!(cache.values, CacheType::Q8_0 | CacheType::Q4_0);
        match depth {
            0 => &[None],
            _ if blocks => &[Some("on")],
            _ => &[Some("on"), Some("off")],
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`Error::Peer`] with what it said, or what was expected of its output.
    pub fn run(&self, order: &Order<'_>) -> Result<Vec<Reading>> {
        let failed = |reason: String| Error::Peer { program: self.program.clone(), reason };
        let mut command = Command::new(&self.program);
        command.args(arguments(order)).arg("-m").arg(order.model);
        let output = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let mut last: Vec<&str> = said.lines().rev().take(3).collect();
            last.reverse();
            return Err(failed(format!("{}: {}", output.status, last.join(" / "))));
        }
        readings::llama_bench(&String::from_utf8_lossy(&output.stdout)).map_err(failed)
    }
}

/// Its arguments but for the model.
fn arguments(order: &Order<'_>) -> Vec<String> {
    let list = |numbers: &[usize]| {
        let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
        if numbers.is_empty() { "0".to_owned() } else { numbers.join(",") }
    };
    let (prompts, generations, threads) =
        (list(order.prompts), list(order.generations), order.threads.to_string());
    let mut arguments = ["-o", "json", "-r", "1", "-p", &prompts, "-n", &generations, "-t", &threads]
        .map(str::to_owned)
        .to_vec();
    let mut more = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    // Flags that a fork may lack are given where they are needed.
    if order.depth > 0 {
        more("-d", order.depth.to_string());
    }
    if let Some(batch) = order.batch {
        more("-b", batch.to_string());
        more("-ub", batch.to_string());
    }
    if order.cache != CacheTypes::default() {
        more("-ctk", order.cache.keys.to_string());
        more("-ctv", order.cache.values.to_string());
    }
    if let Some(flash) = order.flash {
        more("-fa", flash.to_owned());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_a_fork_may_lack_are_given_where_they_are_needed() {
        let mut order = Order {
            model: Path::new("m"),
            prompts: &[512],
            generations: &[],
            depth: 0,
            threads: 2,
            batch: None,
            cache: CacheTypes::default(),
            flash: None,
        };
        assert_eq!(arguments(&order).join(" "), "-o json -r 1 -p 512 -n 0 -t 2");
        order.depth = 64;
        order.generations = &[1, 2];
        order.batch = Some(128);
        order.cache.values = CacheType::Q8_0;
        order.flash = Some("on");
        let expected = "-o json -r 1 -p 512 -n 1,2 -t 2 -d 64 -b 128 -ub 128 -ctk f16 -ctv q8_0 -fa on";
        assert_eq!(arguments(&order).join(" "), expected);
    }

    #[test]
    fn attention_is_tried_both_ways_where_both_may_win() {
        let f16 = CacheTypes::default();
        assert_eq!(LlamaBench::flash(0, f16), [None]);
        assert_eq!(LlamaBench::flash(1, f16), [Some("on"), Some("off")]);
        assert_eq!(LlamaBench::flash(1, CacheType::Q8_0.into()), [Some("on")]);
    }
}
