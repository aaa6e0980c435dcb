//! Whole models, ours beside peers:
//! `cargo bench --bench peers -- MODEL.gguf... --llama-bench [NAME=]PATH [--llama-bench ...] [--ferrox PATH]
//!  [--prompt 512] [--generate 64] [--depth 0,4096] [--threads N] [--rounds 5] [--cache f16|q8_0]
//!  [--isa NAME] [--grist [NAME=]PATH]`
//!
//! Each measurement is a process of its own, which loads the model, warms up and times one run. The contenders take
//! turns, round by round, so that whatever slows the machine down slows all of them; the figure is the median of the rounds.
//! At a depth above 0 llama-bench runs with flash attention and without, and its faster setting counts, test by test.
//!
//! A `--llama-bench` is llama.cpp's, one of a fork that has its flags, or the small program in `llama-cpp-2/`. `--ferrox`
//! is the program of the crate ferrox-cli, 0.25; it knows no depth. Without `--grist`, the program of this build.
//! A machine with other work makes spreads of 10 % and more: such figures say nothing.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its figures, and what it is doing"
)]

mod settings;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use gristmill::speed::Figures;
use gristmill::speed::peer::{LlamaBench, Order};
use gristmill::speed::readings::{self, Reading};
use settings::{Contender, Kind, Settings};

fn main() -> ExitCode {
    // `cargo bench` names itself to the programs that it runs.
    let args: Vec<String> =
        std::env::args().skip(1).filter(|arg| arg != "--bench" && arg != "--test").collect();
    if args.is_empty() {
        println!("peers: no model is given, so nothing is measured; see the head of benches/peers/main.rs");
        return ExitCode::SUCCESS;
    }
    match Settings::parse(args).and_then(|settings| measure(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("peers: {message}");
            ExitCode::FAILURE
        }
    }
}

/// All rates of one line of the table by one contender in one setting.
struct Series {
    model: String,
    test: String,
    /// Place among the contenders.
    contender: usize,
    flash: Option<&'static str>,
    rates: Vec<f64>,
}

fn measure(settings: &Settings) -> Result<(), String> {
    let mut all: Vec<Series> = Vec::new();
    let mut abouts: Vec<Option<String>> = vec![None; settings.contenders.len()];
    let load_before = load();
    for round in 1..=settings.rounds {
        for model in &settings.models {
            for &depth in &settings.depths {
                for (number, contender) in settings.contenders.iter().enumerate() {
                    for &flash in contender.flash(depth, settings.cache) {
                        let how = flash.map(|flash| format!(", flash attention {flash}")).unwrap_or_default();
                        eprintln!("round {round}, {model}, depth {depth}: {}{how}", contender.name);
                        let readings = match run(contender, settings, model, depth, flash) {
                            Ok(readings) => readings,
                            Err(message) if number == 0 => return Err(message),
                            Err(message) => {
                                eprintln!("  left out: {message}");
                                continue;
                            }
                        };
                        for reading in readings {
                            if let Some(about) = abouts.get_mut(number) {
                                about.get_or_insert(reading.about);
                            }
                            let same = |series: &&mut Series| {
                                (series.contender, series.flash) == (number, flash)
                                    && (&series.model, &series.test) == (model, &reading.test)
                            };
                            match all.iter_mut().find(same) {
                                Some(series) => series.rates.extend(reading.rates),
                                None => all.push(Series {
                                    model: model.clone(),
                                    test: reading.test,
                                    contender: number,
                                    flash,
                                    rates: reading.rates,
                                }),
                            }
                        }
                    }
                }
            }
        }
    }
    head(settings, &abouts, &load_before);
    table(settings, &all);
    Ok(())
}

