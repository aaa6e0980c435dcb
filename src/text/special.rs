//! Tokens with a part to play: begin and end of text, ends of turns, marks for filling in the middle.
//!
//! Files name some of them by key; others are known by their text alone. Both follow llama.cpp, but that where several
//! texts could fill a part, its choice depends on a hash and ours is the first of the list.

use std::borrow::Cow;

use super::kind::Kind;
use super::vocab::{TokenAttributes, TokenId, Vocabulary};
use crate::Result;
use crate::gguf::Metadata;

/// The tokens that play a part, where the vocabulary has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecialTokens {
    /// Begins a text (`bos`; BERT's `[CLS]`).
    pub bos: Option<TokenId>,
    /// Ends a text (`eos`).
    pub eos: Option<TokenId>,
    /// Ends a turn (`eot`).
    pub eot: Option<TokenId>,
    /// Ends a message that another is to follow, such as a tool's answer (`eom`).
    pub eom: Option<TokenId>,
    /// Stands for text without a token (`unk`).
    pub unk: Option<TokenId>,
    /// Parts two texts (`sep`).
    pub sep: Option<TokenId>,
    /// Fills up batches (`pad`).
    pub pad: Option<TokenId>,
    /// Stands for a token to be guessed (`mask`).
    pub mask: Option<TokenId>,
    /// Before the text in front of the gap to fill.
    pub fim_prefix: Option<TokenId>,
    /// Before the text behind the gap.
    pub fim_suffix: Option<TokenId>,
    /// Where the text for the gap goes.
    pub fim_middle: Option<TokenId>,
    /// Fills up training examples of gaps.
    pub fim_pad: Option<TokenId>,
    /// Before the name of a repository.
    pub fim_repository: Option<TokenId>,
    /// Before the name of a file.
    pub fim_separator: Option<TokenId>,
}

/// Why BOS goes first, or does not, when a text is encoded with its special tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BosDecision {
    /// Whether it goes first.
    pub add: bool,
    /// The token, if the vocabulary has one.
    pub token: Option<TokenId>,
    /// What decided it.
    pub reason: BosReason,
}

/// What decided whether BOS goes first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BosReason {
    /// The key `tokenizer.ggml.add_bos_token` of the file.
    Key,
    /// The file is silent; so models with this pre-tokenizer have it.
    PreTokenizer(Cow<'static, str>),
    /// The file is silent; so models with this kind of tokenizer (`tokenizer.ggml.model`) have it.
    Kind(Cow<'static, str>),
    /// Models with this pre-tokenizer need it, whatever the file says.
    Required(Cow<'static, str>),
}

/// One sentence: whether BOS goes first, and what decided it.
impl std::fmt::Display for BosDecision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let says = if self.add { "BOS goes first" } else { "no BOS" };
        match &self.reason {
            BosReason::Key => write!(f, "{says}: {ADD_BOS_KEY} says so"),
            BosReason::PreTokenizer(name) => {
                write!(f, "{says}: {ADD_BOS_KEY} is absent, and this is the default of pre-tokenizer {name}")
            }
            BosReason::Kind(name) => {
                write!(
                    f,
                    "{says}: {ADD_BOS_KEY} is absent, and this is the default of tokenizer model {name}"
                )
            }
            BosReason::Required(name) => write!(f, "{says}: tokenizer {name} always does so"),
        }
    }
}

const ADD_BOS_KEY: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS_KEY: &str = "tokenizer.ggml.add_eos_token";
pub(crate) const SUPPRESS_KEY: &str = "tokenizer.ggml.suppress_tokens";

/// A part: where its id is kept, its keys (later ones win), and the texts that fill it where no key does.
struct Part {
    slot: fn(&mut SpecialTokens) -> &mut Option<TokenId>,
    keys: &'static [&'static str],
    texts: &'static [&'static str],
}

