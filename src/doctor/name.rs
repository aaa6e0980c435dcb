//! What a file's name promises, against what is in it.

use gristmill_kernels::quant::GgmlType;

use super::{Report, Subject, percent};
use crate::gguf::TensorInfo;
use crate::quantize::Mix;

pub(super) fn check(subject: &Subject<'_>, report: &mut Report) {
    if subject.tensors.is_empty() {
        return;
    }
    let stem = subject.path.and_then(|path| path.file_stem()).and_then(|stem| stem.to_str());
    if let Some((said, ty)) = stem.and_then(quantization) {
        types(subject, &format!("the name says {said}"), ty, report);
    }
    let id = subject.metadata.u32("general.file_type").ok().flatten();
    if let Some(mix) = Mix::ALL.iter().find(|mix| id.is_some() && mix.id() == id)
        && let Some(ty) = mix.default_type()
    {
        types(subject, &format!("general.file_type says {}", mix.name()), ty, report);
    }
    for (whose, text) in [("the name", stem), ("general.size_label", subject.text("general.size_label"))] {
        if let Some((said, low, high)) = text.and_then(parameters) {
            let real = subject.weights() as f64;
            let found =
                if real < 1e9 { format!("{:.1} M", real / 1e6) } else { format!("{:.2} B", real / 1e9) };
            let text = format!("{whose} says {said} parameters, there are {found}");
            match low <= real && real <= high {
                true => report.ok("name", text),
                false => report.warn(
                    "name",
                    text,
                    "It is another model than the name says, or layers are missing: look at where it came from.",
                ),
            }
        }
    }
}

/// Compares the type that most weights should have with those that they have.
fn types(subject: &Subject<'_>, said: &str, ty: GgmlType, report: &mut Report) {
    // Embeddings and output often have another type, and in small models make up most of the file.
    let in_layers = |tensor: &&TensorInfo| tensor.name.starts_with("blk.");
    let fits = |tensor: &&TensorInfo| tensor.row_len().is_multiple_of(ty.block_len());
    let mut weights: Vec<(GgmlType, u64)> = Vec::new();
    for tensor in subject.matrices().filter(in_layers).filter(fits) {
        let amount = tensor.elements() as u64;
        match weights.iter_mut().find(|(known, _)| *known == tensor.ty) {
            Some((_, sum)) => *sum = sum.saturating_add(amount),
            None => weights.push((tensor.ty, amount)),
        }
    }
    let total = weights.iter().fold(0_u64, |sum, (_, amount)| sum.saturating_add(*amount));
    let Some(&(most, amount)) = weights.iter().max_by_key(|(_, amount)| *amount) else { return };
    let bits = |ty: GgmlType| ty.block_bytes() as f64 * 8.0 / ty.block_len() as f64;
    let mean = weights.iter().map(|&(ty, amount)| bits(ty) * amount as f64).sum::<f64>() / total as f64;
    let share =
        percent(weights.iter().find(|(known, _)| *known == ty).map_or(0, |(_, amount)| *amount), total);
    let found = format!(
        "{:.0} % of the layers' weights are {most}, {mean:.2} bits on average",
        percent(amount, total)
    );
    // Mixes give a good part of the tensors more or fewer bits than their name; a quarter either way is no mix's.
    if most == ty || share >= 25.0 || (mean / bits(ty) - 1.0).abs() <= 0.25 {
        report.ok("name", format!("{said}: {found}"));
    } else {
        report.warn(
            "name",
            format!("{said}, but {found}"),
            "Go by the types, not by the name; rename the file or get the one that you meant.",
        );
    }
}

