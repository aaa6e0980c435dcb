//! The tokenizer, the special tokens and the size of the vocabulary.

use super::{Report, Subject, some_of};
use crate::Error;
use crate::gguf::Metadata;
use crate::text::{EncodeOptions, TokenAttributes, TokenId, Tokenizer, TokenizerKind};

/// The file's tokenizer, where it can be made.
pub(super) fn tokenizer(metadata: &Metadata, report: &mut Report) -> Option<Tokenizer> {
    match Tokenizer::from_metadata(metadata) {
        Ok(tokenizer) => Some(tokenizer),
        Err(Error::MetadataMissing { key, .. }) if key == "tokenizer.ggml.model" => none(report),
        Err(Error::TokenizerKind { model, .. }) if matches!(model.as_str(), "none" | "no_vocab") => {
            none(report)
        }
        Err(error @ (Error::PreTokenizerMissing { .. } | Error::PreTokenizerUnknown { .. })) => {
            let advice = "Name the right one by --pre, or convert the model again with newer tools.";
            report.fault("tokenizer", error.to_string(), advice);
            None
        }
        Err(error) => {
            report.fault("tokenizer", error.to_string(), "Get the file anew, or convert the model again.");
            None
        }
    }
}

fn none(report: &mut Report) -> Option<Tokenizer> {
    let advice = "It can be run by token ids only: get a file that was converted with its vocabulary.";
    report.warn("tokenizer", "the file has none", advice);
    None
}

pub(super) fn check(subject: &Subject<'_>, report: &mut Report) {
    let Some(tokenizer) = subject.tokenizer else { return };
    kind(tokenizer, report);
    let before = report.worst_of("special tokens");
    ids(subject, tokenizer, report);
    ends(subject, tokenizer, report);
    if report.worst_of("special tokens") == before {
        let ends = tokenizer.end_of_generation_tokens().iter().map(|&id| shown(tokenizer, id));
        report.ok("special tokens", format!("ids in range; generation ends with {}", some_of(ends)));
    }
    size(subject, tokenizer, report);
}

/// A token as people see it.
pub(super) fn shown(tokenizer: &Tokenizer, id: TokenId) -> String {
    let text = tokenizer.token_text(id).unwrap_or_default();
    format!("`{}` ({id})", String::from_utf8_lossy(text))
}

fn kind(tokenizer: &Tokenizer, report: &mut Report) {
    let explained = tokenizer.explain();
    match &explained.pre {
        Some((pre, _)) if pre == "default" => report.warn(
            "tokenizer",
            "the pre-tokenizer is `default`: whoever converted the model did not know the right one",
            "Text may be cut into other tokens than in training: name the right one by --pre, or convert again.",
        ),
        Some((pre, _)) => report.ok("tokenizer", format!("{}, pre-tokenizer {pre}", explained.model)),
        None => report.ok("tokenizer", explained.model.clone()),
    }
    // Other kinds change the text on purpose: case, accents, spaces.
    if matches!(
        tokenizer.kind(),
        TokenizerKind::BytePair | TokenizerKind::SentencePiece | TokenizerKind::Rwkv
    ) && explained.model != "whitespace"
    {
        const TEXT: &str = "It's 10 past 9, \u{e9}t\u{e9}\n\n  `x = {1}`";
        let back = tokenizer.encode(TEXT, EncodeOptions::TEXT).map(|ids| tokenizer.decode(&ids));
        let text = match back {
            Ok(bytes) if bytes == TEXT.as_bytes() => return,
            Ok(_) => "a text that is encoded and decoded comes back changed".to_owned(),
            Err(error) => format!("a text cannot be encoded: {error}"),
        };
        report.warn(
            "tokenizer",
            text,
            "The vocabulary lacks bytes: some texts are lost to the model. Where it should not, convert again.",
        );
    }
}

/// Whether the ids that keys give are those of tokens.
fn ids(subject: &Subject<'_>, tokenizer: &Tokenizer, report: &mut Report) {
    let len = tokenizer.vocab_len();
    for (key, _) in subject.metadata.iter() {
        let part = key.strip_prefix("tokenizer.ggml.").and_then(|key| key.strip_suffix("_token_id"));
        let (Some(part), Ok(Some(id))) = (part, subject.metadata.get_as::<i64>(key)) else { continue };
        // -1 is how some files say that there is none.
        if id == -1 || usize::try_from(id).is_ok_and(|id| id < len) {
            continue;
        }
        let text = format!("{key} is {id}, but there are {len} tokens");
        let advice = "Such a token never comes; correct the key, or convert the model again.";
        match part {
            "bos" | "eos" | "eot" => report.fault("special tokens", text, advice),
            _ => report.warn("special tokens", text, advice),
        }
    }
}

/// Whether texts begin, and answers end, as they should.
fn ends(subject: &Subject<'_>, tokenizer: &Tokenizer, report: &mut Report) {
    let special = tokenizer.special_tokens();
    if tokenizer.add_bos() && special.bos.is_none() {
        report.fault(
            "special tokens",
            "BOS is to go first, but the file names none",
            "Set tokenizer.ggml.bos_token_id, or tokenizer.ggml.add_bos_token to false.",
        );
    }
    if subject.is_encoder() {
        return;
    }
    if tokenizer.end_of_generation_tokens().is_empty() {
        report.fault(
            "special tokens",
            "no token ends generation: neither EOS nor an end of turn is known",
            "Set tokenizer.ggml.eos_token_id, or give a bound (-n) and --stop.",
        );
    } else if special.eos.is_none() {
        report.note(
            "special tokens",
            "the file names no EOS",
            "Other tokens that end generation are known by their text.",
        );
    }
    let marks = TokenAttributes::CONTROL.union(TokenAttributes::USER_DEFINED).union(TokenAttributes::UNKNOWN);
    for (part, id) in [("EOS", special.eos), ("the end of turn", special.eot)] {
        if let Some(id) = id.filter(|&id| !tokenizer.token_attributes(id).intersects(marks)) {
            report.warn(
                "special tokens",
                format!("{part}, {}, is marked as ordinary text", shown(tokenizer, id)),
                "A prompt's own text may be taken for it; its tokenizer.ggml.token_type should be 3 (control).",
            );
        }
    }
    if tokenizer.add_eos() && subject.model.is_some() {
        report.warn(
            "special tokens",
            "EOS is put behind every prompt (tokenizer.ggml.add_eos_token)",
            "A model that continues text sees its end before it begins: set the key to false, unless it was trained so.",
        );
    }
}

/// The vocabulary against the rows of the embedding.
fn size(subject: &Subject<'_>, tokenizer: &Tokenizer, report: &mut Report) {
    let embedding = subject.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    let Some(embedding) = embedding else { return };
    let (rows, tokens) = (embedding.rows(), tokenizer.vocab_len());
    match rows.checked_sub(tokens) {
        Some(0) => report.ok("vocabulary", format!("{tokens} tokens, and as many rows of the embedding")),
        Some(more) => report.note(
            "vocabulary",
            format!("{tokens} tokens, and {rows} rows of the embedding: {more} rows fill up"),
            "",
        ),
        None => report.fault(
            "vocabulary",
            format!("{tokens} tokens, but only {rows} rows of the embedding"),
            "Tokens without a row cannot be fed: the vocabulary is another model's. Convert the model again.",
        ),
    }
}
