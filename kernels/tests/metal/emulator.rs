//! Builds the emulator of `metal/emulator` with the kernels, unchanged, and talks to it: a process of its own, so that what a
//! kernel does wrong ends it and not the tests.
//!
//! `GRISTMILL_METAL` says how it is built: `strict` (the default) with address spaces, so that a pointer of the wrong one does
//! not compile; `addresses` with the sanitizers of addresses and of undefined behaviour; `threads` with that of threads.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use gristmill_kernels::metal::{Launch, SOURCES};

/// The compilers to look for: the first needs no flag, but must be of version 16 at least, where half precision came to x86.
const COMPILERS: &[&str] = &[
    "clang++-22",
    "clang++-21",
    "clang++-20",
    "clang++-19",
    "clang++-18",
    "clang++-17",
    "clang++-16",
    "clang++",
];

const FLAGS: &[&str] = &[
    "-std=c++17",
    "-O1",
    "-g1",
    "-march=native",
    "-fsigned-char",
    "-ffp-contract=off",
    "-Wall",
    "-Werror",
    // Attributes of Metal's own.
    "-Wno-unknown-attributes",
    // `constant` is const already.
    "-Wno-duplicate-decl-specifier",
];

/// What differs between the builds: flags for the kernels, for the emulator itself, and for both together.
fn flags(build: &str) -> [&'static [&'static str]; 3] {
    match build {
        "strict" => [&[], &[], &[]],
        "addresses" => {
            const SANITIZE: &str = "-fsanitize=address,undefined";
            [
                &[SANITIZE, "-fno-sanitize-recover=all", "-DEMULATOR_FLAT"],
                &["-fsanitize=address", "-DEMULATOR_FLAT"],
                &[SANITIZE],
            ]
        }
        "threads" => [
            &["-fsanitize=thread", "-DEMULATOR_FLAT"],
            &["-DEMULATOR_TSAN", "-fno-builtin"],
            &["-fsanitize=thread"],
        ],
        other => panic!("GRISTMILL_METAL: expected strict, addresses or threads, found {other}"),
    }
}

/// Where the emulator's sources are: the tests of whole models, in the package above, use this file too.
fn folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["metal/emulator", "kernels/metal/emulator"].map(|folder| package.join(folder));
    found.into_iter().find(|folder| folder.exists()).unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A compiler that can do it.
fn compiler() -> Option<String> {
    let asked = std::env::var("GRISTMILL_CLANG").ok();
    asked.into_iter().chain(COMPILERS.iter().map(|name| name.to_string())).find(|name| {
        let output = Command::new(name).args(["-dumpversion"]).output();
        let version = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
        let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        major.is_some_and(|major| major >= 16)
    })
}

/// The emulator, built from the sources in `sources` (paths and texts); in the target folder there is one for each text.
fn build(sources: &[(&str, String)]) -> Option<PathBuf> {
    let compiler = compiler()?;
    let kind = std::env::var("GRISTMILL_METAL").unwrap_or_else(|_| "strict".to_owned());
    let [of_kernels, of_emulator, of_both] = flags(&kind);
    let here = folder();
    let mut hasher = DefaultHasher::new();
    (sources, &compiler, FLAGS, of_kernels, of_emulator).hash(&mut hasher);
    for name in ["metal_stdlib", "emulator.h", "emulator.cpp"] {
        fs::read_to_string(here.join(name)).unwrap().hash(&mut hasher);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metal");
    let program = folder.join(format!("{kind}-{:016x}", hasher.finish()));
    if program.exists() {
        return Some(program);
    }
    // Others may build at the same time: each in a folder of its own, and the program appears at once.
    let work = folder.join(format!("build-{}-{:?}", std::process::id(), std::thread::current().id()));
    for (path, text) in sources {
        let path = work.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut objects = Vec::new();
    for (path, _) in sources.iter().filter(|(path, _)| path.ends_with(".metal")) {
        let object = work.join(path).with_extension("o");
        run(Command::new(&compiler)
            .args(["-x", "c++"])
            .args(FLAGS)
            .args(of_kernels)
            .arg("-isystem")
            .arg(&here)
            .args(["-c".as_ref(), work.join(path).as_os_str(), "-o".as_ref(), object.as_os_str()]));
        objects.push(object);
    }
    let object = work.join("emulator.o");
    let source = here.join("emulator.cpp");
    run(Command::new(&compiler).args(FLAGS).args(of_emulator).arg("-c").arg(source).arg("-o").arg(&object));
    let built = work.join("program");
    run(Command::new(&compiler).args(of_both).args(objects).arg(object).arg("-o").arg(&built));
    fs::rename(&built, &program).unwrap();
    fs::remove_dir_all(&work).unwrap();
    Some(program)
}

/// The program with the project's kernels.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let sources = || SOURCES.iter().map(|(path, text)| (*path, text.to_string())).collect::<Vec<_>>();
    PROGRAM.get_or_init(|| build(&sources())).as_deref()
}

/// What the compiler says of all kernels as one text; `None` where there is no compiler.
pub fn compile_as_one() -> Option<Result<(), String>> {
    let here = folder();
    let mut command = Command::new(compiler()?);
    command.args(["-x", "c++", "-fsyntax-only"]).args(FLAGS).arg("-isystem").arg(here).arg("-");
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(gristmill_kernels::metal::source().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(words) })
}

