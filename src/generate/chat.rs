//! The chat-templated generator: turns in, answers out.
#![forbid(unsafe_code)]

use std::fmt;

use serde_json::{Map, Value as Json, json};

use super::{
    CancelHandle, Finish, GenerateOptions, Generation, Sampler, SamplerOptions, Stepper, StepperOptions,
};
use crate::gguf::Metadata;
use crate::model::Model;
use crate::text::template::{ChatTemplate, DateTime, RenderInput};
use crate::text::{EncodeOptions, Tokenizer};
use crate::{Error, Result};

/// What speaks for a model being instruction-tuned, or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// Whether the file has a chat template.
    pub template: bool,
    /// The texts of the tokens that end a turn, as far as the vocabulary has such.
    pub end_of_turn: Vec<String>,
    /// The model's name.
    pub name: Option<String>,
}

impl Evidence {
    /// What a file's metadata say, also where its model cannot be run.
    pub fn from_metadata(metadata: &Metadata) -> Self {
        Evidence::new(metadata, Tokenizer::from_metadata(metadata).ok().as_ref())
    }

    fn new(metadata: &Metadata, tokenizer: Option<&Tokenizer>) -> Self {
        let text = |key| metadata.str(key).ok().flatten();
        let end_of_turn = tokenizer.map_or_else(Vec::new, |tokenizer| {
            let special = tokenizer.special_tokens();
            let ends = tokenizer.end_of_generation_tokens().iter();
            let ends = ends.filter(|&&id| [special.eot, special.eom, special.eos].contains(&Some(id)));
            ends.filter_map(|&id| Some(String::from_utf8_lossy(tokenizer.token_text(id)?).into_owned()))
                .collect()
        });
        Evidence {
            template: text("tokenizer.chat_template").is_some_and(|source| !source.trim().is_empty()),
            end_of_turn,
            name: text("general.name").map(str::to_owned),
        }
    }

    /// Whether the model is taken to be instruction-tuned: it has a template.
    pub fn is_instruct(&self) -> bool {
        self.template
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.template { "chat template: yes" } else { "chat template: none" })?;
        match self.end_of_turn.as_slice() {
            [] => f.write_str("; end-of-turn tokens: none")?,
            tokens => write!(f, "; end-of-turn tokens: {}", tokens.join(" "))?,
        }
        match &self.name {
            Some(name) => write!(f, "; name: {name}"),
            None => f.write_str("; no name"),
        }
    }
}

/// What to do when a conversation outgrows the context.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// [`Error::ContextFull`]: nothing is dropped unasked.
    #[default]
    Refuse,
    /// Drop the oldest turns, never the system prompt; [`PromptPlan::dropped`] tells how many messages.
    DropOldest,
}

/// How a conversation is held. Start from [`ChatOptions::default`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ChatOptions {
    system: Option<String>,
    template: Option<String>,
    tools: Option<Json>,
    variables: Map<String, Json>,
    now: Option<DateTime>,
    sampler: SamplerOptions,
    stepper: StepperOptions,
    generate: GenerateOptions,
    overflow: Overflow,
}

impl ChatOptions {
    /// The system prompt.
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.system = Some(text.into());
        self
    }

    /// A Jinja template to use in place of the model's.
    pub fn template(mut self, source: impl Into<String>) -> Self {
        self.template = Some(source.into());
        self
    }

    /// Tools that the model may call: a JSON array of function descriptions, as templates expect them.
    pub fn tools(mut self, tools: Json) -> Self {
        self.tools = Some(tools);
        self
    }

    /// A variable for the template, such as `enable_thinking`.
    pub fn variable(mut self, name: impl Into<String>, value: Json) -> Self {
        self.variables.insert(name.into(), value);
        self
    }

    /// The time that templates see; by default the clock's.
    pub fn now(mut self, now: DateTime) -> Self {
        self.now = Some(now);
        self
    }

    /// How tokens are chosen.
    pub fn sampler(mut self, options: SamplerOptions) -> Self {
        self.sampler = options;
        self
    }

    /// How the sequence is kept: context, precision of the cache.
    pub fn stepper(mut self, options: StepperOptions) -> Self {
        self.stepper = options;
        self
    }

    /// When an answer ends, beside at the model's end of turn.
    pub fn generate(mut self, options: GenerateOptions) -> Self {
        self.generate = options;
        self
    }

    /// What to do when the conversation outgrows the context.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }
}

/// What a prompt would take, before anything is computed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PromptPlan {
    /// Tokens of the whole prompt.
    pub tokens: usize,
    /// How many of them are in the cache already.
    pub cached: usize,
    /// Tokens that the context holds.
    pub context: usize,
    /// Bytes that the cache takes with this prompt.
    pub cache_bytes: usize,
    /// Messages that the overflow policy drops.
    pub dropped: usize,
}

