//! Every tensor type id that ggml has given out: its name and how many bytes a block of how many weights takes.

use core::fmt;

macro_rules! ggml_types {
    ($($variant:ident = $id:literal, $name:literal, $block_len:literal => $block_bytes:literal;)*) => {
        /// A ggml tensor type, by the id that GGUF files use.
        ///
        /// All ids from F32 to Q2_0 are here, also those that ggml has since removed, so that a file can be
        /// described even where it cannot be run.
        #[allow(non_camel_case_types, reason = "the variants bear ggml's names")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum GgmlType {
            $(#[doc = concat!($name, ": ", $block_len, " weights in ", $block_bytes, " bytes.")] $variant = $id,)*
        }

        impl GgmlType {
            /// Every type, in the order of the ids.
            pub const ALL: &'static [GgmlType] = &[$(GgmlType::$variant),*];

            /// The type with this id, if ggml ever gave it out.
            pub fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name that ggml prints, such as `q4_K`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Weights in a block; rows are whole numbers of blocks.
            pub const fn block_len(self) -> usize {
                match self { $(Self::$variant => $block_len,)* }
            }

            /// Bytes of a block.
            pub const fn block_bytes(self) -> usize {
                match self { $(Self::$variant => $block_bytes,)* }
            }
        }
    };
}

ggml_types! {
    F32 = 0, "f32", 1 => 4;
    F16 = 1, "f16", 1 => 2;
    Q4_0 = 2, "q4_0", 32 => 18;
    Q4_1 = 3, "q4_1", 32 => 20;
    Q4_2 = 4, "q4_2", 16 => 10;
    Q4_3 = 5, "q4_3", 16 => 12;
    Q5_0 = 6, "q5_0", 32 => 22;
    Q5_1 = 7, "q5_1", 32 => 24;
    Q8_0 = 8, "q8_0", 32 => 34;
    Q8_1 = 9, "q8_1", 32 => 36;
    Q2_K = 10, "q2_K", 256 => 84;
    Q3_K = 11, "q3_K", 256 => 110;
    Q4_K = 12, "q4_K", 256 => 144;
    Q5_K = 13, "q5_K", 256 => 176;
    Q6_K = 14, "q6_K", 256 => 210;
    Q8_K = 15, "q8_K", 256 => 292;
    IQ2_XXS = 16, "iq2_xxs", 256 => 66;
    IQ2_XS = 17, "iq2_xs", 256 => 74;
    IQ3_XXS = 18, "iq3_xxs", 256 => 98;
    IQ1_S = 19, "iq1_s", 256 => 50;
    IQ4_NL = 20, "iq4_nl", 32 => 18;
    IQ3_S = 21, "iq3_s", 256 => 110;
    IQ2_S = 22, "iq2_s", 256 => 82;
    IQ4_XS = 23, "iq4_xs", 256 => 136;
    I8 = 24, "i8", 1 => 1;
    I16 = 25, "i16", 1 => 2;
    I32 = 26, "i32", 1 => 4;
    I64 = 27, "i64", 1 => 8;
    F64 = 28, "f64", 1 => 8;
    IQ1_M = 29, "iq1_m", 256 => 56;
    BF16 = 30, "bf16", 1 => 2;
    Q4_0_4_4 = 31, "q4_0_4x4", 32 => 18;
    Q4_0_4_8 = 32, "q4_0_4x8", 32 => 18;
    Q4_0_8_8 = 33, "q4_0_8x8", 32 => 18;
    TQ1_0 = 34, "tq1_0", 256 => 54;
    TQ2_0 = 35, "tq2_0", 256 => 66;
    IQ4_NL_4_4 = 36, "iq4_nl_4x4", 32 => 18;
    IQ4_NL_4_8 = 37, "iq4_nl_4x8", 32 => 18;
    IQ4_NL_8_8 = 38, "iq4_nl_8x8", 32 => 18;
    MXFP4 = 39, "mxfp4", 32 => 17;
    NVFP4 = 40, "nvfp4", 64 => 36;
    Q1_0 = 41, "q1_0", 128 => 18;
    Q2_0 = 42, "q2_0", 64 => 18;
}

impl GgmlType {
    /// Bytes of a row of `len` weights, or `None` where `len` is no whole number of blocks or the size overflows.
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The type with this name, in any letter case: `q4_K`, `Q4_K`, `iq2_xxs`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|ty| ty.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
