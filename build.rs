//! Records what a build was made with, for `grist --version` and for reports of measurements. No policy.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of_cargo = |name: &str| env::var(name).unwrap_or_default();
    let rustc = Command::new(of_cargo("RUSTC")).arg("--version").output();
    let rustc =
        rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    println!("cargo::rustc-env=GRISTMILL_BUILD={}, {}, {rustc}", of_cargo("TARGET"), of_cargo("PROFILE"));
}
