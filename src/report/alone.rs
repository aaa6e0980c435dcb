//! A model in a process of its own, for the memory that it takes.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::data::Settings;
use crate::{Error, Result};

/// How long to wait before looking again whether the process has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Has `program`, which is `grist`, run the model at `path` once: the bytes that it held at most, where its system tells them.
pub fn run(
    program: &Path,
    path: &Path,
    settings: &Settings,
    level: &str,
    threads: usize,
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Option<u64>> {
    let failed = |reason: String| Error::Peer { program: program.to_owned(), reason };
    let number = |number: usize| number.to_string();
    let mut command = Command::new(program);
    command.args(["report", "--alone", "-p", &number(settings.prompt), "-n", &number(settings.generate)]);
    command.args(["--isa", level, "--threads", &number(threads)]).arg(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    // What it says fits into the pipes, so it never waits for a reader.
    let status = loop {
        match child.try_wait().map_err(|error| failed(error.to_string()))? {
            Some(status) => break status,
            None if go_on().is_break() => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::Cancelled);
            }
            None => sleep(PAUSE),
        }
    };
    let read = |stream: Option<&mut dyn Read>| {
        let mut said = String::new();
        stream.map_or(Ok(0), |stream| stream.read_to_string(&mut said)).map(|_| said.trim().to_owned())
    };
    let said = read(child.stdout.as_mut().map(|stream| stream as &mut dyn Read));
    let said = said.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let why = read(child.stderr.as_mut().map(|stream| stream as &mut dyn Read)).unwrap_or_default();
        return Err(failed(format!("{status}: {why}")));
    }
    match said.as_str() {
        "" => Ok(None),
        bytes => bytes.parse().map(Some).map_err(|_| failed(format!("expected bytes, found `{bytes}`"))),
    }
}
