//! Layers that are left out, and the numbers that the others get.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use crate::gguf::{Metadata, Value};
use crate::{Error, Result};

/// Which layers of a model stay.
pub(super) struct Kept<'a> {
    pruned: &'a BTreeSet<u32>,
}

impl<'a> Kept<'a> {
    /// All but `pruned`, of a model with these metadata.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] where it has no such layers, or no others.
    pub fn new(pruned: &'a BTreeSet<u32>, metadata: &Metadata) -> Result<Self> {
        if let Some(&last) = pruned.last() {
            let layers = metadata.u32(&layers_key(metadata)?)?.unwrap_or(0);
            if last >= layers || pruned.len() >= layers as usize {
                let expected =
                    format!("some, not all, of the model's layers 0 to {}", layers.saturating_sub(1));
                let found = pruned.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
                return Err(Error::InvalidOption { option: "prune_layers", expected, found });
            }
        }
        Ok(Kept { pruned })
    }

    /// The name that a tensor gets; `None` where its layer is left out. As in llama-quantize, `blk.` and a number need not begin it.
    pub fn name(&self, name: &str) -> Option<String> {
        let layer = (!self.pruned.is_empty()).then(|| layer(name)).flatten();
        let Some((before, layer, after)) = layer else { return Some(name.to_owned()) };
        let left_out = self.pruned.range(..layer).count() as u32;
        (!self.pruned.contains(&layer)).then(|| format!("{before}{}{after}", layer - left_out))
    }

    /// Makes the metadata tell of the layers that are left, also where they have an entry for each.
    pub fn tell(&self, metadata: &mut Metadata) -> Result<()> {
        if self.pruned.is_empty() {
            return Ok(());
        }
        let key = layers_key(metadata)?;
        let layers = metadata.u32(&key)?.unwrap_or(0);
        let of_architecture = key.trim_end_matches("block_count");
        let is_by_layer = |key: &str| {
            let key = key.strip_prefix(of_architecture);
            key.is_some_and(|key| key.starts_with("attention.") || key.starts_with("feed_forward_length"))
        };
        let by_layer: Vec<_> = (metadata.iter().filter(|(key, _)| is_by_layer(key)))
            .filter_map(|(key, value)| match value {
                Value::Array(array) if array.len() == layers as usize => {
                    Some((key.to_owned(), array.clone()))
                }
                _ => None,
            })
            .collect();
        for (key, mut array) in by_layer {
            array.retain(|at| u32::try_from(at).is_ok_and(|layer| !self.pruned.contains(&layer)));
            metadata.set(&key, array);
        }
        metadata.remove(&key);
        metadata.set(&key, layers - self.pruned.len() as u32);
        Ok(())
    }
}

fn layers_key(metadata: &Metadata) -> Result<String> {
    Ok(format!("{}.block_count", metadata.require::<&str>("general.architecture")?))
}

/// What stands before the number of a layer, the number, and what stands behind it.
fn layer(name: &str) -> Option<(&str, u32, &str)> {
    name.match_indices("blk.").find_map(|(at, prefix)| {
        let (before, rest) = name.split_at_checked(at + prefix.len())?;
        let (number, _) = rest.split_once('.')?;
        let after = rest.get(number.len()..)?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        Some((before, number.parse().ok().filter(|_| is_number)?, after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Metadata {
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", "some");
        metadata.set("some.block_count", 4_u32);
        metadata.set("some.attention.head_count_kv", vec![5_u32, 6, 7, 8]);
        metadata.set("some.attention.pattern", vec![true, false]);
        metadata.set("some.rope.dimension_sections", vec![1_i32, 2, 3, 4]);
        metadata
    }

    #[test]
    fn layers_close_up() {
        let (pruned, mut metadata) = (BTreeSet::from([0, 2]), model());
        let kept = Kept::new(&pruned, &metadata).unwrap();
        let names =
            ["token_embd.weight", "blk.0.a", "blk.1.a", "blk.2.a", "dec.blk.3.a", "blk.x.a", "blk.+1.a"];
        let expected = [
            Some("token_embd.weight"),
            None,
            Some("blk.0.a"),
            None,
            Some("dec.blk.1.a"),
            Some("blk.x.a"),
            Some("blk.+1.a"),
        ];
        assert_eq!(names.map(|name| kept.name(name)), expected.map(|name| name.map(str::to_owned)));
        kept.tell(&mut metadata).unwrap();
        assert_eq!(metadata.u32("some.block_count").unwrap(), Some(2));
        assert_eq!(metadata.u32s("some.attention.head_count_kv").unwrap().unwrap(), [6, 8].as_slice());
        assert_eq!(metadata.i32s("some.rope.dimension_sections").unwrap().unwrap().len(), 4);
    }

    #[test]
    fn layers_that_are_not_there_are_refused_and_so_is_leaving_none() {
        let metadata = model();
        for pruned in [BTreeSet::from([4]), BTreeSet::from([0, 1, 2, 3])] {
            let error = Kept::new(&pruned, &metadata).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::InvalidOption { option: "prune_layers", .. }), "{error}");
        }
        assert_eq!(
            Kept::new(&BTreeSet::new(), &metadata).unwrap().name("blk.9.a").as_deref(),
            Some("blk.9.a")
        );
    }
}
