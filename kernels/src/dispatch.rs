//! Joins formats and instruction sets: the only place with `#[target_feature]`.
//!
//! A loop is a [`Task`], written once over [`Isa`]; [`Level::run`] compiles it once for each level.

use crate::simd::level::{Kind, Level};
use crate::simd::{Isa, scalar::Scalar};

/// Work that can run on any instruction set.
pub(crate) trait Task {
    /// What the work gives.
    type Output;

    /// Does the work. Implementations are `#[inline(always)]`, so that the body is compiled for the level.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

impl Level {
    /// Runs the task in this level's instructions.
    #[inline]
    pub(crate) fn run<T: Task>(self, task: T) -> T::Output {
        match self.kind() {
            Kind::Scalar => task.run(Scalar),
            #[cfg(test)]
            Kind::ScalarMatrices => task.run(Scalar),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kind of level is only made where the processor has AVX2, FMA and F16C.
            Kind::Avx2 => unsafe { avx2(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: and this one where it has AVX-VNNI too.
            Kind::AvxVnni => unsafe { avx_vnni(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: and these where it has AVX-512 F, BW, DQ, VL and VNNI.
            Kind::Avx512 | Kind::Amx => unsafe { avx512(task) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: this kind of level is only made where the processor has NEON.
            Kind::Neon => unsafe { neon(task) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: and this one where it has the dot product too.
            Kind::NeonDotprod => unsafe { neon_dotprod(task) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: and this one where it has the matrix product besides.
            Kind::NeonI8mm => unsafe { neon_i8mm(task) },
        }
    }

    /// Runs a task that speaks no words of the vocabulary and only wants the level's instructions: those of the dot products are of
    /// no use to it, so it is not compiled for levels that differ by them.
    #[inline]
    pub(crate) fn run_plain<T: Task>(self, task: T) -> T::Output {
        match self.kind() {
            Kind::Scalar => task.run(Scalar),
            #[cfg(test)]
            Kind::ScalarMatrices => task.run(Scalar),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these kinds of levels are only made where the processor has AVX2, FMA and F16C.
            Kind::Avx2 | Kind::AvxVnni => unsafe { avx2(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: and these where it has AVX-512 F, BW, DQ, VL and VNNI.
            Kind::Avx512 | Kind::Amx => unsafe { avx512(task) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: these kinds of levels are only made where the processor has NEON.
            Kind::Neon | Kind::NeonDotprod | Kind::NeonI8mm => unsafe { neon(task) },
        }
    }
}

/// # Safety
/// The processor must have AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<T: Task>(task: T) -> T::Output {
    // SAFETY: the caller promises just that.
    task.run(unsafe { crate::simd::avx2::Avx2::new() })
}

/// # Safety
/// The processor must have AVX2, FMA, F16C and AVX-VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn avx_vnni<T: Task>(task: T) -> T::Output {
    // SAFETY: the caller promises just that.
    task.run(unsafe { crate::simd::avx_vnni::AvxVnni::new() })
}

/// # Safety
/// The processor must have AVX2, FMA, F16C, and AVX-512 F, BW, DQ, VL and VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn avx512<T: Task>(task: T) -> T::Output {
    // SAFETY: the caller promises just that.
    task.run(unsafe { crate::simd::avx512::Avx512::new() })
}

/// # Safety
/// The processor must have NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon<T: Task>(task: T) -> T::Output {
    // SAFETY: the caller promises just that.
    task.run(unsafe { crate::simd::neon::Neon::new() })
}

/// # Safety
/// The processor must have NEON and its dot product.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn neon_dotprod<T: Task>(task: T) -> T::Output {
    // SAFETY: the caller promises just that.
    task.run(unsafe { crate::simd::neon_dotprod::NeonDotprod::new() })
}

/// # Safety
/// The processor must have NEON, its dot product and its matrix product.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn neon_i8mm<T: Task>(task: T) -> T::Output {
    // SAFETY: the caller promises just that.
    task.run(unsafe { crate::simd::neon_i8mm::NeonI8mm::new() })
}