/// The quantization that a name gives, as it stands there, and the type of most of its weights.
pub(crate) fn quantization(stem: &str) -> Option<(String, GgmlType)> {
    let upper = stem.to_ascii_uppercase();
    let mixes = Mix::ALL.iter().filter_map(|mix| Some((mix.name(), mix.default_type()?)));
    let short = [
        ("Q2_K", GgmlType::Q2_K),
        ("Q3_K", GgmlType::Q3_K),
        ("Q4_K", GgmlType::Q4_K),
        ("Q5_K", GgmlType::Q5_K),
    ];
    let names = mixes.chain(short).chain([("MXFP4", GgmlType::MXFP4)]);
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
    // The last one counts, and of those that begin together the longest.
    let found =
        names.flat_map(|(name, ty)| upper.match_indices(name).map(move |(at, _)| (at, name.len(), ty)));
    let (at, len, ty) = found
        .filter(|&(at, len, _)| {
            let (before, after) =
                (upper.get(..at).unwrap_or_default(), upper.get(at + len..).unwrap_or_default());
            boundary(before.chars().next_back()) && boundary(after.chars().next())
        })
        .max_by_key(|&(at, len, _)| (at, len))?;
    Some((stem.get(at..at + len)?.to_owned(), ty))
}

/// The number of parameters that a name gives, as it stands there, and between which bounds the real one may lie.
fn parameters(text: &str) -> Option<(String, f64, f64)> {
    text.split(['-', '_', ' ', '/']).find_map(|word| {
        // What follows a point is the next part of the name, unless it is a digit: `7B.Q4_0`, `1.1b`.
        let mut end = word.len();
        for (at, _) in word.match_indices('.') {
            if !word.get(at + 1..)?.starts_with(|c: char| c.is_ascii_digit()) {
                end = at;
                break;
            }
        }
        let word = word.get(..end)?;
        let number = word.strip_suffix(['b', 'B', 'm', 'M'])?;
        let unit = if word.ends_with(['b', 'B']) { 1e9 } else { 1e6 };
        let (experts, number) = match number.split_once(['x', 'X']) {
            Some((experts, number)) => (experts.parse::<u16>().ok()?, number),
            None => (1, number),
        };
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let one = number.parse::<f64>().ok().filter(|one| (1e-3..1e5).contains(one))? * unit;
        // Names round, and some leave out embeddings; experts share everything but their feed-forward networks.
        let high = 1.5 * one * f64::from(experts);
        Some((word.to_owned(), 0.6 * one, high))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantizations_are_read_from_names() {
        for (name, said, ty) in [
            ("tinyllama-1.1b-chat-v1.0.Q4_K_M", "Q4_K_M", GgmlType::Q4_K),
            ("model_q4_0", "q4_0", GgmlType::Q4_0),
            ("Qwen3-8B-UD-Q4_K_XL", "Q4_K", GgmlType::Q4_K),
            ("gpt-oss-20b-mxfp4", "mxfp4", GgmlType::MXFP4),
            ("llama-f16-to-IQ3_XXS-00001-of-00002", "IQ3_XXS", GgmlType::IQ3_XXS),
            ("gemma-bf16", "bf16", GgmlType::BF16),
            ("phi-q6_k", "q6_k", GgmlType::Q6_K),
        ] {
            assert_eq!(quantization(name), Some((said.to_owned(), ty)), "{name}");
        }
        assert_eq!(quantization("vicuna-7b"), None);
        assert_eq!(quantization("xf16y"), None);
    }

    #[test]
    fn parameter_counts_are_read_from_names() {
        let read =
            |name| parameters(name).map(|(said, low, high)| (said, (low / 1e6) as u64, (high / 1e6) as u64));
        for (name, said, low, high) in [
            ("tinyllama-1.1b-chat-v1.0.Q4_K_M", "1.1b", 660, 1650),
            ("Llama-3.2-1B-Instruct.Q4_K_M", "1B", 600, 1500),
            ("llama-7b.Q4_0", "7b", 4200, 10500),
            ("Mixtral-8x7B-v0.1", "8x7B", 4200, 84000),
            ("SmolLM2-135M", "135M", 81, 202),
            ("Qwen3-30B-A3B", "30B", 18000, 45000),
        ] {
            assert_eq!(read(name), Some((said.to_owned(), low, high)), "{name}");
        }
        for name in ["gemma-3n-E2B-it", "model-128k", "Q4_K_M", "x-4bit", "v2-b", ""] {
            assert_eq!(read(name), None, "{name}");
        }
    }
}
