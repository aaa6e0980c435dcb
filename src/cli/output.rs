//! What goes out: standard output for programs and people, standard error for notes, files that appear whole.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Arguments;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::{Path, PathBuf};

use super::Done;
use super::failure::Failure;

/// Standard output. On a terminal, control characters that a model or a file brings along are shown, not obeyed.
pub struct Out {
    to: StdoutLock<'static>,
    terminal: bool,
    colours: bool,
}

impl Out {
    pub fn new() -> Self {
        let to = io::stdout().lock();
        let terminal = to.is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Out { to, terminal, colours }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes `text` and lets it be seen at once.
    pub fn text(&mut self, text: &str) -> Done {
        match self.terminal {
            true => self.to.write_all(harmless(text).as_bytes())?,
            false => self.to.write_all(text.as_bytes())?,
        }
        Ok(self.to.flush()?)
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Done {
        self.to.write_all(bytes)?;
        Ok(self.to.flush()?)
    }

    pub fn line(&mut self, line: Arguments<'_>) -> Done {
        self.text(&format!("{line}\n"))
    }

    /// A line beside the matter, in a dim colour where there are colours.
    pub fn aside(&mut self, line: &str) -> Done {
        self.coloured("2", line)
    }

    /// A line that stands out.
    pub fn heading(&mut self, line: &str) -> Done {
        self.coloured("1", line)
    }

    fn coloured(&mut self, code: &str, line: &str) -> Done {
        let line = harmless(line);
        match self.colours {
            true => writeln!(self.to, "\x1b[{code}m{line}\x1b[0m")?,
            false => writeln!(self.to, "{line}")?,
        }
        Ok(self.to.flush()?)
    }

    /// Ends the line on a terminal, whose prompt would follow the text otherwise.
    pub fn finish(&mut self) -> Done {
        if self.terminal {
            self.to.write_all(b"\n")?;
        }
        Ok(self.to.flush()?)
    }
}

/// A line on standard error. If nobody reads it, nothing is to be done.
pub fn note(line: Arguments<'_>) {
    let line = line.to_string();
    let _ = writeln!(io::stderr(), "{}", harmless(&line));
}

/// `text` with the control characters that could steer a terminal made visible.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(steers) {
        return text.into();
    }
    let shown = text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c });
    shown.collect::<String>().into()
}

/// Writes a file that is there whole or not at all: next to its place first, then renamed.
///
/// What is no regular file, such as `/dev/null`, is written to directly; `-` is standard output.
pub fn write_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Done) -> Done {
    if path.as_os_str() == "-" {
        let mut out = BufWriter::new(io::stdout().lock());
        fill(&mut out)?;
        return Ok(out.flush()?);
    }
    let failed = |error: io::Error| Failure::file(path, error);
    // A link is followed, so that what it names is replaced and not the link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&target).is_ok_and(|about| !about.is_file()) {
        let mut out = BufWriter::new(File::options().write(true).open(&target).map_err(failed)?);
        fill(&mut out)?;
        return out.flush().map_err(failed);
    }
    let name = target.file_name().ok_or_else(|| Failure::file(path, "expected the name of a file"))?;
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.part", std::process::id()));
    let part = Part(Some(target.with_file_name(beside)));
    let Some(place) = &part.0 else { return Ok(()) };
    let mut out = BufWriter::new(File::create_new(place).map_err(failed)?);
    fill(&mut out)?;
    out.flush().map_err(failed)?;
    fs::rename(place, &target).map_err(failed)?;
    part.keep();
    Ok(())
}

/// An unfinished file, removed unless it is kept.
struct Part(Option<PathBuf>);

impl Part {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// A table in Markdown, whose first row is its head and whose columns are as wide as their widest cell; behind the rows after
/// the head stand their remarks, where there are some.
pub fn table(rows: &[Vec<String>], remarks: &[&str], out: &mut Out) -> Done {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let remarks = std::iter::once(&"").chain(remarks).chain(std::iter::repeat(&""));
    for (number, (row, remark)) in rows.iter().zip(remarks).enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        let cells = cells.collect::<Vec<_>>().join(" | ");
        let gap = if remark.is_empty() { "" } else { " " };
        out.line(format_args!("| {cells} |{gap}{remark}"))?;
        if number == 0 {
            let rules = widths.iter().enumerate().map(|(column, &width)| match column {
                0 => "-".repeat(width + 2),
                _ => format!("{}:", "-".repeat(width + 1)),
            });
            out.line(format_args!("|{}|", rules.collect::<Vec<_>>().join("|")))?;
        }
    }
    Ok(())
}

/// Bytes for people: `4.7 MiB`.
pub fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "bytes" { format!("{bytes} bytes") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// A number of weights for people: `4.59 M`.
pub fn count(number: u64) -> String {
    let scales = [(1e9, " B"), (1e6, " M"), (1e3, " K")];
    match scales.iter().find(|(scale, _)| number as f64 >= *scale) {
        Some((scale, unit)) => format!("{:.2}{unit}", number as f64 / scale),
        None => number.to_string(),
    }
}
