//! The pre-tokenizers of byte-level BPE: how each splits text into words before merging, by the names that files use.
//!
//! Names, patterns and flags are those of llama.cpp's `llama-vocab.cpp`, whose ids these have to match. Its regex
//! engine matches text in which each character beyond ASCII stands for its category; [`Stage::Classes`] does the same.

use super::split::Words;
use super::unicode::Class;

/// A pre-tokenizer.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    /// What `tokenizer.ggml.pre` calls it.
    pub names: &'static [&'static str],
    /// Each stage splits the pieces that the one before it left.
    pub stages: &'static [Stage],
    pub flags: Flags,
}

/// What a pre-tokenizer implies beside the splitting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags {
    /// A word that is a token is not merged from its parts.
    pub ignore_merges: bool,
    /// BOS goes first where the file does not say.
    pub add_bos: bool,
    /// BOS goes first even where the file says otherwise.
    pub force_bos: bool,
    /// There is no BOS unless the file names one.
    pub no_default_bos: bool,
    /// Tokens spell bytes as GPT-2 does; else they are UTF-8 with `<0xNN>` for single bytes.
    pub byte_encoded: bool,
    /// Spaces are spelled `▁`.
    pub escape_spaces: bool,
    /// A run of newlines that is a token stays one.
    pub whole_newlines: bool,
    /// Words are made to begin with `▁` and cut before each.
    pub metaspace: bool,
}

impl Flags {
    const NONE: Flags = Flags {
        ignore_merges: false,
        add_bos: false,
        force_bos: false,
        no_default_bos: false,
        byte_encoded: true,
        escape_spaces: false,
        whole_newlines: false,
        metaspace: false,
    };
    /// As SentencePiece spells its tokens, merged by rank.
    const SENTENCE: Flags = Flags { byte_encoded: false, escape_spaces: true, ..Flags::NONE };
}

/// One step of splitting.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// GPT-2's words, by hand.
    Gpt2,
    /// Llama 3's words and their kin, by hand.
    Words(Words),
    /// Runs of digits in groups of three from the right; what precedes a run joins its first group.
    DigitGroups,
    /// Cuts inside runs of ASCII digits where the rest of the run is a multiple of three.
    DigitCuts,
    /// Runs of newlines and runs of anything else.
    Newlines,
    /// Alternatives over categories: `\p{L}` and its like are what llama.cpp's table says; `\p{L-az}` is a letter
    /// other than a to z, `\p{L-AZ}` one other than A to Z, as llama.cpp tells cases apart.
    Classes(&'static [&'static str], Spaces),
    /// A pattern over characters, without categories.
    Chars(&'static str),
}

/// What a pattern does with whitespace that nothing else in it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spaces {
    /// Nothing.
    Ignore,
    /// `\s+(?!\S)|\s+`: the whole run, but its last character where a word follows.
    Yield,
    /// As `Yield`, in powers of two from 512 down to 4, then by twos and ones.
    Cascade,
}

const CONTRACTION: &str = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const WORD: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+";
const PUNCTUATION: &str = r" ?[^\s\p{L}\p{N}]+[\r\n]*";
const PUNCTUATION_OR_PATH: &str = r" ?[^\s\p{L}\p{N}]+[\r\n/]*";
const LINE_BREAKS: &str = r"\s*[\r\n]+";
/// Punctuation that a Latin word follows.
const MARKED_LATIN_WORD: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##;
const WORD_WITH_MARKS: &str = r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+";

const LLAMA3: Stage = Stage::Words(Words { letters: Class::LETTER, digits: 3, han: false });
const QWEN2: Stage = Stage::Words(Words { letters: Class::LETTER, digits: 1, han: false });
const QWEN35: Stage = Stage::Words(Words { letters: Class::LETTER.or(Class::MARK), digits: 1, han: false });
const KIMI: Stage = Stage::Words(Words { letters: Class::LETTER, digits: 3, han: true });

