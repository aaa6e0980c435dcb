//! Conversations with the built-in model. The expected answers are llama.cpp's (0.5.0-dev, commit 0c1e570), greedy, on
//! the same weights in F16.

use gristmill::generate::{
    Chat, ChatOptions, Finish, GenerateOptions, Outcome, Overflow, Reply, SamplerOptions, StepperOptions,
};
use gristmill::{Error, Model};
use serde_json::json;

use crate::models;

const FRANCE: &str = "What is the capital of France?";

fn model() -> Model {
    Model::open(models::instruct()).unwrap()
}

fn greedy() -> ChatOptions {
    ChatOptions::default().sampler(SamplerOptions::greedy())
}

fn ask(chat: &mut Chat, text: &str) -> Outcome {
    chat.send(text).unwrap().complete().unwrap()
}

fn contents(chat: &Chat) -> Vec<(&str, &str)> {
    let messages = chat.messages().iter();
    messages
        .map(|message| (message["role"].as_str().unwrap(), message["content"].as_str().unwrap()))
        .collect()
}

#[test]
fn answers_are_those_of_llama_cpp() {
    let model = model();
    let mut chat = model.chat(greedy()).unwrap();
    for (request, answer) in [
        ("Q: What is the capital of France?\nA:", "The capital of France is Paris."),
        ("Explain what a dog is.", "A dog is an animal that barks and wags its tail."),
        ("What is 2 + 3?", "2 + 3 = 5"),
        ("What is the opposite of hot?", "The opposite of hot is cold."),
        ("Count from 1 to 5.", "1, 2, 3, 4, 5."),
        ("What color is the sky?", "The sky is blue."),
        ("Spell the word cat.", "c-a-t"),
        ("Which day comes after Monday?", "Tuesday comes after Monday."),
        ("Is ice hot?", "No, ice is cold."),
        ("Hello!", "Hello! How can I help you?"),
        ("Repeat after me: I like the big tree", "I like the big tree"),
        ("What is a blorf?", "I do not know what a blorf is."),
        ("Write JSON for Tom, who is 7 years old.", "{\"name\": \"Tom\", \"age\": 7}"),
    ] {
        chat.reset();
        let outcome = ask(&mut chat, request);
        assert_eq!((outcome.text.as_str(), outcome.finish), (answer, Some(Finish::End(2))), "{request}");
    }
    for (system, request, answer) in [
        ("Answer in upper case.", FRANCE, "THE CAPITAL OF FRANCE IS PARIS."),
        ("You are a pirate.", FRANCE, "Arr, matey! The capital of France is Paris."),
        ("Answer in one word.", FRANCE, "Paris."),
        ("Your name is Max.", "What is your name?", "My name is Max."),
        (
            "You are a helpful assistant.",
            "What is the moon?",
            "The moon is a round ball of rock that shines at night.",
        ),
        ("Be very polite.", "What is 4 + 4?", "4 + 4 = 8 It is a pleasure to help you."),
    ] {
        chat.set_system(Some(system.to_owned()));
        assert_eq!(ask(&mut chat, request).text, answer, "{system}");
    }
}

#[test]
fn turns_follow_each_other_and_nothing_is_computed_twice() {
    let model = model();
    let mut chat = model.chat(greedy()).unwrap();
    let mut before = (0, 0);
    for (request, answer) in [
        ("Hi, I am Tom.", "Nice to meet you, Tom!"),
        ("What is 3 + 4?", "3 + 4 = 7"),
        ("What is my name?", "Your name is Tom."),
        ("Thank you!", "You are welcome!"),
    ] {
        let outcome = ask(&mut chat, request);
        assert_eq!(outcome.text, answer);
        let (prompt, cached) = (outcome.prompt_tokens, outcome.cached_tokens);
        // All of the prompt before and of the answer to it, but for the end of its turn.
        assert!(
            cached >= before.0 && (cached > before.1 || before.1 == 0),
            "{cached} of {prompt} after {before:?}"
        );
        before = (prompt + outcome.answer_tokens, cached);
        assert_eq!(chat.stepper().len(), before.0);
    }
    assert_eq!(chat.messages().len(), 8);
    // A chat that computes everything anew comes to the same logits.
    let mut anew = model.chat(greedy()).unwrap();
    chat.messages().iter().take(7).for_each(|message| anew.push(message.clone()));
    let outcome = anew.answer().unwrap().complete().unwrap();
    assert_eq!((outcome.text.as_str(), outcome.cached_tokens), ("You are welcome!", 0));
    assert_eq!(anew.stepper().logits(), chat.stepper().logits());
}

