//! The one error type of the public API.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use gristmill_kernels::quant::GgmlType;

/// A shorthand for results with [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, one variant for each thing that a caller can act on.
///
/// Each message says what was expected, what was found and, where that helps, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, mapped, read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    // ---- gguf
    /// The bytes do not begin as a GGUF file does.
    #[error(
        "not a GGUF file: expected it to begin with \"GGUF\", found \"{}\"{hint}",
        found.escape_ascii()
    )]
    NotGguf {
        /// The first bytes, at most four.
        found: Vec<u8>,
        /// What the file may be, beginning with a semicolon; empty where there is no guess.
        hint: &'static str,
    },
    /// A version of GGUF that cannot be read.
    #[error(
        "GGUF version {found} cannot be read, only 2 and 3 can: convert the model again with newer tools"
    )]
    GgufVersion {
        /// The version that the file gives.
        found: u32,
    },
    /// The file ends where more is announced: it is cut short, or its lengths are wrong.
    #[error(
        "{place} needs {needed} bytes from byte {at} on, but only {left} are left: \
         the file is cut short (download it again) or damaged"
    )]
    GgufTruncated {
        /// What was being read, with the key or tensor.
        place: String,
        /// Where in the file, in bytes from its beginning.
        at: u64,
        /// Bytes needed from there on.
        needed: u64,
        /// Bytes that are there.
        left: u64,
    },
    /// `general.alignment` is not what it must be.
    #[error("the metadata key `general.alignment` must be a power of two, found {found}")]
    GgufAlignment {
        /// The alignment that the file gives.
        found: u64,
    },
    /// A metadata key is empty or not UTF-8.
    #[error("metadata key number {index} must be UTF-8 and not empty, found {found:?}")]
    MetadataKey {
        /// Which key, counted from 0.
        index: u64,
        /// The key, as far as it can be shown.
        found: String,
    },
    /// A metadata key stands in the file twice.
    #[error("the metadata key `{key}` is there twice")]
    MetadataDuplicate {
        /// The key.
        key: String,
    },
    /// The id of a metadata value's kind is unknown.
    #[error("the metadata key `{key}` has a value of unknown kind {found}; known are 0 to 12")]
    MetadataUnknownType {
        /// The key.
        key: String,
        /// The id that the file gives.
        found: u32,
    },
    /// A boolean is neither 0 nor 1.
    #[error("the metadata key `{key}` holds the boolean {found}, which must be 0 or 1")]
    MetadataBool {
        /// The key.
        key: String,
        /// The byte that the file gives.
        found: u8,
    },
    /// Arrays are nested too deeply.
    #[error("the metadata key `{key}` nests arrays more than {} levels deep", crate::gguf::MAX_NESTING)]
    MetadataNesting {
        /// The key.
        key: String,
    },
    /// A metadata key that is needed is not there.
    #[error("the metadata key `{key}` is missing; expected {expected}")]
    MetadataMissing {
        /// The key.
        key: String,
        /// What its value would have to be.
        expected: &'static str,
    },
    /// The value of a metadata key is of another kind, or does not fit.
    #[error("the metadata key `{key}` must be {expected}, found {found}")]
    MetadataType {
        /// The key.
        key: String,
        /// What the value must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The name of a tensor is not UTF-8.
    #[error("the name of tensor number {index} is not UTF-8: {found:?}")]
    TensorName {
        /// Which tensor, counted from 0.
        index: u64,
        /// The name, as far as it can be shown.
        found: String,
    },
    /// A tensor stands in the table twice, or in two parts of a split file.
    #[error("the tensor `{tensor}` is there twice")]
    TensorDuplicate {
        /// The tensor.
        tensor: String,
    },
    /// The id of a tensor's type is unknown.
    #[error(
        "the tensor `{tensor}` has the unknown type {found}; known are 0 to {}: the file may be newer than this program",
        GgmlType::ALL.len() - 1
    )]
    TensorUnknownType {
        /// The tensor.
        tensor: String,
        /// The id that the file gives.
        found: u32,
    },
    /// A tensor has more than four dimensions.
    #[error("the tensor `{tensor}` has {found} dimensions; at most {} are possible", crate::gguf::MAX_DIMS)]
    TensorDims {
        /// The tensor.
        tensor: String,
        /// Dimensions that the file gives.
        found: u64,
    },
    /// One of a tensor's dimensions is zero.
    #[error("the tensor `{tensor}` has a dimension of size 0: {shape}")]
    TensorZeroDim {
        /// The tensor.
        tensor: String,
        /// Its shape, row length first.
        shape: String,
    },
    /// A tensor is larger than memory can be.
    #[error("the tensor `{tensor}` of shape {shape} and type {ty} is too large for this machine to address")]
    TensorSize {
        /// The tensor.
        tensor: String,
        /// Its shape, row length first.
        shape: String,
        /// Its type.
        ty: GgmlType,
    },
    /// A row of a tensor is no whole number of blocks.
    #[error("the tensor `{tensor}` has rows of {found} weights; {ty} needs a multiple of {}", ty.block_len())]
    TensorRow {
        /// The tensor.
        tensor: String,
        /// Its type.
        ty: GgmlType,
        /// Its row length.
        found: usize,
    },
    /// A tensor's offset is not aligned.
    #[error(
        "the tensor `{tensor}` begins at offset {found}, which is no multiple of the alignment {alignment}"
    )]
    TensorUnaligned {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        found: u64,
        /// What the offset must be a multiple of.
        alignment: u64,
    },
    /// A tensor's offset is so large that its end cannot be computed.
    #[error(
        "the tensor `{tensor}` of {bytes} bytes cannot begin at offset {found}: its end overflows 64 bits"
    )]
    TensorOffset {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        found: u64,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A tensor ends behind the end of the file.
    #[error(
        "the tensor `{tensor}` ends at byte {end}, but the file has only {file_len}: \
         it is cut short (download it again) or damaged"
    )]
    TensorOutside {
        /// The tensor.
        tensor: String,
        /// Where it ends, in bytes from the beginning of the file.
        end: u64,
        /// Bytes of the file.
        file_len: u64,
    },
    /// Two tensors share bytes.
    #[error("the tensor `{tensor}` overlaps the tensor `{other}`")]
    TensorOverlap {
        /// The tensor that begins later.
        tensor: String,
        /// The tensor that begins earlier.
        other: String,
    },
    /// A big-endian file holds a tensor of a type whose big-endian form is not settled.
    #[error(
        "the tensor `{tensor}` of this big-endian file is {ty}, which cannot be converted: use a little-endian file"
    )]
    BigEndianTensor {
        /// The tensor.
        tensor: String,
        /// Its type.
        ty: GgmlType,
    },
    /// The header or the weights could not be written.
    #[error("writing a GGUF file: {source}")]
    GgufWrite {
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A tensor's bytes came out of turn, or too many, or too few.
    #[error("writing the tensor `{tensor}`: expected {expected}, found {found}")]
    TensorWrite {
        /// The tensor.
        tensor: String,
        /// What was due.
        expected: String,
        /// What came.
        found: String,
    },
    /// What a path names is not a regular file.
    #[error("{path} is {found}: give the path of a .gguf file")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it names.
        found: &'static str,
    },
    /// A file has no bytes.
    #[error("{path} is empty: download it again")]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// Something is wrong with what a file holds.
    #[error("{path}: {source}")]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<Error>,
    },
    /// One part of a split file is named so that the others cannot be found.
    #[error(
        "{path} is one of {count} parts, but its name does not end with -00001-of-{count:05}.gguf or the like: \
         give all parts the names that they had"
    )]
    SplitName {
        /// The part.
        path: PathBuf,
        /// How many parts there are.
        count: u16,
    },
    /// Parts of a split file are missing.
    #[error("{} of the model's {count} parts are missing: {}", missing.len(), list(missing))]
    SplitMissing {
        /// Where the parts were expected.
        missing: Vec<PathBuf>,
        /// How many parts there are.
        count: u16,
    },
    /// The parts of a split file do not belong together.
    #[error("the metadata key `{key}` must be {expected} in this part of a split file, found {found}")]
    SplitMismatch {
        /// The key.
        key: &'static str,
        /// What it must be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    // ---- model and backend
    /// The file names an architecture that this version does not know.
    #[error("the architecture `{found}` is not supported; these are: {}", known.join(", "))]
    UnsupportedArchitecture {
        /// What the file names.
        found: String,
        /// What is supported.
        known: Vec<&'static str>,
    },
    /// The model needs something that this version lacks.
    #[error("this {architecture} model needs {feature}, which is not supported yet")]
    UnsupportedFeature {
        /// The model's architecture.
        architecture: String,
        /// What it needs.
        feature: String,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error(
        "the tensor `{tensor}`, which every {architecture} model has, is missing: the file is damaged or no model"
    )]
    TensorMissing {
        /// The tensor.
        tensor: String,
        /// The architecture.
        architecture: String,
    },
    /// A tensor has not the shape that the metadata ask for.
    #[error("the tensor `{tensor}` must be {expected} by the metadata, found {found}")]
    TensorShape {
        /// The tensor.
        tensor: String,
        /// The shape it must have, the length of a row first.
        expected: String,
        /// The shape it has.
        found: String,
    },
    /// A tensor is of a type that cannot be computed.
    #[error("the tensor `{tensor}` is of type {ty}, which cannot be computed: requantize the model")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// Its type.
        ty: GgmlType,
    },
    /// The caller asked for an instruction set that is not there.
    #[error("the instruction set `{asked}` is not available here; these are: {}", available.join(", "))]
    LevelAbsent {
        /// What was asked for.
        asked: String,
        /// What this processor has.
        available: Vec<&'static str>,
    },
    /// The caller asked for a backend that is not there.
    #[error("the backend `{asked}` is not part of this build; {hint}")]
    BackendAbsent {
        /// What was asked for.
        asked: String,
        /// What to do.
        hint: &'static str,
    },
    /// The tokens do not fit the context.
    #[error(
        "{needed} tokens do not fit the context of {context}: ask for a longer context or give fewer tokens"
    )]
    ContextFull {
        /// Tokens that there would be.
        needed: usize,
        /// Tokens that there may be.
        context: usize,
    },
    /// The caller stopped the work.
    #[error("cancelled; what was fed before is kept")]
    Cancelled,
    /// The operating system gave fewer threads than asked for.
    #[error("expected {count} threads, but the system gives no more ({reason}): ask for fewer")]
    Threads {
        /// Threads asked for.
        count: usize,
        /// What the system said.
        reason: String,
    },
    /// There is not enough memory.
    #[error("out of memory: {what} need {bytes} bytes; use a shorter context or a smaller batch")]
    OutOfMemory {
        /// What the memory is for.
        what: &'static str,
        /// Bytes asked for.
        bytes: u64,
    },
    /// A mistake in this library: please report it.
    #[error("internal error, please report it: {what}")]
    Internal {
        /// What went wrong.
        what: &'static str,
    },
    // ---- text: tokenizers
    /// The file's kind of tokenizer is not known.
    #[error(
        "tokenizer.ggml.model is {model:?}; expected one of {known}. Without a tokenizer of a known kind the model can only \
         be given token ids"
    )]
    TokenizerKind {
        /// What the file says.
        model: String,
        /// The kinds that are known.
        known: String,
    },
    /// The file's pre-tokenizer, or the one that the caller named, is not known.
    #[error(
        "the pre-tokenizer {name:?} is not known; expected one of {known}. To use one of these instead, name it in \
         TokenizerOptions::pre (`--pre`)"
    )]
    PreTokenizerUnknown {
        /// What the file or the caller says.
        name: String,
        /// The names that are known.
        known: String,
    },
    /// The file does not say which pre-tokenizer its byte-pair tokenizer needs.
    #[error(
        "the file does not name its pre-tokenizer (expected the key `{key}`, found none), and the wrong one cuts text \
         otherwise than the model has learned: name the model's in TokenizerOptions::pre (`--pre`), one of {known}; \
         llama.cpp takes \"default\" for such files"
    )]
    PreTokenizerMissing {
        /// The key.
        key: &'static str,
        /// The names that are known.
        known: String,
    },
    /// A pattern of a pre-tokenizer cannot be compiled: a fault of this library.
    #[error("the pattern of the pre-tokenizer {name:?} cannot be compiled: {reason}")]
    PreTokenizerPattern {
        /// The pre-tokenizer.
        name: String,
        /// What the regex compiler said.
        reason: String,
    },
    /// An array of the tokenizer has the wrong length.
    #[error("{key} has {found} elements; expected {expected}")]
    TokenizerArrayLength {
        /// The key of the array.
        key: &'static str,
        /// How many elements were expected.
        expected: String,
        /// How many there are.
        found: usize,
    },
    /// The table of replacements of a unigram tokenizer is damaged.
    #[error("tokenizer.ggml.precompiled_charsmap is damaged: {reason}")]
    TokenizerCharsmap {
        /// What is wrong.
        reason: &'static str,
    },
    /// The tokenizer needs a special token that the file does not name.
    #[error(
        "the tokenizer needs its {part} token; expected its id under {key}, and found no id of the vocabulary"
    )]
    TokenizerMissingToken {
        /// What the token is for, such as `BOS`.
        part: &'static str,
        /// The key that should name it.
        key: &'static str,
    },
    /// The vocabulary has no way to spell a byte.
    #[error(
        "the vocabulary has no token for the byte 0x{byte:02X}, nor one for unknown text; expected <0x{byte:02X}>"
    )]
    TokenizerMissingByte {
        /// The byte.
        byte: u8,
    },
    /// A text is too long to tokenize at once.
    #[error("the text has {len} bytes; expected at most {limit}. Tokenize it in parts")]
    TextTooLong {
        /// Bytes of the text.
        len: usize,
        /// The greatest number of bytes.
        limit: usize,
    },
    // ---- text: templates
    /// A chat template does not parse.
    #[error("the chat template does not parse: line {line}: {what}")]
    TemplateSyntax {
        /// The line of the template, from 1.
        line: usize,
        /// What was expected and what was found.
        what: String,
    },

    /// A chat template called `raise_exception`: it does not take such a conversation. The message is its own.
    #[error("the chat template refuses this conversation: {message}")]
    TemplateRefused {
        /// The template's words.
        message: String,
    },

    /// A chat template read something that was not given, or did to a value what its type does not allow.
    #[error("the chat template fails at line {line}: {what}")]
    TemplateFailed {
        /// The line of the template, from 1; 0 where it is not known.
        line: usize,
        /// What went wrong there.
        what: String,
    },

    /// A chat template, or its input, exceeds a bound that keeps hostile templates in check.
    #[error("the chat template was stopped: {what}; if it is trusted, raise `RenderInput::limits`")]
    TemplateLimit {
        /// Which bound.
        what: String,
    },
    // ---- generate
    /// An option is outside its range.
    #[error("the option `{option}` must be {expected}, found {found}")]
    InvalidOption {
        /// The option, by the name of its field.
        option: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A logit is NaN or positive infinity.
    #[error(
        "the logit of token {token} (of {logits}) is {found}, expected a finite number: \
         the weights may be damaged, or the context longer than the model can take"
    )]
    NonFiniteLogit {
        /// The first token with such a logit.
        token: usize,
        /// The logit.
        found: f32,
        /// How many logits there are.
        logits: usize,
    },
    /// No token can be chosen: all are banned or have a logit of negative infinity.
    #[error(
        "no token can be chosen: expected at least one logit above negative infinity, found none among {logits}; \
         ban fewer tokens"
    )]
    NoTokenLeft {
        /// How many logits there are.
        logits: usize,
    },
    /// A token is not in the vocabulary.
    #[error("the token {token} is not in the vocabulary: expected an id below {vocab}")]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Tokens in the vocabulary.
        vocab: usize,
    },
    /// Logits were asked for before any token was fed.
    #[error("nothing was fed yet, so there is no next token: feed at least one token, such as BOS")]
    NothingFed,
    /// Generation was asked of an encoder.
    #[error(
        "this {architecture} model is an encoder: it reads a text as a whole and predicts no next token; \
         use Model::embed (`grist embed`)"
    )]
    NoNextToken {
        /// The model's architecture.
        architecture: &'static str,
    },
    /// A conversation was asked of a model that has no chat template.
    #[error(
        "this model has no chat template, so it is taken for a base model ({evidence}): \
         continue text with the stepper (`grist generate`), or give a template of your own"
    )]
    NoChatTemplate {
        /// What speaks for a base or an instruction-tuned model.
        evidence: Box<crate::generate::Evidence>,
    },
    // ---- embed
    /// There are no tokens to embed.
    #[error(
        "expected at least one token to embed, found none: this model adds none of its own, so give some text"
    )]
    NothingToEmbed,
    /// A pooling was asked for that the model is not made for.
    #[error("this {architecture} model cannot be pooled by `{pooling}`: {expected}")]
    PoolingAbsent {
        /// The model's architecture.
        architecture: &'static str,
        /// The pooling's name.
        pooling: &'static str,
        /// What it would take, and what to do.
        expected: &'static str,
    },
    /// A number of an embedding is NaN or infinite.
    #[error(
        "number {index} of the embedding is {found}, expected a finite number: the weights may be damaged, \
         or the text longer than the model can take"
    )]
    NonFiniteEmbedding {
        /// Which number, counted over all rows.
        index: usize,
        /// What it is.
        found: f32,
    },
    // ---- quantize
    /// No mix has this name.
    #[error("there is no type or mix {found:?}; these are: {}", known.join(", "))]
    QuantizeMix {
        /// What was asked for.
        found: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The result would replace what it is made of.
    #[error(
        "{path} is the input itself, which is read while the output is written: give the output another name"
    )]
    QuantizeOntoInput {
        /// The output.
        path: PathBuf,
    },
    /// A pattern for tensors' names cannot be used.
    #[error("the pattern {pattern:?} for tensors' names must be a regular expression: {reason}")]
    TensorPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The name of a tensor does not tell its layer.
    #[error(
        "the name of the tensor `{tensor}` must tell a layer below {layers}, as in `blk.0.`: the model has experts"
    )]
    TensorLayer {
        /// The tensor.
        tensor: String,
        /// How many layers there are.
        layers: u64,
    },
    /// A tensor would be garbage in this type without an importance matrix.
    #[error(
        "the tensor `{tensor}` cannot be made {ty} without its importance: give an importance matrix that has it, or \
         choose a type of more bits"
    )]
    ImportanceMissing {
        /// The tensor.
        tensor: String,
        /// The type that it should get.
        ty: GgmlType,
    },
    /// An importance matrix does not fit a tensor.
    #[error(
        "the importance of `{tensor}` must be {expected} numbers, found {found}: it was measured with another model"
    )]
    ImportanceShape {
        /// The tensor.
        tensor: String,
        /// Its columns, times its experts.
        expected: usize,
        /// Numbers in the importance matrix.
        found: usize,
    },
    /// A file is no importance matrix, or a damaged one.
    #[error("not a usable importance matrix: {reason}")]
    Imatrix {
        /// What is wrong.
        reason: String,
    },
    /// A tensor could not be made another type.
    #[error("the tensor `{tensor}`: {source}")]
    Encode {
        /// The tensor.
        tensor: String,
        /// Why.
        source: gristmill_kernels::encode::EncodeError,
    },
    /// A tensor holds infinities or NaN, or would hold them in a type of smaller range.
    #[error(
        "block {block} of the tensor `{tensor}` holds an infinity or NaN as {ty}: the file is damaged, or {ty} too narrow"
    )]
    TensorDamaged {
        /// The tensor.
        tensor: String,
        /// The type in which it does.
        ty: GgmlType,
        /// Which block, counted from 0.
        block: u64,
    },
    // ---- eval
    /// A text is too short to be measured.
    #[error(
        "the text has {tokens} tokens, fewer than a chunk of {needed}: give a longer text or ask for a shorter context"
    )]
    TextTooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a chunk.
        needed: usize,
    },
    /// Two models that were to be compared have not the same tokens.
    #[error("the models have different vocabularies: expected {expected} as in the reference, found {found}")]
    VocabularyMismatch {
        /// What the reference has.
        expected: String,
        /// What the model has.
        found: String,
    },
    /// There is no task to answer.
    #[error("expected at least one task, a JSON object on a line of its own, found none")]
    NoTasks,
    /// A line that should hold a task is no JSON.
    #[error("line {line}: expected a JSON object, found none: {reason}")]
    TaskJson {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A task is not written as one of the known forms.
    #[error("line {line}: the field `{field}` must be {expected}, found {found}")]
    TaskField {
        /// The line, counted from 1.
        line: usize,
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// What is multiplied with a tensor holds NaN or infinities.
    #[error(
        "the inputs of the tensor `{tensor}` hold NaN or infinities, so their importance is unknown: the weights may be damaged"
    )]
    NonFiniteInputs {
        /// The tensor.
        tensor: String,
    },
    // ---- speed
    /// A program that was to measure for comparison did not.
    #[error("{program}: {reason}")]
    Peer {
        /// The program.
        program: PathBuf,
        /// What it said, or what was expected of its output and what was found.
        reason: String,
    },
    // ---- report
    /// A file is no report, or one of another version.
    #[error("{path}: not a report that this version can read: {reason}")]
    ReportForm {
        /// The file.
        path: PathBuf,
        /// What was expected, and what was found.
        reason: String,
    },
    // ---- ggml
    /// A GPU, its driver or its compiler failed.
    #[error("the GPU: {doing}: {said}")]
    Device {
        /// What was asked of it.
        doing: &'static str,
        /// What it said.
        said: String,
    },
    /// A GPU may not hold so much.
    #[error(
        "{what} need {needed} bytes of the GPU's memory, {used} are in use and {limit} may be: leave fewer layers to it \
         (`--gpu-layers`), or use the backend `cpu`"
    )]
    DeviceMemory {
        /// What is to be held.
        what: &'static str,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes in use.
        used: u64,
        /// Bytes that may be.
        limit: u64,
    },
    /// The kernels for GPUs lack something that a model, or its options, ask for.
    #[error("the GPU's kernels have no way for {feature}: {hint}")]
    DeviceUnsupported {
        /// What is asked for.
        feature: String,
        /// What to do.
        hint: &'static str,
    },
    /// This ggml has no such operation for this tensor type.
    #[cfg(feature = "ggml")]
    #[error("ggml {} has no {operation} for {ty}", crate::ggml::version())]
    GgmlUnsupported {
        /// What was asked for.
        operation: &'static str,
        /// For which type.
        ty: gristmill_kernels::quant::GgmlType,
    },
    /// A slice given to ggml is too short, too long, or no whole number of blocks.
    #[cfg(feature = "ggml")]
    #[error("{what}: ggml would need {expected}, found {found}")]
    GgmlSize {
        /// Which slice, and what is counted.
        what: &'static str,
        /// What its length must be.
        expected: String,
        /// What it is.
        found: usize,
    },
    /// The type can only be quantized with an importance for each column.
    #[cfg(feature = "ggml")]
    #[error("{ty} cannot be quantized without an importance matrix: give one value for each column")]
    GgmlImatrix {
        /// The type.
        ty: gristmill_kernels::quant::GgmlType,
    },
    /// A value that is to be quantized is an infinity or not a number.
    #[cfg(feature = "ggml")]
    #[error("value {index} is {value}: ggml quantizes finite numbers only")]
    GgmlNotFinite {
        /// Which value.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// ggml failed; the message is its own.
    #[cfg(feature = "ggml")]
    #[error("ggml failed to {operation}: {message}")]
    Ggml {
        /// What was asked for.
        operation: &'static str,
        /// What ggml said: its last lines of log, or the assertion that failed.
        message: String,
    },
}

impl From<gristmill_kernels::Mismatch> for Error {
    fn from(mismatch: gristmill_kernels::Mismatch) -> Self {
        Error::Internal { what: mismatch.what }
    }
}
impl Error {
    /// The error with the path of the file that it was found in.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        Self::InFile { path: path.to_owned(), source: Box::new(self) }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}
