//! The names under which llama-quantize offers types and mixes of types.
#![forbid(unsafe_code)]

use gristmill_kernels::quant::GgmlType;

use crate::{Error, Result};

/// A file type that can be asked for: one tensor type for most tensors, and rules by which some get another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mix(pub(super) Ftype);

macro_rules! mixes {
    ($($variant:ident = $id:literal, $name:literal, $ty:ident;)*) => {
        /// A file type by llama.cpp's name for it.
        #[allow(non_camel_case_types, reason = "the variants bear llama.cpp's names")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(super) enum Ftype { $($variant,)* Copy }

        impl Mix {
            /// All of them, in the order in which llama-quantize lists them; `COPY`, which changes no tensor, is last.
            pub const ALL: &'static [Mix] = &[$(Mix(Ftype::$variant),)* Mix(Ftype::Copy)];

            /// The name, such as `Q4_K_M`.
            pub const fn name(self) -> &'static str {
                match self.0 { $(Ftype::$variant => $name,)* Ftype::Copy => "COPY" }
            }

            /// The number that stands for it under `general.file_type`; `None` for `COPY`, which keeps the file's own.
            pub const fn id(self) -> Option<u32> {
                match self.0 { $(Ftype::$variant => Some($id),)* Ftype::Copy => None }
            }

            /// The type of the tensors for which there is no rule; `None` for `COPY`.
            pub const fn default_type(self) -> Option<GgmlType> {
                match self.0 { $(Ftype::$variant => Some(GgmlType::$ty),)* Ftype::Copy => None }
            }
        }
    };
}
mixes! {
    Q1_0 = 40, "Q1_0", Q1_0;
    Q2_0 = 41, "Q2_0", Q2_0;
    Q4_0 = 2, "Q4_0", Q4_0;
    Q4_1 = 3, "Q4_1", Q4_1;
    MXFP4_MOE = 38, "MXFP4_MOE", MXFP4;
    Q5_0 = 8, "Q5_0", Q5_0;
    Q5_1 = 9, "Q5_1", Q5_1;
    IQ2_XXS = 19, "IQ2_XXS", IQ2_XXS;
    IQ2_XS = 20, "IQ2_XS", IQ2_XS;
    IQ2_S = 28, "IQ2_S", IQ2_XS;
    IQ2_M = 29, "IQ2_M", IQ2_S;
    IQ1_S = 24, "IQ1_S", IQ1_S;
    IQ1_M = 31, "IQ1_M", IQ1_M;
    TQ1_0 = 36, "TQ1_0", TQ1_0;
    TQ2_0 = 37, "TQ2_0", TQ2_0;
    Q2_K = 10, "Q2_K", Q2_K;
    Q2_K_S = 21, "Q2_K_S", Q2_K;
    IQ3_XXS = 23, "IQ3_XXS", IQ3_XXS;
    IQ3_S = 26, "IQ3_S", IQ3_S;
    IQ3_M = 27, "IQ3_M", IQ3_S;
    IQ3_XS = 22, "IQ3_XS", IQ3_S;
    Q3_K_S = 11, "Q3_K_S", Q3_K;
    Q3_K_M = 12, "Q3_K_M", Q3_K;
    Q3_K_L = 13, "Q3_K_L", Q3_K;
    IQ4_NL = 25, "IQ4_NL", IQ4_NL;
    IQ4_XS = 30, "IQ4_XS", IQ4_XS;
    Q4_K_S = 14, "Q4_K_S", Q4_K;
    Q4_K_M = 15, "Q4_K_M", Q4_K;
    Q5_K_S = 16, "Q5_K_S", Q5_K;
    Q5_K_M = 17, "Q5_K_M", Q5_K;
    Q6_K = 18, "Q6_K", Q6_K;
    Q8_0 = 7, "Q8_0", Q8_0;
    F16 = 1, "F16", F16;
    BF16 = 32, "BF16", BF16;
    F32 = 0, "F32", F32;
}

/// Short names.
const ALIASES: [(&str, &str); 3] = [("Q3_K", "Q3_K_M"), ("Q4_K", "Q4_K_M"), ("Q5_K", "Q5_K_M")];

impl Mix {
    /// The mix of this name, in any letter case, or of this number: `Q4_K_M`, `q4_k` and `15` are the same.
    ///
    /// # Errors
    /// [`Error::QuantizeMix`].
    pub fn named(name: &str) -> Result<Self> {
        let full =
            ALIASES.iter().find(|(short, _)| short.eq_ignore_ascii_case(name)).map_or(name, |(_, full)| full);
        Self::ALL
            .iter()
            .copied()
            .find(|mix| {
                mix.name().eq_ignore_ascii_case(full) || mix.id().is_some_and(|id| id.to_string() == name)
            })
            .ok_or_else(|| Error::QuantizeMix {
                found: name.to_owned(),
                known: Self::ALL.iter().map(|mix| mix.name()).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_go_by_name_short_name_and_number() {
        for name in ["Q4_K_M", "q4_k", "15"] {
            assert_eq!(Mix::named(name).unwrap().name(), "Q4_K_M");
        }
        assert_eq!(Mix::named("0").unwrap().name(), "F32");
        assert!(matches!(Mix::named("Q9"), Err(Error::QuantizeMix { found, .. }) if found == "Q9"));
    }

    #[test]
    fn no_two_mixes_share_a_name_or_a_number() {
        for (i, a) in Mix::ALL.iter().enumerate() {
            assert!(Mix::ALL[i + 1..].iter().all(|b| a.name() != b.name() && a.id() != b.id()));
        }
    }
}
