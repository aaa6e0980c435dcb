//! A model that does nothing takes no processor time; more threads than processors cost little.

use std::process::Command;
use std::time::{Duration, Instant};

use gristmill::generate::StepperOptions;
use gristmill::model::ModelOptions;

use crate::models::{self, tokens};

/// Runs the test `name` of this binary alone, in a process of its own.
fn alone(name: &str) {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

/// Ticks of 10 ms that this process has computed, user and system.
#[cfg(target_os = "linux")]
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_model_takes_no_processor_time() {
    alone("hostile::idle::idle_model");
}

#[test]
#[ignore = "needs a process of its own; see above"]
#[cfg(target_os = "linux")]
fn idle_model() {
    let model = ModelOptions::default().threads(4).open(models::path(models::LLAMA)).unwrap();
    let mut stepper = model.stepper(StepperOptions::default()).unwrap();
    stepper.feed(&tokens(40)).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let before = ticks();
    std::thread::sleep(Duration::from_millis(1000));
    let took = ticks() - before;
    println!("{took} ticks in a second");
    assert!(took <= 3, "{took} ticks of 10 ms in an idle second");
}

#[test]
fn too_many_threads_do_not_bring_the_machine_down() {
    let time = |threads: usize| {
        let model = ModelOptions::default().threads(threads).open(models::path(models::MISTRAL)).unwrap();
        let mut stepper = model.stepper(StepperOptions::default()).unwrap();
        stepper.feed(&tokens(4)).unwrap();
        let start = Instant::now();
        tokens(100).iter().for_each(|&token| stepper.feed(&[token]).unwrap());
        start.elapsed()
    };
    let (one, two, many) = (time(1), time(2), time(64));
    println!("100 tokens by one thread {one:?}, by two {two:?}, by 64 {many:?}");
    assert!(many < 20 * one + Duration::from_millis(500), "one thread {one:?}, 64 threads {many:?}");
}
