//! The angles of rotary embedding, from a model's parameters.
#![forbid(unsafe_code)]

use super::loader::Loader;
use crate::backend::{Pairing, Turns};
use crate::{Error, Result};

/// How fast each pair of a head turns.
pub(crate) struct Rope {
    pairing: Pairing,
    /// Radians a position, for each pair.
    speeds: Vec<f64>,
    /// The speeds for contexts longer than this many tokens (LongRoPE).
    long: Option<(usize, Vec<f64>)>,
    /// Factor of cosine and sine (YaRN's attention factor).
    magnitude: f64,
}

impl Rope {
    /// Reads the parameters `rope.*` for heads of `head_dim` values, and the factors of `rope_freqs.weight`.
    ///
    /// Scalings: `linear` divides every speed; `yarn` (Peng and others 2023) only those of the slow pairs; the factors
    /// of Llama 3 come as a tensor, those of LongRoPE (Ding and others 2024) as two: for contexts as long as those of the
    /// first training, and for longer ones. As in llama.cpp the context that a sequence may have decides which are
    /// used, not how long it is: so its first tokens need not be turned again when it grows.
    pub fn load(loader: &Loader<'_>, pairing: Pairing, head_dim: usize) -> Result<Self> {
        let dim = Self::dimensions(loader, head_dim)?;
        let (mut rope, base) = Self::unscaled(loader, pairing, dim, "rope.freq_base", 10_000.0)?;
        rope.magnitude = scale(loader, &mut rope.speeds, base, dim)?;
        rope.divide(loader, "rope_freqs.weight")?;
        if loader.has("rope_factors_long.weight") {
            let trained = loader.size("rope.scaling.original_context_length")?;
            let mut long = Rope { speeds: rope.speeds.clone(), long: None, ..rope };
            long.divide(loader, "rope_factors_long.weight")?;
            rope.divide(loader, "rope_factors_short.weight")?;
            rope.long = Some((trained, long.speeds));
        }
        Ok(rope)
    }