const PARTS: &[Part] = &[
    Part { slot: |s| &mut s.bos, keys: &["bos"], texts: &[] },
    Part { slot: |s| &mut s.eos, keys: &["eos"], texts: &[] },
    Part {
        slot: |s| &mut s.eot,
        keys: &["eot"],
        texts: &[
            "<|eot_id|>",
            "<|im_end|>",
            "<|end|>",
            "<end_of_turn>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<EOT>",
            "_<EOT>",
            "[EOT]",
            "<｜end▁of▁sentence｜>",
            "<end_of_utterance>",
        ],
    },
    Part { slot: |s| &mut s.eom, keys: &["eom"], texts: &["<|eom_id|>"] },
    Part { slot: |s| &mut s.unk, keys: &["unknown"], texts: &[] },
    Part { slot: |s| &mut s.sep, keys: &["seperator"], texts: &[] },
    Part { slot: |s| &mut s.pad, keys: &["padding"], texts: &[] },
    Part { slot: |s| &mut s.mask, keys: &["mask"], texts: &[] },
    Part {
        slot: |s| &mut s.fim_prefix,
        keys: &["fim_pre", "prefix"],
        texts: &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    },
    Part {
        slot: |s| &mut s.fim_suffix,
        keys: &["fim_suf", "suffix"],
        texts: &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    },
    Part {
        slot: |s| &mut s.fim_middle,
        keys: &["fim_mid", "middle"],
        texts: &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    },
    Part {
        slot: |s| &mut s.fim_pad,
        keys: &["fim_pad"],
        texts: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    },
    Part {
        slot: |s| &mut s.fim_repository,
        keys: &["fim_rep"],
        texts: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    },
    Part { slot: |s| &mut s.fim_separator, keys: &["fim_sep"], texts: &["<|file_sep|>"] },
];

/// Texts of tokens that end generation wherever they occur in a vocabulary.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Marks of the Harmony format, which are to be seen in the text.
const HARMONY_MARKS: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Special tokens and what follows from them.
pub(super) struct Specials {
    pub tokens: SpecialTokens,
    pub bos: BosDecision,
    pub add_eos: bool,
    /// Tokens that end generation, ascending.
    pub ends: Vec<TokenId>,
    /// Tokens that are not to be generated.
    pub suppressed: Vec<TokenId>,
}

impl Specials {
    /// Reads the keys, finds the rest by text, and marks in the vocabulary what follows from both.
    pub fn new(metadata: &Metadata, vocab: &mut Vocabulary, kind: &Kind) -> Result<Specials> {
        let mut tokens = kind.default_tokens();
        for part in PARTS {
            let slot = (part.slot)(&mut tokens);
            let in_range = |id: &TokenId| (*id as usize) < vocab.len();
            *slot = slot.filter(in_range);
            for key in part.keys {
                let key = format!("tokenizer.ggml.{key}_token_id");
                // Some files say -1 for none.
                if let Some(id) = metadata.get_as::<i64>(&key)? {
                    match u32::try_from(id).ok().filter(in_range) {
                        Some(id) => *slot = Some(id),
                        None => tracing::warn!(key, id, "is no token of the vocabulary; ignored"),
                    }
                }
            }
        }
        let bos = decide_bos(metadata, kind, tokens.bos)?;
        let add_eos = metadata.bool(ADD_EOS_KEY)?.unwrap_or(kind.default_add_eos());

        for part in PARTS {
            let slot = (part.slot)(&mut tokens);
            if slot.is_none() {
                *slot = vocab.first_of(part.texts);
                slot.iter().for_each(|&id| mark_control(vocab, id));
            }
        }
        mark_unused(vocab);
        let ends = find_ends(vocab, &tokens);
        mark_strips(metadata, vocab)?;
        let suppressed = metadata.i32s(SUPPRESS_KEY)?.unwrap_or_default();
        let suppressed = suppressed.iter().filter_map(|&id| u32::try_from(id).ok());
        let suppressed = suppressed.filter(|&id| (id as usize) < vocab.len()).collect();
        Ok(Specials { tokens, bos, add_eos, ends, suppressed })
    }
}

fn decide_bos(metadata: &Metadata, kind: &Kind, token: Option<TokenId>) -> Result<BosDecision> {
    let (default, reason) = kind.default_add_bos();
    let (add, reason) = match metadata.bool(ADD_BOS_KEY)? {
        _ if matches!(reason, BosReason::Required(_)) => (default, reason),
        Some(add) => (add, BosReason::Key),
        None => (default, reason),
    };
    Ok(BosDecision { add, token, reason })
}

fn mark_control(vocab: &mut Vocabulary, id: TokenId) {
    vocab.set_attributes(id, |old| old.union(TokenAttributes::CONTROL));
}

