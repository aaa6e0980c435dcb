//! Compiles ggml's base and CPU parts with `cc` and reads their headers with bindgen; no cmake.
//!
//! Where ggml comes from, first match wins:
//! - `GGML_SYS_SYSTEM=1`: an installed ggml, found by pkg-config;
//! - `GGML_SYS_SOURCE=DIR`: a source tree, of ggml or of llama.cpp;
//! - otherwise the tree inside the package llama-cpp-sys-2, which Cargo.lock pins and `cargo fetch --locked` brings.
//!
//! The CPU part is compiled for the machine that builds, as ggml's own build does, when that is also the target;
//! `-C target-cpu=NAME` in RUSTFLAGS names another CPU, and `GGML_SYS_CFLAGS` replaces the choice. The base part never
//! gets such flags, nor contracted multiply-adds: its dequantizers then give the same bits on every machine.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The package that carries ggml's source.
const CARRIER: &str = "llama-cpp-sys-2";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Cargo shows `cargo::error` lines on their own, without the build script's other output.
            for line in error.to_string().lines() {
                say(&format!("cargo::error={line}"));
            }
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "a build script speaks to cargo on its standard output")]
fn say(line: &str) {
    println!("{line}");
}

fn build() -> Result<()> {
    say("cargo::rustc-check-cfg=cfg(ggml_from_source)");
    for name in ["GGML_SYS_SYSTEM", "GGML_SYS_SOURCE", "GGML_SYS_CFLAGS", "LIBCLANG_PATH", "PKG_CONFIG_PATH"]
    {
        say(&format!("cargo::rerun-if-env-changed={name}"));
    }
    say("cargo::rerun-if-changed=build.rs");
    say("cargo::rerun-if-changed=wrapper.h");
    let out = PathBuf::from(variable("OUT_DIR")?);

    if env::var("GGML_SYS_SYSTEM").is_ok_and(|value| !value.is_empty() && value != "0") {
        let flags = system_ggml()?;
        return bind(&out, &flags);
    }
    let ggml = Tree::find()?;
    say(&format!("cargo::rerun-if-changed={}", ggml.root.display()));
    // The headers first: a missing libclang shows at once rather than after minutes of C.
    bind(&out, &ggml.clang_flags())?;
    ggml.compile(&out)?;
    say("cargo::rustc-cfg=ggml_from_source");
    Ok(())
}

/// The value of a variable that cargo sets.
fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|_| format!("{name} is not set: this build script is run by cargo").into())
}

// ---- an installed ggml

