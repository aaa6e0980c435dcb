//! Importance: how strong the inputs of each tensor's columns are, as llama-imatrix measures it.

use std::sync::{Mutex, PoisonError};

use super::reader::Reader;
use super::text::Chunks;
use super::{Options, Progress};
use crate::Result;
use crate::model::Model;
use crate::quantize::ImatrixSums;

/// Measures over `text`, cut as by [`perplexity`](super::perplexity()), how strong the inputs of each tensor's columns are,
/// calling `progress` after each chunk. With `output`, the inputs of `output.weight` too, where the model has it.
///
/// `dataset` is what the importance matrix will say was measured: the text's file, say.
///
/// # Errors
/// [`Error::NonFiniteInputs`](crate::Error::NonFiniteInputs) for damaged weights; those of [`perplexity`](super::perplexity()).
pub fn imatrix(
    model: &Model,
    text: &str,
    dataset: &str,
    output: bool,
    options: &Options,
    mut progress: impl FnMut(Progress),
) -> Result<ImatrixSums> {
    let chunks = Chunks::new(model, text, options)?;
    let sums = Mutex::new(ImatrixSums::new(dataset, options.chunk_len()));
    let locked = || sums.lock().unwrap_or_else(PoisonError::into_inner);
    let observer = |product: crate::backend::Product<'_>| {
        let name = &*product.weights.tensor;
        if name.starts_with("blk.") || product.experts.is_some() || (output && name == "output.weight") {
            let tensor = model.file().tensor(name);
            locked().add(&product, tensor.map_or(&[], |tensor| tensor.info.shape()));
        }
    };
    let mut reader = Reader::new(model, options, Some(options.chunk_len()))?.observed(&observer);
    for (number, chunk) in chunks.iter().enumerate() {
        let mut sequence = reader.begin();
        for tokens in chunk.chunks(options.batch) {
            let all: Vec<usize> = (0..tokens.len()).collect();
            let hidden = reader.read(&mut sequence, tokens, &all)?;
            if output {
                for block in hidden.blocks(reader.positions_together()) {
                    reader.logits(block, |_, _| Ok(()))?;
                }
            }
        }
        locked().end_chunk()?;
        progress(Progress { done: number + 1, total: chunks.len(), estimate: None });
    }
    drop(reader);
    Ok(sums.into_inner().unwrap_or_else(PoisonError::into_inner))
}