const DIGIT: Stage = Stage::Classes(&[r"\p{N}"], Spaces::Ignore);
const DIGITS: Stage = Stage::Classes(&[r"\p{N}+"], Spaces::Ignore);
const UP_TO_THREE_DIGITS: Stage = Stage::Classes(&[r"\p{N}{1,3}"], Spaces::Ignore);
const THREE_ASCII_DIGITS: Stage = Stage::Chars("[0-9][0-9][0-9]");
const LINE_END: Stage = Stage::Chars(r"[\r\n]");
const CHINESE_AND_KANA: Stage = Stage::Chars(r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+");
const DEEPSEEK_CJK: Stage = Stage::Chars(r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}--\s]+");
const FINNISH_WORDS: Stage =
    Stage::Chars(r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+");
const DEEPSEEK3_WORDS: Stage = Stage::Classes(
    &[MARKED_LATIN_WORD, WORD_WITH_MARKS, r" ?[\p{P}\p{S}]+[\r\n]*", LINE_BREAKS],
    Spaces::Yield,
);
/// Words whose case does not matter, that may carry a contraction.
const CASELESS_WORDS: [&str; 2] = [
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]*[\p{L}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+[\p{L}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
];
/// Words told apart by case, that may carry a contraction.
const CASED_WORDS: [&str; 2] = [
    r"[^\r\n\p{L}\p{N}]?[\p{L-az}]*[\p{L-AZ}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"[^\r\n\p{L}\p{N}]?[\p{L-az}]+[\p{L-AZ}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
];
const CASED_WORDS_WITH_MARKS: [&str; 2] = [
    r"[^\r\n\p{L}\p{N}]?[\p{L-az}\p{M}]*[\p{L-AZ}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"[^\r\n\p{L}\p{N}]?[\p{L-az}\p{M}]+[\p{L-AZ}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
];
const YOUTU_SCRIPTS: Stage = Stage::Chars(concat!(
    r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|",
    r"[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}",
    r"\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|",
    r"[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
));
const AFMOE_SCRIPTS: Stage = Stage::Chars(concat!(
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{8C48}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}\x{FF65}-\x{FF9F}",
    r"\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}",
    r"\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+",
));

/// The letters of DeepSeek LLM.
const DEEPSEEK_LETTERS: Stage = Stage::Chars(concat!(
    r"\s?[",
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}",
    r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}",
    r"\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}",
    r"\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}",
    r"\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}",
    r"\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}",
    r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}",
    r"\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}",
    r"\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}",
    r"\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}",
    r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}",
    r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}",
    r"\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}",
    "]+",
));