/// A conversation with an instruction-tuned model.
///
/// Each prompt is the whole conversation, rendered by the model's own template; what the sequence holds of it already is
/// not computed again.
///
/// ```
/// use gristmill::generate::{ChatOptions, Finish, SamplerOptions};
/// use gristmill::{Error, Model};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vendor/models/tiny-instruct-q8_0.gguf");
/// let model = Model::open(path)?;
/// let mut chat = model.chat(ChatOptions::default().sampler(SamplerOptions::greedy()))?;
/// let first = chat.send("Hi, I am Tom.")?.complete()?;
/// assert_eq!(first.text, "Nice to meet you, Tom!");
/// assert!(matches!(first.finish, Some(Finish::End(_))));
///
/// // Piece by piece; what was computed for the first turn is not computed again.
/// let mut reply = chat.send("What is my name?")?;
/// assert!(reply.plan().cached >= first.prompt_tokens);
/// let pieces: Result<Vec<String>, Error> = reply.by_ref().collect();
/// assert_eq!(pieces?.concat(), "Your name is Tom.");
/// drop(reply); // now the answer is a message
/// assert_eq!(chat.messages().len(), 4);
/// # Ok::<(), gristmill::Error>(())
/// ```
pub struct Chat {
    template: ChatTemplate,
    options: ChatOptions,
    messages: Vec<Json>,
    stepper: Stepper,
    sampler: Sampler,
}

impl Model {
    /// What speaks for the model being instruction-tuned, or not.
    pub fn evidence(&self) -> Evidence {
        Evidence::new(self.metadata(), self.tokenizer().ok())
    }

    /// A new conversation.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] on a base model, with the evidence: use [`Model::stepper`] for those;
    /// [`Error::TemplateSyntax`] where the template is broken.
    pub fn chat(&self, options: ChatOptions) -> Result<Chat> {
        let source = options.template.as_deref().or_else(|| self.chat_template());
        let source = source.ok_or_else(|| Error::NoChatTemplate { evidence: Box::new(self.evidence()) })?;
        let mut chat = Chat {
            template: ChatTemplate::new(source)?,
            messages: Vec::new(),
            stepper: self.stepper(options.stepper.clone())?,
            sampler: Sampler::new(options.sampler.clone())?,
            options,
        };
        self.tokenizer()?;
        chat.reset();
        Ok(chat)
    }
}

impl Chat {
    /// The messages so far, the system prompt first, as templates see them: objects with `role` and `content`.
    pub fn messages(&self) -> &[Json] {
        &self.messages
    }

    /// The sequence underneath.
    pub fn stepper(&self) -> &Stepper {
        &self.stepper
    }

