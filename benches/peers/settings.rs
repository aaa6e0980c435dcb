//! What is compared with what, from the arguments.

use std::path::PathBuf;

use gristmill::CacheType;
use gristmill::speed::peer::LlamaBench;

pub struct Settings {
    pub models: Vec<String>,
    /// Ours first.
    pub contenders: Vec<Contender>,
    pub prompt: u32,
    pub generate: u32,
    pub depths: Vec<u32>,
    pub threads: u32,
    pub rounds: u32,
    /// Of keys and values.
    pub cache: CacheType,
    /// The instruction set that ours is held to.
    pub isa: Option<String>,
}

pub struct Contender {
    pub name: String,
    pub program: PathBuf,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Grist,
    LlamaBench,
    Ferrox,
}

impl Contender {
    /// From `NAME=PATH` or `PATH`.
    fn new(kind: Kind, name: &str, given: &str) -> Contender {
        let (name, program) = given.split_once('=').unwrap_or((name, given));
        Contender { name: name.to_owned(), program: program.into(), kind }
    }

    /// Settings of flash attention to try at this depth with this cache; none where the contender cannot measure there.
    /// `None` leaves the choice to the contender.
    pub fn flash(&self, depth: u32, cache: CacheType) -> &'static [Option<&'static str>] {
        match (self.kind, depth) {
            (Kind::Grist, _) => &[None],
            // Its cache is of floats of 32 bits, and its bench knows no depth.
            (Kind::Ferrox, 0) if cache == CacheType::F16 => &[None],
            (Kind::Ferrox, _) => &[],
            (Kind::LlamaBench, _) => LlamaBench::flash(depth as usize, cache.into()),
        }
    }
}

impl Settings {
    /// # Errors
    /// What was expected, and what was found.
    pub fn parse(args: Vec<String>) -> Result<Settings, String> {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u32);
        let mut settings = Settings {
            models: Vec::new(),
            contenders: Vec::new(),
            prompt: 512,
            generate: 64,
            depths: vec![0],
            threads,
            rounds: 5,
            cache: CacheType::F16,
            isa: None,
        };
        let mut ours =
            option_env!("CARGO_BIN_EXE_grist").map(|path| Contender::new(Kind::Grist, "grist", path));
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if !arg.starts_with("--") {
                settings.models.push(arg);
                continue;
            }
            let (flag, value) = match arg.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), value.to_owned()),
                None => {
                    let value =
                        args.next().ok_or_else(|| format!("expected a value after {arg}, found none"))?;
                    (arg, value)
                }
            };
            match flag.as_str() {
                "--grist" => ours = Some(Contender::new(Kind::Grist, "grist", &value)),
                "--llama-bench" => {
                    settings.contenders.push(Contender::new(Kind::LlamaBench, "llama.cpp", &value));
                }
                "--ferrox" => settings.contenders.push(Contender::new(Kind::Ferrox, "ferrox", &value)),
                "--prompt" => settings.prompt = number(&flag, &value)?,
                "--generate" => settings.generate = number(&flag, &value)?,
                "--depth" => {
                    settings.depths =
                        value.split(',').map(|depth| number(&flag, depth)).collect::<Result<_, _>>()?;
                }
                "--threads" => settings.threads = number(&flag, &value)?.max(1),
                "--rounds" => settings.rounds = number(&flag, &value)?.max(1),
                "--cache" => {
                    let found = CacheType::named(&value);
                    settings.cache = found
                        .ok_or_else(|| format!("expected a type of cache after {flag}, found {value}"))?;
                }
                "--isa" => settings.isa = Some(value),
                _ => {
                    return Err(format!(
                        "expected --grist, --llama-bench, --ferrox, --prompt, --generate, --depth, --threads, \
                         --rounds, --cache or --isa, found {flag}"
                    ));
                }
            }
        }
        if settings.models.is_empty() {
            return Err("expected a MODEL.gguf, found none".to_owned());
        }
        let ours = ours.ok_or("this build has no program grist: name one with --grist PATH")?;
        settings.contenders.insert(0, ours);
        Ok(settings)
    }
}

fn number(flag: &str, value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| format!("expected a number after {flag}, found {value}"))
}