    /// For latent attention, whose YaRN scales angles and scores by factors of its own: gives them too.
    ///
    /// `rope.scaling.yarn_log_multiplier` is a tenth of the `mscale_all_dim` of the first configuration.
    pub fn load_latent(loader: &Loader<'_>, pairing: Pairing, head_dim: usize) -> Result<(Self, f32)> {
        let mut rope = Self::load(loader, pairing, head_dim)?;
        let factor = f64::from(loader.optional_float("rope.scaling.factor")?.unwrap_or(1.0)).max(1.0);
        let multiplier = f64::from(loader.optional_float("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0));
        if loader.metadata().str(&loader.key("rope.scaling.type"))? != Some("yarn") {
            return Ok((rope, 1.0));
        }
        if multiplier != 0.0 {
            // Both configurations that there are have as much for the angles: the factors cancel.
            rope.magnitude = 1.0;
        }
        let scores = 1.0 + multiplier * libm::log(factor);
        Ok((rope, (scores * scores) as f32))
    }

    /// How many of a head's values are turned.
    pub fn dimensions(loader: &Loader<'_>, head_dim: usize) -> Result<usize> {
        let dim = loader.optional_size("rope.dimension_count")?.unwrap_or(head_dim);
        if dim > head_dim || !dim.is_multiple_of(2) {
            let key = loader.key("rope.dimension_count");
            let expected = "an even number, no larger than a head";
            let found = format!("{dim} for heads of {head_dim}");
            return Err(Error::MetadataType { key, expected, found });
        }
        Ok(dim)
    }

    /// Those of layers that see all, as [`Rope::load`] gives them, and of those with a window, which turn without scaling by
    /// the base that `window_base` names. Halves are paired.
    pub fn load_with_windows(loader: &Loader<'_>, head_dim: usize, window_base: &str) -> Result<[Self; 2]> {
        let dim = Self::dimensions(loader, head_dim)?;
        let (windowed, _) = Self::unscaled(loader, Pairing::Halves, dim, window_base, 10_000.0)?;
        Ok([Self::load(loader, Pairing::Halves, head_dim)?, windowed])
    }

    /// Without scalings: for `dim` values of a head and the base that `key` names. Gives the base too.
    pub fn unscaled(
        loader: &Loader<'_>,
        pairing: Pairing,
        dim: usize,
        key: &str,
        default: f32,
    ) -> Result<(Self, f64)> {
        let base = f64::from(loader.optional_float(key)?.unwrap_or(default));
        if base <= 0.0 {
            let key = loader.key(key);
            return Err(Error::MetadataType { key, expected: "a positive number", found: base.to_string() });
        }
        let speeds = (0..dim / 2).map(|i| libm::pow(base, -2.0 * i as f64 / dim as f64)).collect();
        Ok((Rope { pairing, speeds, long: None, magnitude: 1.0 }, base))
    }

    /// Divides the speeds by the tensor `name`, where it is there.
    fn divide(&mut self, loader: &Loader<'_>, name: &str) -> Result<()> {
        let Some(factors) = loader.optional_vector(name, self.speeds.len())? else { return Ok(()) };
        if let Some(factor) = factors.iter().find(|&&factor| !(factor.is_finite() && factor > 0.0)) {
            let (expected, found) = ("positive numbers".to_owned(), factor.to_string());
            return Err(Error::TensorShape { tensor: name.to_owned(), expected, found });
        }
        for (speed, factor) in self.speeds.iter_mut().zip(factors) {
            *speed /= f64::from(factor);
        }
        Ok(())
    }

    /// The angles of the tokens at `positions` of a sequence that may have `context` tokens.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn turns(&self, positions: std::ops::Range<usize>, context: usize) -> Result<Turns> {
        let speeds = match &self.long {
            Some((trained, long)) if context > *trained => long,
            _ => &self.speeds,
        };
        let len = positions.len().saturating_mul(speeds.len());
        let mut by = Vec::new();
        by.try_reserve_exact(2 * len)
            .map_err(|_| Error::OutOfMemory { what: "angles of positions", bytes: 8 * len as u64 })?;
        let turn = |angle: f64| {
            [(libm::cos(angle) * self.magnitude) as f32, (libm::sin(angle) * self.magnitude) as f32]
        };
        for position in positions {
            by.extend(speeds.iter().flat_map(|speed| turn(position as f64 * speed)));
        }
        Ok(Turns { pairing: self.pairing, pairs: speeds.len(), by: by.into() })
    }
}

/// Slows the pairs down as `rope.scaling.*` says; gives the factor of cosine and sine.
fn scale(loader: &Loader<'_>, speeds: &mut [f64], base: f64, dim: usize) -> Result<f64> {
    let metadata = loader.metadata();
    let key = loader.key("rope.scaling.type");
    let legacy = loader.optional_float("rope.scale_linear")?;
    let factor = loader.optional_float("rope.scaling.factor")?.or(legacy).filter(|&factor| factor != 0.0);
    let factor = f64::from(factor.unwrap_or(1.0));
    if factor < 0.0 {
        let key = loader.key("rope.scaling.factor");
        return Err(Error::MetadataType { key, expected: "a positive number", found: factor.to_string() });
    }
    let attention = f64::from(loader.optional_float("rope.scaling.attn_factor")?.unwrap_or(1.0));
    match metadata.str(&key)? {
        Some("none" | "longrope") => Ok(attention),
        None | Some("linear") => {
            speeds.iter_mut().for_each(|speed| *speed /= factor);
            Ok(attention)
        }
        Some("yarn") => {
            let trained = match loader.optional_size("rope.scaling.original_context_length")? {
                Some(trained) => trained,
                None => loader.size("context_length")?,
            };
            let optional = |name: &str, default: f32| {
                loader.optional_float(name).map(|x| f64::from(x.unwrap_or(default)))
            };
            let fast = optional("rope.scaling.yarn_beta_fast", 32.0)?;
            let slow = optional("rope.scaling.yarn_beta_slow", 1.0)?;
            // The pair that turns `turns` times within the trained context.
            let pair = |turns: f64| {
                let wavelength = trained as f64 / (turns * 2.0 * std::f64::consts::PI);
                dim as f64 * libm::log(wavelength) / (2.0 * libm::log(base))
            };
            let low = libm::floor(pair(fast)).max(0.0);
            let high = libm::ceil(pair(slow)).min(dim as f64 - 1.0);
            for (i, speed) in speeds.iter_mut().enumerate() {
                let slowed = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                *speed *= slowed / factor + (1.0 - slowed);
            }
            // What the scores are scaled by (`mscale_all_dim`) is taken off the angles' magnitude.
            let multiplier = optional("rope.scaling.yarn_log_multiplier", 0.0)?;
            let magnitude = |by: f64| 1.0 + 0.1 * by * libm::log(factor);
            Ok(attention * magnitude(1.0) / magnitude(multiplier))
        }
        Some(other) => Err(loader.unsupported(format!("rope scaling `{other}` (`{key}`)"))),
    }
}
