//! What would make a model better, faster or smaller here.

use gristmill_kernels::quant::GgmlType;
use gristmill_kernels::simd::Level;

use super::{Options, Report, Severity, Subject, percent, size, some_of};
use crate::CacheType;
use crate::gguf::TensorInfo;
use crate::quantize::{self, Mix};
use crate::speed::memory::Memory;

/// The context that memory is reckoned for where none is asked for: what a conversation commonly takes.
const CONTEXT: usize = 4096;

/// Where the importance matrix came from, and whether the types needed one.
pub(super) fn importance(subject: &Subject<'_>, report: &mut Report) {
    let used = |needs: fn(GgmlType) -> bool| {
        let in_layers = subject.matrices().filter(|tensor| tensor.name.starts_with("blk."));
        in_layers.filter(|tensor| needs(tensor.ty)).count()
    };
    if let Some(file) = subject.text("quantize.imatrix.file") {
        let dataset = subject.text("quantize.imatrix.dataset").unwrap_or("an unnamed text");
        let count = |key| subject.metadata.u64(key).ok().flatten();
        let mut text = format!("quantized with the matrix `{file}`, measured on `{dataset}`");
        if let Some(chunks) = count("quantize.imatrix.chunks_count") {
            text.push_str(&format!(", {chunks} chunks"));
        }
        if let Some(entries) = count("quantize.imatrix.entries_count") {
            text.push_str(&format!(", {entries} tensors"));
        }
        report.ok("importance", text);
        return;
    }
    use GgmlType::*;
    // Those that llama-quantize refuses to make without one.
    let must = used(|ty| matches!(ty, IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS));
    let should = used(|ty| matches!(ty, Q2_K | Q3_K | IQ3_S | Q4_0 | Q4_1 | Q4_K | IQ4_NL | IQ4_XS));
    if must > 0 {
        report.warn(
            "importance",
            format!("{must} matrices have a type that needs an importance matrix, and the file names none"),
            "Quantized without one they would be poor: ask for the keys quantize.imatrix.*, or measure the divergence.",
        );
    } else if should > 0 {
        report.note(
            "importance",
            "four bits or fewer, and no importance matrix is named",
            "Quantized with one (`grist quantize --imatrix`) the same size would be nearer to the original.",
        );
    }
}

/// Types that are larger or slower than they need be, and a processor that lacks instructions.
pub(super) fn speed(subject: &Subject<'_>, options: &Options, report: &mut Report) {
    if subject.tensors.is_empty() {
        return;
    }
    if options.level.unwrap_or_else(Level::detect) == Level::SCALAR {
        report.warn(
            "speed",
            "the scalar level: the processor has none of the instructions that are used, or they are switched off",
            "It works, many times slower. On x86-64 AVX2 is needed, which some virtual machines hide.",
        );
    }
    let float = |tensor: &TensorInfo| matches!(tensor.ty, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16);
    let bytes = |tensors: &mut dyn Iterator<Item = &TensorInfo>| tensors.map(TensorInfo::bytes).sum::<u64>();
    let all = bytes(&mut subject.matrices());
    let floats = bytes(&mut subject.matrices().filter(|tensor| float(tensor)));
    if floats == 0 || all == 0 {
        return;
    }
    if percent(floats, all) > 50.0 {
        // Which of the tensors that leaves as they are, the rules of quantizing know.
        let advice = match (quantized(subject, "Q8_0"), quantized(subject, "Q4_K_M")) {
            (Some(q8), Some(q4)) if q8 < all => format!(
                "`grist quantize IN OUT Q8_0` makes it {}, with hardly a difference; Q4_K_M {}. Generation is faster by as much.",
                size(q8),
                size(q4),
            ),
            _ => "`grist quantize` makes it smaller and faster.".to_owned(),
        };
        report.note(
            "speed",
            format!(
                "{:.0} % of the matrices' {} are floats of 16 or 32 bits",
                percent(floats, all),
                size(all)
            ),
            advice,
        );
        return;
    }
    let large: Vec<&TensorInfo> =
        subject.matrices().filter(|tensor| float(tensor) && percent(tensor.bytes(), all) >= 5.0).collect();
    if !large.is_empty() {
        let names =
            large.iter().map(|tensor| format!("{} ({}, {})", tensor.name, tensor.ty, size(tensor.bytes())));
        report.note(
            "speed",
            format!("not quantized, as the others are: {}", some_of(names)),
            "Quantized from the original with --output-tensor-type and --token-embedding-type q8_0 they take about half.",
        );
    }
}

/// Bytes of the tensors once they have a mix's types; `None` where that cannot be had.
fn quantized(subject: &Subject<'_>, mix: &str) -> Option<u64> {
    let options = quantize::Options::new(Mix::named(mix).ok()?);
    Some(quantize::plan(subject.file?, &options).ok()?.bytes_after())
}

/// The file and the cache against what the machine has free.
pub(super) fn memory(subject: &Subject<'_>, options: &Options, report: &mut Report) {
    let (Some(model), Some(file)) = (subject.model, subject.file) else { return };
    let trained = model.trained_context().unwrap_or(CONTEXT);
    let tokens = options.context.unwrap_or_else(|| trained.min(CONTEXT));
    let cache =
        |tokens| if model.is_encoder() { 0 } else { model.cache_bytes(CacheType::F16, tokens) as u64 };
    let need = file.file_bytes().saturating_add(cache(tokens));
    let text = format!("{}: the file, and {} for {tokens} tokens", size(need), size(cache(tokens)),);
    let Some(Memory { available: free, .. }) = Memory::of_this_machine() else {
        return report.ok("memory", text);
    };
    let text = format!("{text}; {} are free", size(free));
    if file.file_bytes() > free {
        // The largest type that leaves an eighth for everything else.
        let fits = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"].iter().find(|mix| {
            quantized(subject, mix)
                .is_some_and(|bytes| bytes.saturating_add(cache(tokens)) <= free - free / 8)
        });
        let advice = match fits {
            Some(mix) => {
                format!("Every token reads from the disk what memory cannot hold. As {mix} it would fit.")
            }
            None => {
                "Every token reads from the disk what memory cannot hold: take a smaller model.".to_owned()
            }
        };
        report.add(Severity::Warning, "memory", text, Some(advice));
    } else if need > free {
        report.warn("memory", text, "A smaller --ctx, or --cache q8_0, makes it fit.");
    } else {
        report.ok("memory", text);
    }
    let whole = file.file_bytes().saturating_add(cache(trained));
    if options.context.is_none() && trained > tokens && whole > free && need <= free {
        report.note(
            "memory",
            format!("the whole context of {trained} tokens would take {}", size(whole)),
            "Give --ctx: the cache grows with the conversation.",
        );
    }
}