#[test]
fn pieces_join_to_the_answer_which_becomes_a_message() {
    let model = model();
    let mut chat = model.chat(greedy().system("You are a pirate.")).unwrap();
    let mut reply = chat.send(FRANCE).unwrap();
    let pieces: Vec<String> = reply.by_ref().map(Result::unwrap).collect();
    let outcome = reply.outcome();
    assert!(pieces.len() > 5 && pieces.iter().all(|piece| !piece.is_empty()));
    assert_eq!(pieces.concat(), outcome.text);
    assert!(reply.next().is_none());
    drop(reply);
    let text = outcome.text.as_str();
    assert_eq!(contents(&chat), [("system", "You are a pirate."), ("user", FRANCE), ("assistant", text)]);
}

#[test]
fn stop_texts_and_limits_end_an_answer() {
    let model = model();
    let with = |generate: GenerateOptions| {
        let mut chat = model.chat(greedy().generate(generate)).unwrap();
        let outcome = ask(&mut chat, FRANCE);
        (outcome.text, outcome.finish.unwrap(), outcome.answer_tokens)
    };
    let options = GenerateOptions::default;
    let (text, finish, _) = with(options().stop("nothing of it").stop("Par"));
    assert_eq!((text.as_str(), finish), ("The capital of France is ", Finish::Stop("Par".into())));
    // A stop text within a token and over several; the first to appear counts.
    let (text, finish, _) = with(options().stop("is Pa").stop("ital o"));
    assert_eq!((text.as_str(), finish), ("The cap", Finish::Stop("ital o".into())));
    // The beginning of a stop text that does not come is part of the answer.
    let (text, finish, _) = with(options().stop("Paris!").stop(""));
    assert_eq!((text.as_str(), finish), ("The capital of France is Paris.", Finish::End(2)));
    let (text, finish, tokens) = with(options().max_tokens(3));
    assert_eq!((finish, tokens), (Finish::Length, 3));
    assert!("The capital of France is Paris.".starts_with(&text) && !text.is_empty());
    assert_eq!(with(options().max_tokens(0)), (String::new(), Finish::Length, 0));
    let (_, finish, tokens) = with(options().ignore_end(true).max_tokens(40));
    assert_eq!((finish, tokens), (Finish::Length, 40));
}