/// One process: what it measured at one depth.
fn run(
    contender: &Contender,
    settings: &Settings,
    model: &str,
    depth: u32,
    flash: Option<&'static str>,
) -> Result<Vec<Reading>, String> {
    let [prompt, generate, threads] =
        [settings.prompt, settings.generate, settings.threads].map(|n| n.to_string());
    let depth_text = depth.to_string();
    let mut command = Command::new(&contender.program);
    let receipt = std::env::temp_dir().join(format!("gristmill-peers-{}.json", std::process::id()));
    match contender.kind {
        Kind::Grist => {
            command.args(["bench", "--json", "-r", "1", "-p", &prompt, "-n", &generate, "-d", &depth_text]);
            command.args(["--threads", &threads, "--cache", settings.cache.name(), model]);
            if let Some(isa) = &settings.isa {
                command.args(["--isa", isa]);
            }
        }
        Kind::LlamaBench => {
            let order = Order {
                model: Path::new(model),
                prompts: &[settings.prompt as usize],
                generations: &[settings.generate as usize],
                depth: depth as usize,
                threads: settings.threads as usize,
                batch: None,
                cache: settings.cache.into(),
                flash,
            };
            let peer = LlamaBench { program: contender.program.clone() };
            return peer.run(&order).map_err(|error| error.to_string());
        }
        Kind::Ferrox => {
            // It refuses to measure a machine with work, or beside itself; here all contenders bear the same.
            command.args(["--allow-multiple-instances", "bench", "--max-load", "0", "-r", "1"]);
            command
                .args(["-p", &prompt, "-n", &generate, "-t", &threads, "-m", model, "--receipt"])
                .arg(&receipt);
        }
    }
    let failed = |what: String| format!("{}: {what}", contender.program.display());
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        return Err(failed(format!(
            "{}: {}",
            output.status,
            last.into_iter().rev().collect::<Vec<_>>().join(" / ")
        )));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    match contender.kind {
        Kind::Grist | Kind::LlamaBench => readings::grist(&printed),
        Kind::Ferrox => {
            let text = std::fs::read_to_string(&receipt).map_err(|error| failed(error.to_string()))?;
            // What is left behind in the temporary folder harms nobody.
            let _ = std::fs::remove_file(&receipt);
            readings::ferrox(&text)
        }
    }
    .map_err(failed)
}

/// What was measured where, when and with what.
fn head(settings: &Settings, abouts: &[Option<String>], load_before: &str) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cpu = cpu.map_or("unknown processor", |(_, name)| name);
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    let date =
        date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    println!(
        "- {cpu}, {} threads, {} cache; {date}; load {load_before} before, {} after",
        settings.threads,
        settings.cache,
        load()
    );
    for (contender, about) in settings.contenders.iter().zip(abouts) {
        println!("- {}: {}", contender.name, about.as_deref().unwrap_or("did not run"));
    }
    println!(
        "- tokens per second, median of {} rounds (most less least, as a part of it)\n",
        settings.rounds
    );
}

/// The work that waited for a processor in the last minute, where the system says it.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown").to_owned()
}

fn table(settings: &Settings, all: &[Series]) {
    let names: Vec<&str> = settings.contenders.iter().map(|contender| contender.name.as_str()).collect();
    let ours = names.first().copied().unwrap_or_default();
    println!("| model | test | {} | {ours} / best peer |", names.join(" | "));
    println!("|---|---|{}", "---:|".repeat(names.len() + 1));
    let mut lines: Vec<(&str, &str)> = Vec::new();
    for series in all {
        let line = (series.model.as_str(), series.test.as_str());
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.sort_by_key(|(model, _)| settings.models.iter().position(|given| given == model));
    for (model, test) in lines {
        let best = |number: usize| {
            let own =
                all.iter().filter(|series| (series.model.as_str(), series.test.as_str()) == (model, test));
            own.filter(|series| series.contender == number)
                .filter_map(|series| Figures::of(&series.rates).map(|figures| (figures, series.flash)))
                .max_by(|(a, _), (b, _)| a.median.total_cmp(&b.median))
        };
        let figures: Vec<_> = (0..names.len()).map(best).collect();
        let cells = figures.iter().map(|cell| match cell {
            None => "-".to_owned(),
            Some((figures, flash)) => {
                let flash = flash.map(|flash| format!(", fa {flash}")).unwrap_or_default();
                format!("{:.1} ({:.0} %{flash})", figures.median, 100.0 * figures.spread())
            }
        });
        let cells: Vec<String> = cells.collect();
        let median = |cell: &Option<(Figures, _)>| cell.as_ref().map(|(figures, _)| figures.median);
        let peer = figures.iter().skip(1).filter_map(median).max_by(f64::total_cmp);
        let ratio = figures.first().and_then(median).zip(peer);
        let ratio = ratio.map_or("-".to_owned(), |(ours, peer)| format!("{:.2}", ours / peer));
        let file = Path::new(model).file_name().map_or(model.into(), |file| file.to_string_lossy());
        println!("| {file} | {test} | {} | {ratio} |", cells.join(" | "));
    }
}