/// The project's kernels, of which `path` has other text.
pub fn with_fault(path: &str, right: &str, wrong: &str) -> Option<Emulator> {
    let mut sources: Vec<_> = SOURCES.iter().map(|(path, text)| (*path, text.to_string())).collect();
    let (_, text) = sources.iter_mut().find(|(name, _)| *name == path).unwrap();
    assert_eq!(text.matches(right).count(), 1, "{right} is not once in {path}");
    *text = text.replace(right, wrong);
    // Of the kernels only those are built that are at fault, and for one format.
    sources.retain(|(name, _)| *name == path || name.ends_with(".h"));
    for (_, text) in &mut sources {
        *text = text.replace("\nFOR_EACH_FORMAT(MATMUL)", "\nMATMUL(q4_0)");
        *text = text.replace("\nFOR_EACH_PAIR(ATTENTION_TILE)", "\nATTENTION_TILE(q8_0, f16)");
    }
    build(&sources).map(|program| Emulator::start(&program))
}

/// A running emulator.
pub struct Emulator {
    child: Child,
    to: BufWriter<ChildStdin>,
    from: BufReader<ChildStdout>,
}

/// Memory of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffer(pub u64);

impl Emulator {
    /// With the project's kernels; `None`, and a message, where no compiler for it is found.
    pub fn new() -> Option<Emulator> {
        let program = program();
        if program.is_none() {
            println!("skipped: needs clang 16 or later (Debian: clang-22 libclang-rt-22-dev)");
        }
        program.map(Emulator::start)
    }