/// Every pre-tokenizer.
pub(super) const ALL: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["default"],
        stages: &[
            Stage::Classes(&[r"[\p{P}\$\+<=>\^~\|]+"], Spaces::Ignore),
            Stage::Gpt2,
            DIGITS,
            THREE_ASCII_DIGITS,
        ],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &["minicpm5"],
        stages: &[
            UP_TO_THREE_DIGITS,
            Stage::Classes(&[CONTRACTION, WORD, r"\p{N}+", PUNCTUATION, LINE_BREAKS], Spaces::Yield),
        ],
        flags: Flags { ignore_merges: true, ..Flags::NONE },
    },
    PreTokenizer {
        names: &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        stages: &[LLAMA3],
        flags: Flags { ignore_merges: true, add_bos: true, ..Flags::NONE },
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        stages: &[
            LINE_END,
            DEEPSEEK_LETTERS,
            Stage::Chars(r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3001}\x{3002}]+"),
            Stage::Chars(r"\s+$"),
            DEEPSEEK_CJK,
            DIGITS,
        ],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        stages: &[
            LINE_END,
            Stage::Classes(&[r"\s?\p{L}+"], Spaces::Ignore),
            Stage::Classes(&[r"\s?\p{P}+"], Spaces::Ignore),
            DEEPSEEK_CJK,
            DIGIT,
        ],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        stages: &[UP_TO_THREE_DIGITS, CHINESE_AND_KANA, DEEPSEEK3_WORDS],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &["spark2_5"],
        stages: &[
            UP_TO_THREE_DIGITS,
            CHINESE_AND_KANA,
            Stage::Classes(
                &[MARKED_LATIN_WORD, WORD_WITH_MARKS, r" ?[\p{P}\p{S}]+", r"[\r\n]"],
                Spaces::Yield,
            ),
            DIGIT,
        ],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &["youtu"],
        stages: &[
            YOUTU_SCRIPTS,
            Stage::Classes(
                &[CASELESS_WORDS[0], CASELESS_WORDS[1], r"\p{N}", PUNCTUATION_OR_PATH, LINE_BREAKS],
                Spaces::Yield,
            ),
        ],
        flags: Flags { ignore_merges: true, ..Flags::NONE },
    },
    PreTokenizer {
        names: &["falcon"],
        stages: &[
            Stage::Classes(&[r"[\p{P}\$\+<=>\^~\|`]+"], Spaces::Ignore),
            Stage::Gpt2,
            THREE_ASCII_DIGITS,
        ],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &[
            "starcoder",
            "refact",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
            "command-r",
            "smollm",
        ],
        stages: &[DIGIT, Stage::Gpt2],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
            "olmo",
            "jais",
            "mpt",
            "exaone4",
            "trillion",
            "granite-docling",
        ],
        stages: &[Stage::Gpt2],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &["jais-2"],
        stages: &[Stage::Classes(
            &[CONTRACTION, WORD, r"\p{N}{1,3}", PUNCTUATION, LINE_BREAKS],
            Spaces::Cascade,
        )],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &["gemma4", "granite-embed-multi-311m"],
        stages: &[Stage::Newlines],
        flags: Flags { force_bos: true, whole_newlines: true, ..Flags::SENTENCE },
    },
    PreTokenizer {
        names: &["mmbert"],
        stages: &[Stage::Newlines],
        flags: Flags { whole_newlines: true, metaspace: true, ..Flags::SENTENCE },
    },
    PreTokenizer { names: &["sarvam-moe"], stages: &[Stage::Newlines], flags: Flags::SENTENCE },
    PreTokenizer {
        names: &["whitespace"],
        stages: &[Stage::Chars(r"\S+")],
        flags: Flags { byte_encoded: false, ..Flags::NONE },
    },
    PreTokenizer {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "hunyuan",
            "grok-2",
            "solar-open",
            "stablelm2",
            "megrez",
        ],
        stages: &[QWEN2],
        flags: Flags::NONE,
    },
    PreTokenizer { names: &["qwen35"], stages: &[QWEN35], flags: Flags::NONE },
    PreTokenizer { names: &["dbrx", "smaug-bpe"], stages: &[LLAMA3], flags: Flags::NONE },
    PreTokenizer {
        names: &["poro-chat", "bloom", "gpt3-finnish"],
        stages: &[FINNISH_WORDS],
        flags: Flags::NONE,
    },
    PreTokenizer { names: &["viking"], stages: &[FINNISH_WORDS, DIGIT], flags: Flags::NONE },
    PreTokenizer {
        names: &["chatglm-bpe"],
        stages: &[LLAMA3],
        flags: Flags { no_default_bos: true, ..Flags::NONE },
    },
    PreTokenizer {
        names: &["glm4", "glm5"],
        stages: &[LLAMA3],
        flags: Flags { no_default_bos: true, ignore_merges: true, ..Flags::NONE },
    },
    PreTokenizer {
        names: &["tekken"],
        stages: &[Stage::Classes(
            &[
                r"[^\r\n\p{L}\p{N}]?[\p{L-az}]*[\p{L-AZ}]+",
                r"[^\r\n\p{L}\p{N}]?[\p{L-az}]+[\p{L-AZ}]*",
                r"\p{N}",
                PUNCTUATION_OR_PATH,
                LINE_BREAKS,
            ],
            Spaces::Yield,
        )],
        flags: Flags { ignore_merges: true, add_bos: true, ..Flags::NONE },
    },
    PreTokenizer {
        names: &["chameleon"],
        stages: &[
            Stage::Chars("<sentinel:[0-9]+>"),
            Stage::Chars("IMGIMG[A-I]{1,4}Z"),
            Stage::Chars(r"[\t\n]|    |  "),
            DIGIT,
            Stage::Classes(&[r"[\p{P}!-/:-@\[-`{-~]"], Spaces::Ignore),
            Stage::Gpt2,
        ],
        flags: Flags { add_bos: true, ..Flags::NONE },
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        stages: &[Stage::Classes(
            &[CASED_WORDS[0], CASED_WORDS[1], r"\p{N}{1,3}", PUNCTUATION_OR_PATH, LINE_BREAKS],
            Spaces::Yield,
        )],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &["granite-embed-multi-97m"],
        stages: &[Stage::Classes(
            &[
                CASED_WORDS_WITH_MARKS[0],
                CASED_WORDS_WITH_MARKS[1],
                r"\p{N}{1,3}",
                PUNCTUATION_OR_PATH,
                LINE_BREAKS,
            ],
            Spaces::Yield,
        )],
        flags: Flags { ignore_merges: true, ..Flags::NONE },
    },
    PreTokenizer {
        names: &["tiny_aya", "cohere2moe"],
        stages: &[
            Stage::DigitGroups,
            Stage::Classes(
                &[CASELESS_WORDS[0], CASELESS_WORDS[1], r"\p{N}{1,3}", PUNCTUATION_OR_PATH, LINE_BREAKS],
                Spaces::Yield,
            ),
        ],
        flags: Flags::NONE,
    },
    PreTokenizer { names: &["superbpe"], stages: &[DIGITS, Stage::DigitCuts], flags: Flags::NONE },
    PreTokenizer {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        stages: &[Stage::Classes(
            &[r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])", WORD, r"\p{N}", PUNCTUATION, r"\s*[\r\n]"],
            Spaces::Yield,
        )],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &["seed-coder"],
        stages: &[Stage::Classes(
            &[CONTRACTION, WORD, r"\p{N}", r" ?[^\s\p{L}\p{N}\r\n]+", LINE_BREAKS],
            Spaces::Yield,
        )],
        flags: Flags::NONE,
    },
    PreTokenizer { names: &["kimi-k2"], stages: &[KIMI], flags: Flags::NONE },
    PreTokenizer {
        names: &["ufakzeka"],
        stages: &[Stage::Classes(&[WORD, r"\p{N}", PUNCTUATION, LINE_BREAKS], Spaces::Yield)],
        flags: Flags::NONE,
    },
    PreTokenizer {
        names: &["afmoe"],
        stages: &[Stage::DigitGroups, AFMOE_SCRIPTS, DEEPSEEK3_WORDS],
        flags: Flags::NONE,
    },
    PreTokenizer { names: &["laguna"], stages: &[Stage::Newlines, QWEN2], flags: Flags::NONE },
    PreTokenizer {
        names: &["exaone-moe"],
        stages: &[Stage::Classes(
            &[
                CONTRACTION,
                r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
                r"\p{N}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]?",
                r"\s*[\r\n]",
            ],
            Spaces::Yield,
        )],
        flags: Flags::NONE,
    },
];

impl PreTokenizer {
    /// The one of that name.
    pub fn named(name: &str) -> Option<&'static PreTokenizer> {
        ALL.iter().find(|one| one.names.contains(&name))
    }
}

/// The names of all pre-tokenizers, for messages.
pub(super) fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = ALL.iter().flat_map(|one| one.names).copied().collect();
    names.sort_unstable();
    names
}
