//! The program `grist`: flags in, the answers of the library out. It uses the public API only.
#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