    fn start(program: &Path) -> Emulator {
        let mut child = Command::new(program)
            .env("ASAN_OPTIONS", "detect_leaks=0")
            .env("TSAN_OPTIONS", "halt_on_error=1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let to = BufWriter::new(child.stdin.take().unwrap());
        let from = BufReader::new(child.stdout.take().unwrap());
        Emulator { child, to, from }
    }

    /// What it said before it ended.
    fn last_words(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn send(&mut self, letter: u8, numbers: &[u64]) -> std::io::Result<()> {
        self.to.write_all(&[letter])?;
        numbers.iter().try_for_each(|number| self.to.write_all(&number.to_le_bytes()))
    }

    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, String> {
        let mut data = vec![0; bytes];
        let done = self.to.flush().and_then(|()| self.from.read_exact(&mut data));
        done.map_err(|_| self.last_words()).map(|()| data)
    }

    /// Draws the order of threads, groups and dispatches anew.
    pub fn seed(&mut self, seed: u64) {
        self.send(b'S', &[seed]).unwrap();
    }

    /// A new buffer with these bytes.
    pub fn buffer(&mut self, bytes: &[u8]) -> Buffer {
        let buffer = self.room(bytes.len());
        self.send(b'W', &[buffer.0, 0, bytes.len() as u64]).unwrap();
        self.to.write_all(bytes).unwrap();
        buffer
    }

    /// A new buffer with these numbers.
    pub fn floats(&mut self, numbers: &[f32]) -> Buffer {
        self.buffer(&numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
    }

    /// A new buffer with these numbers.
    pub fn ids(&mut self, numbers: &[u32]) -> Buffer {
        self.buffer(&numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
    }

    /// A new buffer of NaN.
    pub fn room(&mut self, bytes: usize) -> Buffer {
        self.send(b'N', &[bytes as u64]).unwrap();
        let id = self.receive(8).unwrap_or_else(|words| panic!("{words}"));
        Buffer(u64::from_le_bytes(id.try_into().unwrap()))
    }

    /// Dispatches a kernel on these buffers, each from its byte on.
    pub fn dispatch(&mut self, launch: &Launch, buffers: &[(Buffer, usize)]) {
        let name = launch.kernel.to_string();
        // Where it has ended, the next answer tells.
        let _ = (|| {
            self.send(b'D', &[name.len() as u64])?;
            self.to.write_all(name.as_bytes())?;
            for number in launch.groups.into_iter().chain([launch.threads, launch.shared]) {
                self.to.write_all(&u64::from(number).to_le_bytes())?;
            }
            self.to.write_all(&(launch.params().len() as u64).to_le_bytes())?;
            self.to.write_all(launch.params())?;
            self.to.write_all(&(buffers.len() as u64).to_le_bytes())?;
            for (buffer, offset) in buffers {
                self.to.write_all(&buffer.0.to_le_bytes())?;
                self.to.write_all(&(*offset as u64).to_le_bytes())?;
            }
            Ok::<_, std::io::Error>(())
        })();
    }

    /// What comes after sees what comes before.
    pub fn barrier(&mut self) {
        let _ = self.send(b'B', &[]);
    }

    /// A dispatch and a barrier.
    pub fn run(&mut self, launch: &Launch, buffers: &[Buffer]) {
        self.dispatch(launch, &buffers.iter().map(|&buffer| (buffer, 0)).collect::<Vec<_>>());
        self.barrier();
    }

    /// The bytes of a buffer, or what the emulator said when it found a fault.
    pub fn try_read(&mut self, buffer: Buffer, bytes: usize) -> Result<Vec<u8>, String> {
        let _ = self.send(b'R', &[buffer.0, 0, bytes as u64]);
        self.receive(bytes)
    }

    /// Writes to a buffer.
    pub fn write(&mut self, buffer: Buffer, offset: usize, bytes: &[u8]) {
        let _ = self.send(b'W', &[buffer.0, offset as u64, bytes.len() as u64]);
        let _ = self.to.write_all(bytes);
    }

    /// As [`Emulator::try_read`], from a byte on.
    #[allow(dead_code, reason = "for whole models")]
    pub fn try_read_at(&mut self, buffer: Buffer, offset: usize, bytes: usize) -> Result<Vec<u8>, String> {
        let _ = self.send(b'R', &[buffer.0, offset as u64, bytes as u64]);
        self.receive(bytes)
    }

    /// A new buffer of NaN, or what the emulator said when it found a fault.
    #[allow(dead_code, reason = "for whole models")]
    pub fn try_room(&mut self, bytes: usize) -> Result<Buffer, String> {
        let _ = self.send(b'N', &[bytes as u64]);
        self.receive(8).map(|id| Buffer(u64::from_le_bytes(id.try_into().unwrap())))
    }

    /// Gives a buffer back.
    #[allow(dead_code, reason = "for whole models")]
    pub fn free(&mut self, buffer: Buffer) {
        let _ = self.send(b'F', &[buffer.0]);
    }

    /// The numbers of a buffer.
    pub fn read(&mut self, buffer: Buffer, count: usize) -> Vec<f32> {
        let bytes = self.try_read(buffer, 4 * count).unwrap_or_else(|words| panic!("{words}"));
        bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect()
    }

    /// The numbers of a buffer.
    pub fn read_ids(&mut self, buffer: Buffer, count: usize) -> Vec<u32> {
        self.read(buffer, count).into_iter().map(f32::to_bits).collect()
    }

    /// The names of all kernels.
    pub fn kernels(&mut self) -> Vec<String> {
        self.send(b'K', &[]).unwrap();
        let size = u64::from_le_bytes(self.receive(8).unwrap().try_into().unwrap());
        let names = String::from_utf8(self.receive(size as usize).unwrap()).unwrap();
        names.lines().map(str::to_owned).collect()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