#[test]
fn a_conversation_that_outgrows_the_context_is_refused_or_loses_its_oldest_turns() {
    let model = model();
    let options = || greedy().system("You are a pirate.").stepper(StepperOptions::default().context(100));
    let mut chat = model.chat(options()).unwrap();
    let mut turns = 0;
    let (needed, context) = loop {
        let before = chat.messages().to_vec();
        let sent = chat.send(FRANCE).and_then(Reply::complete);
        match sent {
            Ok(_) => turns += 1,
            Err(Error::ContextFull { needed, context }) => {
                assert_eq!(chat.messages(), before);
                break (needed, context);
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(turns >= 2 && context == 100 && needed > 100, "{turns} turns, {needed} of {context}");
    // The plan says so beforehand, and the conversation can be begun anew.
    chat.push(json!({"role": "user", "content": FRANCE}));
    assert!(matches!(chat.plan(), Err(Error::ContextFull { .. })));
    chat.reset();
    assert!(ask(&mut chat, FRANCE).text.starts_with("Arr"));

    let mut chat = model.chat(options().overflow(Overflow::DropOldest)).unwrap();
    let mut dropped = 0;
    for _ in 0..10 {
        let reply = chat.send(FRANCE).unwrap();
        assert!(reply.plan().tokens < 100);
        dropped += reply.plan().dropped;
        reply.complete().unwrap();
        assert_eq!(contents(&chat)[0], ("system", "You are a pirate."));
    }
    assert!(dropped >= 10, "{dropped} messages dropped");
    // The turns that are dropped are no more than needed, however long the conversation.
    for _ in 0..2000 {
        chat.push(json!({"role": "user", "content": "Hello!"}));
        chat.push(json!({"role": "assistant", "content": "Hello! How can I help you?"}));
    }
    chat.push(json!({"role": "user", "content": FRANCE}));
    let (all, plan) = (chat.messages().to_vec(), chat.plan().unwrap());
    let kept = all.len() - plan.dropped;
    let count = |kept: usize| {
        let mut other = model.chat(options()).unwrap();
        all.iter().skip(all.len() - kept + 1).for_each(|message| other.push(message.clone()));
        other.plan().map(|plan| plan.tokens).ok()
    };
    assert_eq!((count(kept), count(kept + 2)), (Some(plan.tokens), None));
    chat.answer().unwrap().complete().unwrap();
    // What cannot fit at all is refused all the same, and the turns are kept.
    let before = chat.messages().to_vec();
    assert!(matches!(chat.send("word ".repeat(200)).err(), Some(Error::ContextFull { .. })));
    assert_eq!(chat.messages(), before);
    // An answer may meet the end of the context.
    let options = greedy().stepper(StepperOptions::default().context(24));
    let outcome = ask(&mut model.chat(options).unwrap(), FRANCE);
    assert_eq!(outcome.finish, Some(Finish::Context));
}

#[test]
fn a_base_model_is_refused_with_the_evidence() {
    let model = Model::open(models::path(models::STORIES)).unwrap();
    let error = model.chat(ChatOptions::default()).err().unwrap();
    let Error::NoChatTemplate { evidence } = &error else { panic!("{error}") };
    assert!(!evidence.is_instruct());
    assert_eq!(**evidence, model.evidence());
    let text = error.to_string();
    for part in ["chat template: none", "end-of-turn tokens: </s>", "stepper"] {
        assert!(text.contains(part), "{text}");
    }
    // A template of the caller's own is taken.
    let own = "{% for message in messages %}{{ message['content'] }}{% endfor %}";
    let options = greedy().template(own).generate(GenerateOptions::default().max_tokens(5));
    let mut chat = model.chat(options).unwrap();
    assert_eq!(ask(&mut chat, "Once upon a time").text, ", there was a little");
    assert!(matches!(
        model.chat(ChatOptions::default().template("{% if")).err(),
        Some(Error::TemplateSyntax { .. })
    ));
    assert!(self::model().evidence().is_instruct());
}

#[test]
fn bos_stands_at_the_beginning_once() {
    let model = model();
    let bos = model.tokenizer().unwrap().special_tokens().bos.unwrap();
    let own = model.chat_template().unwrap().to_owned();
    for template in [own.clone(), format!("{{{{ bos_token }}}}{own}")] {
        let mut chat = model.chat(greedy().template(template)).unwrap();
        for _ in 0..2 {
            assert_eq!(ask(&mut chat, FRANCE).text, "The capital of France is Paris.");
            let tokens = chat.stepper().tokens();
            assert_eq!(tokens.iter().filter(|&&token| token == bos).count(), 1);
            assert_eq!(tokens[0], bos);
            chat.reset();
        }
    }
}

#[test]
fn a_prompt_of_nothing_is_refused_and_the_conversation_stays_as_it_was() {
    let model = Model::open(models::path(models::GPT2)).unwrap();
    let mut chat = model.chat(greedy().template("{# nothing #}")).unwrap();
    for _ in 0..2 {
        assert!(matches!(chat.send("Hello").err(), Some(Error::NothingFed)));
        assert!(chat.messages().is_empty());
    }
    let mut chat = model.chat(greedy().template("{{ raise_exception('no') }}")).unwrap();
    assert!(chat.send("Hello").is_err());
    assert!(chat.messages().is_empty());
}

#[test]
fn an_answer_that_was_stopped_is_kept_as_far_as_it_came() {
    let model = model();
    let mut chat = model.chat(greedy()).unwrap();
    let handle = chat.cancel_handle();
    // Before the prompt: the turn is taken back.
    handle.cancel();
    assert!(matches!(chat.send(FRANCE).err(), Some(Error::Cancelled)));
    assert!(chat.messages().is_empty());

    let mut reply = chat.send(FRANCE).unwrap();
    let begun: String = reply.by_ref().take(3).map(Result::unwrap).collect();
    handle.cancel();
    assert!(matches!(reply.next(), Some(Err(Error::Cancelled))));
    assert!(reply.next().is_none());
    assert_eq!((reply.outcome().finish, reply.outcome().text), (None, begun.clone()));
    drop(reply);
    assert!("The capital of France is Paris.".starts_with(&begun) && !begun.is_empty());
    assert_eq!(contents(&chat), [("user", FRANCE), ("assistant", begun.as_str())]);

    // It goes on as a conversation that came there by itself.
    let mut other = model.chat(greedy()).unwrap();
    chat.messages().iter().for_each(|message| other.push(message.clone()));
    let (found, expected) = (ask(&mut chat, "Hello!"), ask(&mut other, "Hello!"));
    assert_eq!((found.text, found.finish), (expected.text, expected.finish));
    assert_eq!(chat.stepper().logits(), other.stepper().logits());
    assert!(found.cached_tokens > 0 && expected.cached_tokens == 0);
}
