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
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonDotprod,
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
    /// The scalar level with a matrix unit made of loops.
    #[cfg(test)]
    ScalarMatrices,
}

/// Whether the processor has all of these features. Without the standard library nobody can be asked: what the build
/// assumes is all that is known.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! has {
    ($($feature:tt),*) => {{
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        { true $(&& std::is_x86_feature_detected!($feature))* }
        #[cfg(all(feature = "std", target_arch = "aarch64"))]
        { true $(&& std::arch::is_aarch64_feature_detected!($feature))* }
        #[cfg(not(feature = "std"))]
        { cfg!(all($(target_feature = $feature),*)) }
    }};
}

impl Level {
    /// The names that [`Level::named`] knows, on any processor.
    pub const NAMES: &'static [&'static str] =
        &["scalar", "avx2", "avx-vnni", "avx512", "amx", "neon", "neon-dotprod", "neon-i8mm"];

    /// Plain Rust: there on every processor, and the specification for all others.
    pub const SCALAR: Level = Level(Kind::Scalar);

    /// What tests lay beside the scalar level where the processor has no matrix unit.
    #[cfg(test)]
    pub(crate) const SCALAR_MATRICES: Level = Level(Kind::ScalarMatrices);

    /// Every level that this processor has, slowest first.
    pub fn available() -> impl Iterator<Item = Level> {
        #[cfg(target_arch = "x86_64")]
        let wide = {
            let avx2 = has!("avx2", "fma", "f16c");
            let avx512 = has!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni");
            [
                avx2.then_some(Level(Kind::Avx2)),
                (avx2 && has!("avxvnni")).then_some(Level(Kind::AvxVnni)),
                (avx2 && avx512).then_some(Level(Kind::Avx512)),
                (avx2 && avx512 && super::amx::is_there()).then_some(Level(Kind::Amx)),
            ]
        };
        #[cfg(target_arch = "aarch64")]
        let wide = {
            let neon = has!("neon");
            [
                neon.then_some(Level(Kind::Neon)),
                (neon && has!("dotprod")).then_some(Level(Kind::NeonDotprod)),
                (neon && has!("dotprod", "i8mm")).then_some(Level(Kind::NeonI8mm)),
            ]
        };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let wide = [None; 0];
        core::iter::once(Level::SCALAR).chain(wide.into_iter().flatten())
    }

    /// The fastest level that this processor has.
    pub fn detect() -> Level {
        Level::available().last().unwrap_or(Level::SCALAR)
    }

    /// The level with this name, if this processor has it.
    pub fn named(name: &str) -> Option<Level> {
        Level::available().find(|level| level.name() == name)
    }

    /// The level's name: one of [`Level::NAMES`].
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => "amx",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDotprod => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonI8mm => "neon-i8mm",
            #[cfg(test)]
            Kind::ScalarMatrices => "scalar-matrices",
        }
    }

    /// How many rows of weights decode should read by turns, 1 to 4.
    ///
    /// Intel's second-level cache fetches ahead within a page of 4 KiB only, and for each of many pages at once; what a program asks
    /// for ahead waits for the 12 to 16 buffers of the first level. So two threads of a Xeon read a mapped file at 18 GB/s by one
    /// stream each, at 28 by four (huge pages: 27 and 35). On AMD's Zen 3 two streams gave 5 to 15 % more than one in products of all
    /// types, and four lost some of it again with Q6_K and Q8_0.
    pub fn streams(self) -> usize {
        match &maker() {
            _ if self == Level::SCALAR => 1,
            b"GenuineIntel" => 4,
            b"AuthenticAMD" => 2,
            _ => 1,
        }
    }

    /// Whether products of many columns go through a matrix unit ([`super::matrix`]).
    pub(crate) const fn has_matrix_unit(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => true,
            #[cfg(test)]
            Kind::ScalarMatrices => true,
            _ => false,
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

/// The name by which the processor's maker is known to programs; empty where it has none.
#[cfg(all(feature = "std", target_arch = "x86_64"))]
fn maker() -> [u8; 12] {
    // Asked once: where the processor is shared by virtual machines, the question takes long.
    static MAKER: std::sync::OnceLock<[u8; 12]> = std::sync::OnceLock::new();
    *MAKER.get_or_init(|| {
        let vendor = core::arch::x86_64::__cpuid(0);
        bytemuck::cast([vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes))
    })
}

#[cfg(not(all(feature = "std", target_arch = "x86_64")))]
fn maker() -> [u8; 12] {
    [0; 12]
}