/// Asks pkg-config for ggml, links it, and returns the flags that find its headers.
fn system_ggml() -> Result<Vec<String>> {
    let advice = "GGML_SYS_SYSTEM is set, which asks for an installed ggml: install it and pkg-config, \
                  name the folder of its ggml.pc in PKG_CONFIG_PATH, or unset GGML_SYS_SYSTEM";
    let output = Command::new("pkg-config")
        .args(["--cflags", "--libs", "ggml"])
        .output()
        .map_err(|error| format!("pkg-config does not start ({error}).\n{advice}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("pkg-config finds no ggml: {}\n{advice}", said.trim()).into());
    }
    let mut flags = vec!["-DGGML_SYS_PUBLIC_HEADERS_ONLY".to_owned()];
    for flag in String::from_utf8(output.stdout)?.split_whitespace() {
        if let Some(folder) = flag.strip_prefix("-L") {
            say(&format!("cargo::rustc-link-search=native={folder}"));
        } else if let Some(library) = flag.strip_prefix("-l") {
            say(&format!("cargo::rustc-link-lib={library}"));
        } else {
            flags.push(flag.to_owned());
        }
    }
    // ggml.pc does not name the CPU part, which holds the row products.
    say("cargo::rustc-link-lib=ggml-cpu");
    Ok(flags)
}

// ---- ggml from source

/// A tree of ggml's source: the folder that holds `include/ggml.h` and `src`.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn find() -> Result<Self> {
        if let Some(folder) = env::var_os("GGML_SYS_SOURCE").filter(|folder| !folder.is_empty()) {
            let folder = PathBuf::from(folder);
            return Self::inside(&folder).ok_or_else(|| {
                let shown = folder.display();
                format!("GGML_SYS_SOURCE names {shown}, in which there is no include/ggml.h, ggml/include/ggml.h or \
                         llama.cpp/ggml/include/ggml.h: name a source tree of ggml or llama.cpp")
                .into()
            });
        }
        let advice = format!(
            "Run `cargo fetch --locked` once, which downloads the package {CARRIER} that carries ggml's source; or set \
             GGML_SYS_SOURCE to a source tree of ggml or llama.cpp; or set GGML_SYS_SYSTEM=1 to use an installed ggml"
        );
        let package =
            carrier().map_err(|error| format!("ggml's source is not at hand: {error}\n{advice}"))?;
        Self::inside(&package)
            .ok_or_else(|| format!("{} carries no ggml source.\n{advice}", package.display()).into())
    }

    /// The tree in `folder`, which may be ggml's, llama.cpp's or the carrier's.
    fn inside(folder: &Path) -> Option<Self> {
        ["", "ggml", "llama.cpp/ggml"]
            .iter()
            .map(|inner| folder.join(inner))
            .find(|root| root.join("include/ggml.h").is_file() && root.join("src/ggml-cpu").is_dir())
            .map(|root| Self { root })
    }

    fn source(&self, inner: &str) -> PathBuf {
        self.root.join("src").join(inner)
    }

    fn include_folders(&self) -> [PathBuf; 3] {
        [self.root.join("include"), self.root.join("src"), self.source("ggml-cpu")]
    }

    fn clang_flags(&self) -> Vec<String> {
        self.include_folders().iter().map(|folder| format!("-I{}", folder.display())).collect()
    }

    /// The version that the tree's CMakeLists.txt sets, such as `0.26.0`.
    fn version(&self) -> Result<String> {
        let text = fs::read_to_string(self.root.join("CMakeLists.txt"))?;
        let part = |name: &str| {
            let (_, rest) = text.split_once(&format!("set(GGML_VERSION_{name} "))?;
            Some(rest.split_once(')')?.0.trim().to_owned())
        };
        match (part("MAJOR"), part("MINOR"), part("PATCH")) {
            (Some(major), Some(minor), Some(patch)) => Ok(format!("{major}.{minor}.{patch}")),
            _ => Ok("unknown".to_owned()),
        }
    }

    /// The C and C++ files that lie directly in a folder of `src`, in order.
    fn files(&self, inner: &str) -> Result<Vec<PathBuf>> {
        let folder = self.source(inner);
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))? {
            let path = entry?.path();
            let is_source = path.extension().is_some_and(|ext| ext == "c" || ext == "cpp");
            if is_source && path.file_name().is_some_and(|name| name != "cpu-feats.cpp") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn compile(&self, out: &Path) -> Result<()> {
        let version = self.version()?;
        fs::write(
            out.join("ggml-version.h"),
            format!("#pragma once\n#define GGML_VERSION \"{version}\"\n#define GGML_COMMIT \"unknown\"\n"),
        )?;
        let mut cpu = self.files("ggml-cpu")?;
        for inner in ["ggml-cpu/amx", "ggml-cpu/llamafile", "ggml-cpu/tiled"] {
            if self.source(inner).is_dir() {
                cpu.extend(self.files(inner)?);
            }
        }
        let arch = variable("CARGO_CFG_TARGET_ARCH")?;
        let arch = match arch.as_str() {
            "x86" | "x86_64" => Some("x86"),
            "arm" | "aarch64" => Some("arm"),
            "riscv64" => Some("riscv"),
            "powerpc64" => Some("powerpc"),
            "loongarch64" => Some("loongarch"),
            "s390x" => Some("s390"),
            "wasm32" | "wasm64" => Some("wasm"),
            _ => None,
        };
        match arch {
            Some(arch) => cpu.extend(self.files(&format!("ggml-cpu/arch/{arch}"))?),
            None => say("cargo::warning=ggml has no fast code for this processor: its generic code is built"),
        }
        let base = self.files("")?;
        // A static library needs those that it calls after it, and cargo keeps the order of these calls.
        self.library("ggml_sys_cpu", &cpu, &cpu_flags()?, arch.is_none(), out)?;
        self.library("ggml_sys_base", &base, &["-ffp-contract=off".to_owned()], false, out)
    }

    /// Compiles `files` as C11 and C++17 and links them: one static library for each language.
    fn library(
        &self,
        name: &str,
        files: &[PathBuf],
        flags: &[String],
        generic: bool,
        out: &Path,
    ) -> Result<()> {
        let (c, cpp): (Vec<_>, Vec<_>) =
            files.iter().partition(|file| file.extension().is_some_and(|e| e == "c"));
        // The two halves of a library call each other: they are compiled apart and archived together.
        let objects = self.compiler(flags, generic, out, false).files(c).try_compile_intermediates()?;
        self.compiler(flags, generic, out, true).files(cpp).objects(objects).try_compile(name)?;
        Ok(())
    }

    fn compiler(&self, flags: &[String], generic: bool, out: &Path, cpp: bool) -> cc::Build {
        let mut build = cc::Build::new();
        build.cpp(cpp).std(if cpp { "c++17" } else { "c11" });
        build.include(out).includes(self.include_folders());
        // The defines and the level of ggml's own release build; its warnings are not ours to mend.
        build.opt_level(3).debug(false).warnings(false).extra_warnings(false);
        build.define("NDEBUG", None).define("_XOPEN_SOURCE", "600").define("_GNU_SOURCE", None);
        build.define("GGML_USE_CPU", None).define("GGML_USE_CPU_REPACK", None);
        build.define("GGML_USE_LLAMAFILE", None).define("GGML_SCHED_MAX_COPIES", "4");
        if generic {
            build.define("GGML_CPU_GENERIC", None);
        }
        // Unwind tables, so that the abort callback may leave a failed assertion by unwinding.
        build.flag_if_supported("-fexceptions");
        for flag in flags {
            build.flag(flag);
        }
        // GCC 12 takes `ldtilecfg` to read 8 of its 64 bytes and drops the stores of the others: ggml's AMX code then
        // dies of an illegal instruction.
        build.flag_if_supported("-mno-amx-int8");
        build
    }
}