    /// A handle that stops an answer from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.stepper.cancel_handle()
    }

    /// Begins the conversation anew, with the same system prompt.
    pub fn reset(&mut self) {
        self.messages.clear();
        let system = self.options.system.iter();
        self.messages.extend(system.map(|text| json!({"role": "system", "content": text})));
    }

    /// Begins the conversation anew with another system prompt, or none.
    pub fn set_system(&mut self, system: Option<String>) {
        self.options.system = system;
        self.reset();
    }

    /// Adds a message as it is: a tool's answer, an earlier turn of the assistant. [`Chat::answer`] then answers.
    pub fn push(&mut self, message: Json) {
        self.messages.push(message);
    }

    /// The prompt as the template renders it now, ending where the assistant is to speak.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`].
    pub fn prompt(&self) -> Result<String> {
        self.render(&self.messages)
    }

    /// What the prompt for the messages so far would take.
    ///
    /// # Errors
    /// Those of [`Chat::prompt`], and [`Error::ContextFull`] where it does not fit and nothing may be dropped.
    pub fn plan(&self) -> Result<PromptPlan> {
        self.fit().map(|(plan, _, _)| plan)
    }

    /// Says something as the user and gives the answer, piece by piece.
    ///
    /// # Errors
    /// Those of [`Chat::answer`]; then the conversation is what it was before.
    pub fn send(&mut self, text: impl Into<String>) -> Result<Reply<'_>> {
        self.messages.push(json!({"role": "user", "content": text.into()}));
        match self.prepare() {
            Ok(plan) => self.reply(plan),
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }

    /// Answers the messages so far. The answer becomes a message, as far as it came, when the reply is dropped.
    ///
    /// # Errors
    /// Those of [`Chat::plan`] and of [`Stepper::feed`].
    pub fn answer(&mut self) -> Result<Reply<'_>> {
        let plan = self.prepare()?;
        self.reply(plan)
    }

    fn render(&self, messages: &[Json]) -> Result<String> {
        let tokenizer = self.stepper.model().tokenizer()?;
        let special = tokenizer.special_tokens();
        let text = |id: Option<u32>| {
            id.and_then(|id| Some(String::from_utf8_lossy(tokenizer.token_text(id)?).into_owned()))
        };
        let mut input = RenderInput::new(Json::Array(messages.to_vec()));
        input.tools.clone_from(&self.options.tools);
        input.variables.clone_from(&self.options.variables);
        input.now = self.options.now;
        input.bos_token = text(special.bos);
        input.eos_token = text(special.eos);
        self.template.render(&input)
    }

    /// The prompt's tokens. BOS goes first where the tokenizer says so, once: templates often write it themselves.
    fn encode(&self, messages: &[Json]) -> Result<Vec<u32>> {
        let tokenizer = self.stepper.model().tokenizer()?;
        let mut tokens = tokenizer.encode(&self.render(messages)?, EncodeOptions::TEMPLATE)?;
        let bos = tokenizer.special_tokens().bos.filter(|_| tokenizer.add_bos());
        if let Some(bos) = bos.filter(|&bos| tokens.first() != Some(&bos)) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// The messages that fit, and their tokens. At least one token must be left for the answer.
    fn fit(&self) -> Result<(PromptPlan, Vec<Json>, Vec<u32>)> {
        let context = self.stepper.context();
        let mut messages = self.messages.clone();
        let mut tokens = self.encode(&messages)?;
        let mut needed = tokens.len();
        if needed >= context && self.options.overflow == Overflow::DropOldest {
            // Fewer turns take fewer tokens: the cut after which the rest fits is found by halving.
            let (first, cuts) = turns(&self.messages);
            let (mut low, mut high) = (0, cuts.len());
            while let Some(&cut) = cuts.get(low..high).and_then(|cuts| cuts.get(cuts.len() / 2)) {
                let mut rest = self.messages.clone();
                rest.drain(first..cut);
                let found = self.encode(&rest)?;
                let middle = low + (high - low) / 2;
                if found.len() < context {
                    (messages, tokens, high) = (rest, found, middle);
                } else {
                    (needed, low) = (found.len(), middle + 1);
                }
            }
        }
        if tokens.len() >= context {
            return Err(Error::ContextFull { needed: needed + 1, context });
        }
        let plan = PromptPlan {
            tokens: tokens.len(),
            cached: common_prefix(self.stepper.tokens(), &tokens),
            context,
            cache_bytes: self.stepper.cache_bytes(tokens.len()),
            dropped: self.messages.len() - messages.len(),
        };
        Ok((plan, messages, tokens))
    }

    /// Feeds the prompt, but for what the sequence holds of it.
    fn prepare(&mut self) -> Result<PromptPlan> {
        let (plan, messages, tokens) = self.fit()?;
        // At least the last token must be fed, for its logits.
        let keep = plan.cached.min(tokens.len().checked_sub(1).ok_or(Error::NothingFed)?);
        self.stepper.truncate(keep);
        self.stepper.feed(tokens.get(keep..).unwrap_or_default())?;
        self.messages = messages;
        Ok(plan)
    }

    fn reply(&mut self, plan: PromptPlan) -> Result<Reply<'_>> {
        let Chat { stepper, sampler, messages, options, .. } = self;
        let generation = stepper.generate(sampler, options.generate.clone())?;
        Ok(Reply { generation, messages, text: String::new(), plan })
    }
}

/// The first message that is not the system's, and where the user speaks after it: the messages from the one to one
/// of the others can be dropped, oldest turns first, and the newest turn stays.
fn turns(messages: &[Json]) -> (usize, Vec<usize>) {
    let role = |message: &Json, role: &str| message.get("role").and_then(Json::as_str) == Some(role);
    let first = messages.iter().position(|message| !role(message, "system")).unwrap_or(messages.len());
    let later = messages.iter().enumerate().skip(first + 1);
    (first, later.filter(|(_, message)| role(message, "user")).map(|(at, _)| at).collect())
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// An answer that is being given: an iterator over pieces of text, which an error ends.
///
/// When it is dropped the answer becomes a message, as far as it came.
#[must_use = "an answer is given as its pieces are asked for"]
pub struct Reply<'a> {
    generation: Generation<'a>,
    messages: &'a mut Vec<Json>,
    text: String,
    plan: PromptPlan,
}

/// How an answer ended, and what it took.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The whole answer.
    pub text: String,
    /// Why it ended; `None` where it was broken off.
    pub finish: Option<Finish>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were in the cache already.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub answer_tokens: usize,
}

impl Reply<'_> {
    /// What the prompt took.
    pub fn plan(&self) -> &PromptPlan {
        &self.plan
    }

    /// How the answer stands: final after the last piece.
    pub fn outcome(&self) -> Outcome {
        Outcome {
            text: self.text.clone(),
            finish: self.generation.finish_reason().cloned(),
            prompt_tokens: self.plan.tokens,
            cached_tokens: self.plan.cached,
            answer_tokens: self.generation.tokens(),
        }
    }

    /// Takes all pieces.
    ///
    /// # Errors
    /// Those of the pieces.
    pub fn complete(mut self) -> Result<Outcome> {
        for piece in self.by_ref() {
            piece?;
        }
        Ok(self.outcome())
    }
}

impl Iterator for Reply<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.generation.next()? {
                Ok(step) if step.text().is_empty() => continue,
                Ok(step) => {
                    self.text.push_str(step.text());
                    return Some(Ok(step.text().to_owned()));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        self.messages.push(json!({"role": "assistant", "content": std::mem::take(&mut self.text)}));
    }
}
