//! The matrix unit of Intel's Xeons (AMX): eight registers ("tiles") of up to sixteen rows of 64 bytes.
//!
//! The instructions are written out: the language has no words for them yet, and their registers hold nothing between two
//! of our products, so none is ever in the compiler's way.

use core::arch::asm;
use core::marker::PhantomData;

use super::level::{Kind, Level};
use super::matrix::{Codes, Parts, Quad, Sums, Superblocks};

/// Whether the processor multiplies matrices of bytes and the system lets this process: on Linux it has to be asked, once,
/// because the registers' eight kilobytes are then saved with each thread.
pub(super) fn is_there() -> bool {
    #[cfg(all(feature = "std", target_os = "linux"))]
    {
        static THERE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *THERE.get_or_init(|| {
            const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
            let has_leaf = core::arch::x86_64::__cpuid(0).eax >= 7;
            has_leaf
                && core::arch::x86_64::__cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8
                && request_permission()
        })
    }
    #[cfg(not(all(feature = "std", target_os = "linux")))]
    false
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`; a system that does not know it, or whose processor has no such
/// registers, refuses.
#[cfg(all(feature = "std", target_os = "linux"))]
fn request_permission() -> bool {
    const ARCH_PRCTL: isize = 158;
    const REQUEST: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call takes two numbers and touches no memory of this process; a system call changes these registers only.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") REQUEST,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// What the registers hold: shapes for each of them, as `ldtilecfg` wants it.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// 0 to 3: sums. 4 and 5: sixteen columns of `depth` codes. 6 and 7: sixteen rows of as many, four codes at a time.
    const fn of_depth(depth: usize) -> Self {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut i = 0;
        while i < 8 {
            (row_bytes[i], rows[i]) = (64, 16);
            i += 1;
        }
        (row_bytes[4], row_bytes[5]) = (depth as u16, depth as u16);
        (rows[6], rows[7]) = (depth as u8 / 4, depth as u8 / 4);
        Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }
}

/// The unit of this thread, its registers shaped for `DEPTH` codes at a time; they are given back when it is dropped. One at a
/// time: another would shape them anew.
pub(crate) struct Amx<const DEPTH: usize>(PhantomData<*const ()>);

impl<const DEPTH: usize> Amx<DEPTH> {
    /// The unit, if `level` is the one that has it.
    pub fn of(level: Level) -> Option<Self> {
        const { assert!(DEPTH == 32 || DEPTH == 64) };
        static SHAPES: [Shapes; 2] = [Shapes::of_depth(32), Shapes::of_depth(64)];
        if level.kind() != Kind::Amx {
            return None;
        }
        // SAFETY: this level is only made where the processor has the instruction and the system allows it; it reads 64 bytes,
        // and the shapes are such as palette 1 allows.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &SHAPES[DEPTH / 32 - 1], options(readonly, nostack, preserves_flags));
        }
        Some(Amx(PhantomData))
    }
}

impl Amx<64> {
    /// Multiplies what the registers hold, four pairs of them in each round, and gives how many multiplications that was.
    pub fn multiply(&mut self, rounds: u64) -> u64 {
        for _ in 0..rounds {
            // SAFETY: an `Amx` is there, so the processor has the instructions, and the registers have shapes that go together.
            unsafe {
                asm!(
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tdpbssd tmm3, tmm5, tmm7",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nomem, nostack, preserves_flags),
                );
            }
        }
        rounds.saturating_mul(4 * 16 * 16 * 64)
    }
}

impl<const DEPTH: usize> Drop for Amx<DEPTH> {
    fn drop(&mut self) {
        // SAFETY: the processor has the instruction, or there were no `Amx`.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

/// An instruction for each of four times 64 codes: `$a` and `$b` of the two sixteens of columns, low bytes, high bytes.
macro_rules! steps {
    ($($at:literal)*) => {
        concat!($(
            "tileloadd tmm4, [{x} + 1*{line} + ", $at, "]\n",
            "tileloadd tmm6, [{low} + 1*{line} + ", $at, "]\n",
            "tdpbsud tmm0, tmm4, tmm6\n",
            "tileloadd tmm7, [{high} + 1*{line} + ", $at, "]\n",
            "tdpbssd tmm1, tmm4, tmm7\n",
            "tileloadd tmm5, [{y} + 1*{line} + ", $at, "]\n",
            "tdpbsud tmm2, tmm5, tmm6\n",
            "tdpbssd tmm3, tmm5, tmm7\n",
        )*)
    };
}

impl Superblocks for Amx<64> {
    #[inline(always)]
    fn superblock(
        &mut self,
        low: &[Quad; 64],
        high: &[Quad; 64],
        x: [&[Codes<64>; 4]; 2],
        to: &mut [[Sums; 2]; 2],
    ) {
        // SAFETY: an `Amx` is there, so the processor has the instructions, and the registers have the shapes that they want;
        // they read 4 KiB from each of four references, and write 4 KiB through the fifth.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                steps!("0" "1024" "2048" "3072"),
                "tilestored [{to} + 1*{line}], tmm0",
                "tilestored [{to} + 1*{line} + 1024], tmm1",
                "tilestored [{to} + 1*{line} + 2048], tmm2",
                "tilestored [{to} + 1*{line} + 3072], tmm3",
                x = in(reg) x[0],
                y = in(reg) x[1],
                low = in(reg) low,
                high = in(reg) high,
                to = in(reg) to,
                line = in(reg) 64_usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Parts for Amx<32> {
    #[inline(always)]
    fn part(&mut self, w: &[Quad; 8], x: [&Codes<32>; 2], to: &mut [Sums; 2]) {
        // SAFETY: as above; the instructions read 512 bytes from each of three references, and write 2 KiB through the fourth.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tileloadd tmm6, [{w} + 1*{line}]",
                "tileloadd tmm4, [{x} + 1*{half}]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{y} + 1*{half}]",
                "tdpbssd tmm1, tmm5, tmm6",
                "tilestored [{to} + 1*{line}], tmm0",
                "tilestored [{to} + 1*{line} + 1024], tmm1",
                x = in(reg) x[0],
                y = in(reg) x[1],
                w = in(reg) w,
                to = in(reg) to,
                line = in(reg) 64_usize,
                half = in(reg) 32_usize,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                options(nostack, preserves_flags),
            );
        }
    }
}
