//! The program `grist`.

fn main() {}
