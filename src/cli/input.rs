//! What comes in beside the model: texts, JSON and token ids, from files, standard input or the command line.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value as Json;

use super::Done;
use super::failure::Failure;

/// No input beside a model may be longer: `/dev/zero` never ends.
const MAX_INPUT: u64 = 1 << 30;

/// What error messages call it.
const STDIN: &str = "standard input";

fn read(source: impl Read, name: &Path) -> Done<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_INPUT + 1).read_to_end(&mut bytes).map_err(|error| Failure::file(name, error))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(Failure::file(name, format_args!("expected at most {MAX_INPUT} bytes, found more")));
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>, name: &Path) -> Done<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::file(name, format_args!("expected UTF-8, found something else at byte {at}"))
    })
}

/// The text of the file at `path`; of standard input where it is `-`.
pub fn text_file(path: &Path) -> Done<String> {
    if path.as_os_str() == "-" {
        return stdin();
    }
    let file = File::open(path).map_err(|error| Failure::file(path, error))?;
    text(read(file, path)?, path)
}

/// The text of standard input, as it is.
pub fn stdin() -> Done<String> {
    let name = Path::new(STDIN);
    text(read(io::stdin().lock(), name)?, name)
}

/// `given`, or standard input where that is `-`.
pub fn text_or_stdin(given: &str) -> Done<String> {
    if given == "-" { stdin() } else { Ok(given.to_owned()) }
}

/// The JSON in the file at `path`; in standard input where it is `-`.
pub fn json(path: &Path) -> Done<Json> {
    let text = text_file(path)?;
    let name = if path.as_os_str() == "-" { Path::new(STDIN) } else { path };
    serde_json::from_str(&text).map_err(|error| Failure::file(name, format_args!("expected JSON: {error}")))
}

/// Token ids: `1,2,3`, spaces and brackets allowed.
pub fn ids(text: &str) -> Done<Vec<u32>> {
    let between = |c: char| c == ',' || c == '[' || c == ']' || c.is_whitespace();
    let parse = |id: &str| {
        id.parse().map_err(|_| {
            let id: String = id.chars().take(40).collect();
            Failure::new(format!("expected token ids such as 1,2,3, found {id:?}"))
        })
    };
    text.split(between).filter(|id| !id.is_empty()).map(parse).collect()
}