/// Marks control tokens that are named "unused".
fn mark_unused(vocab: &mut Vocabulary) {
    let names_unused = |text: &[u8]| text.windows(6).any(|window| window == b"unused");
    let unused: Vec<_> = vocab
        .iter()
        .filter(|(_, text, attributes)| attributes.intersects(TokenAttributes::CONTROL) && names_unused(text))
        .map(|(id, ..)| id)
        .collect();
    for id in unused {
        vocab.set_attributes(id, |old| old.union(TokenAttributes::UNUSED));
    }
}

/// The tokens that end generation.
fn find_ends(vocab: &mut Vocabulary, tokens: &SpecialTokens) -> Vec<TokenId> {
    let mut ends: Vec<TokenId> =
        [tokens.fim_pad, tokens.fim_repository, tokens.fim_separator].into_iter().flatten().collect();
    for text in ENDS {
        if let Some(id) = vocab.id(text.as_bytes()) {
            ends.push(id);
            mark_control(vocab, id);
        }
    }
    for text in HARMONY_MARKS {
        if let Some(id) = vocab.id(text.as_bytes()) {
            vocab.set_attributes(id, |_| TokenAttributes::USER_DEFINED);
        }
    }
    ends.extend([tokens.eos, tokens.eot, tokens.eom].into_iter().flatten());
    ends.sort_unstable();
    ends.dedup();

    let has = |ends: &[TokenId], wanted: &str| {
        ends.iter().copied().find(|&id| vocab.text(id) == Some(wanted.as_bytes()))
    };
    // Harmony ends each message with <|end|>, and goes on to the next.
    let call = has(&ends, "<|call|>").or(has(&ends, "<|calls|>"));
    let harmony = call.is_some() && (has(&ends, "<|return|>").is_some() || has(&ends, "<|flush|>").is_some());
    let message_end = has(&ends, "<|end|>").filter(|_| harmony);
    // Gemma 4 and PLaMo have an ordinary </s>.
    let marks = has(&ends, "<|tool_response>").or(has(&ends, "<|plamo:eos|>"));
    let plain_s = has(&ends, "</s>").filter(|_| marks.is_some());
    for (id, attributes) in [(message_end, TokenAttributes::USER_DEFINED), (plain_s, TokenAttributes::NORMAL)]
    {
        if let Some(id) = id {
            ends.retain(|&end| end != id);
            vocab.set_attributes(id, |_| attributes);
        }
    }
    ends
}

/// Marks the tokens that swallow whitespace beside them. Files do not say which: the model's name does.
fn mark_strips(metadata: &Metadata, vocab: &mut Vocabulary) -> Result<()> {
    let text = |key| Ok::<_, crate::Error>(metadata.str(key)?.unwrap_or_default());
    let (pre, architecture) = (text("tokenizer.ggml.pre")?, text("general.architecture")?);
    let name = text("general.name").unwrap_or_default().to_ascii_lowercase();
    let any = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let left = |old: TokenAttributes| old.union(TokenAttributes::STRIP_LEFT);
    if any(pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code", "mmbert"])
        || any(architecture, &["nomic-bert-moe", "jina-bert-v3"])
    {
        vocab.first_of(&["<mask>"]).into_iter().for_each(|id| vocab.set_attributes(id, left));
    } else if any(&name, &["phi-3", "phi3"]) {
        let specials: Vec<_> = vocab
            .iter()
            .filter(|(.., attributes)| attributes.intersects(PARTITIONING))
            .map(|(id, ..)| id)
            .chain(vocab.id(b"</s>"))
            .collect();
        for id in specials {
            vocab.set_attributes(id, |old| old.union(TokenAttributes::STRIP_RIGHT));
        }
        for text in ["<unk>", "<s>", "<|endoftext|>"] {
            if let Some(id) = vocab.id(text.as_bytes()) {
                vocab.set_attributes(id, |old| old.without(TokenAttributes::STRIP_RIGHT));
            }
        }
    } else if name.contains("modern-bert") {
        vocab.first_of(&["[MASK]"]).into_iter().for_each(|id| vocab.set_attributes(id, left));
    }
    Ok(())
}

/// The tokens that are found in a text before it is tokenized.
pub(super) const PARTITIONING: TokenAttributes =
    TokenAttributes::CONTROL.union(TokenAttributes::USER_DEFINED).union(TokenAttributes::UNKNOWN);