/// The folder of the package that carries ggml's source, which cargo knows from Cargo.lock.
fn carrier() -> Result<PathBuf> {
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let output = Command::new(variable("CARGO")?)
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--manifest-path"])
        .arg(manifest)
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo metadata fails: {}", said.trim()).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    metadata
        .get("packages")
        .and_then(|packages| packages.as_array())
        .into_iter()
        .flatten()
        .find(|package| package.get("name").and_then(|name| name.as_str()) == Some(CARRIER))
        .and_then(|package| Path::new(package.get("manifest_path")?.as_str()?).parent())
        .map(Path::to_owned)
        .ok_or_else(|| format!("cargo metadata names no package {CARRIER}").into())
}

/// The flags that choose the CPU: see the head of this file.
fn cpu_flags() -> Result<Vec<String>> {
    if let Ok(flags) = env::var("GGML_SYS_CFLAGS") {
        return Ok(flags.split_whitespace().map(str::to_owned).collect());
    }
    let native = variable("HOST")? == variable("TARGET")?;
    let rust_flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let named =
        rust_flags.rsplit('\x1f').find_map(|flag| flag.rsplit_once("target-cpu=")).map(|(_, cpu)| cpu);
    let arm = matches!(variable("CARGO_CFG_TARGET_ARCH")?.as_str(), "arm" | "aarch64");
    let option = if arm { "-mcpu" } else { "-march" };
    Ok(match named {
        Some(cpu) => vec![format!("{option}={cpu}")],
        None if native => vec![format!("{option}=native")],
        None => Vec::new(),
    })
}

// ---- bindings

/// Writes the bindings of what wrapper.h includes.
fn bind(out: &Path, flags: &[String]) -> Result<()> {
    // bindgen panics where it finds no libclang: loading it first gives an error that can say what to do.
    let panic_free = std::panic::catch_unwind(|| bindgen::clang_version().full);
    if panic_free.is_err() {
        return Err(
            "bindgen finds no libclang, with which it reads ggml's headers: install it (Debian, Ubuntu: \
                    `apt-get install libclang-dev`; Fedora: `dnf install clang-devel`; macOS: `xcode-select \
                    --install`), or set LIBCLANG_PATH to the folder that holds it"
                .into(),
        );
    }
    bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(flags)
        .use_core()
        .allowlist_item("(ggml|gguf|GGML|GGUF)_.*")
        .allowlist_item("(de)?quantize_.*|block_.*|QK.*")
        .prepend_enum_name(false)
        // The abort callback may leave a failed assertion by unwinding through any of them.
        .override_abi(bindgen::Abi::CUnwind, ".*")
        .generate_comments(false)
        .generate()
        .map_err(|error| format!("bindgen cannot read ggml's headers: {error}"))?
        .write_to_file(out.join("bindings.rs"))?;
    Ok(())
}
