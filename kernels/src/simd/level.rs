//! Which instruction sets this processor has: the one place that asks.
#![forbid(unsafe_code)]

use core::fmt;

/// An instruction set that this processor was found to have; the only way to get one is to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level(Kind);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Level {
    /// The names that [`Level::named`] knows, on any processor.
    pub const NAMES: &'static [&'static str] = &["scalar", "avx2", "avx512", "neon"];

    /// Plain Rust: there on every processor, and the specification for all others.
    pub const SCALAR: Level = Level(Kind::Scalar);

    /// Every level that this processor has, slowest first.
    pub fn available() -> impl Iterator<Item = Level> {
        #[cfg(target_arch = "x86_64")]
        let wide = has_avx2().then_some(Level(Kind::Avx2));
        #[cfg(not(target_arch = "x86_64"))]
        let wide = None;
        core::iter::once(Level::SCALAR).chain(wide)
    }

    /// The fastest level that this processor has.
    pub fn detect() -> Level {
        Level::available().last().unwrap_or(Level::SCALAR)
    }

    /// The level with this name, if this processor has it.
    pub fn named(name: &str) -> Option<Level> {
        Level::available().find(|level| level.name() == name)
    }

    /// The level's name: `scalar`, `avx2`.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
        }
    }

    pub(crate) const fn kind(self) -> Kind {
        self.0
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(all(target_arch = "x86_64", feature = "std"))]
fn has_avx2() -> bool {
    std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("f16c")
}

/// Without the standard library nobody can be asked: what the build assumes is all that is known.
#[cfg(all(target_arch = "x86_64", not(feature = "std")))]
fn has_avx2() -> bool {
    cfg!(all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c"))
}
