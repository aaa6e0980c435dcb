//! Multiple-choice tasks from lines of JSON, in the forms in which they are published, with the prompts of
//! lm-evaluation-harness (0.4).

use serde_json::Value as Json;

use crate::{Error, Result};

/// The form of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskKind {
    /// `{ctx_a, ctx_b, endings, label}`, or `ctx` for the first two; `activity_label` before it where that is there.
    HellaSwag,
    /// `{sentence, option1, option2, answer}`: scored on what follows the blank.
    Winogrande,
    /// `{question: {stem, choices: [{text, label}]}, answerKey}`, or `{question, choices: {text, label}, answerKey}`.
    Arc,
    /// `{question, choices, answer}`; the `subject` before it where that is there.
    Mmlu,
}

impl TaskKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            TaskKind::HellaSwag => "HellaSwag",
            TaskKind::Winogrande => "Winogrande",
            TaskKind::Arc => "ARC",
            TaskKind::Mmlu => "MMLU",
        }
    }
}

/// One of the answers that a task offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What stands before the text that is scored.
    pub prompt: String,
    /// The text that is scored, behind a space.
    pub text: String,
}

/// A question with answers to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its form.
    pub kind: TaskKind,
    /// The answers.
    pub choices: Vec<Choice>,
    /// Which of them is right.
    pub answer: usize,
}

impl Task {
    /// The tasks in `lines`, a JSON object each; empty lines are left out.
    ///
    /// # Errors
    /// [`Error::TaskJson`] and [`Error::TaskField`] for the first line that is of no known form; [`Error::NoTasks`].
    pub fn parse(lines: &str) -> Result<Vec<Task>> {
        let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let tasks: Vec<Task> = lines.map(|(at, line)| parse(at + 1, line)).collect::<Result<_>>()?;
        if tasks.is_empty() { Err(Error::NoTasks) } else { Ok(tasks) }
    }

    /// Of one prompt and several texts.
    fn of(line: &Line, kind: TaskKind, prompt: &str, texts: Vec<String>, answer: usize) -> Result<Self> {
        let choice = |text: String| Choice { prompt: prompt.to_owned(), text };
        Task { kind, choices: texts.into_iter().map(choice).collect(), answer }.checked(line)
    }

    fn checked(self, line: &Line) -> Result<Self> {
        match self.choices.iter().any(|choice| choice.text.is_empty()) {
            false => Ok(self),
            true => Err(line.error("choices", "texts that are not empty", Some("an empty one".to_owned()))),
        }
    }
}

fn parse(number: usize, line: &str) -> Result<Task> {
    let json = serde_json::from_str(line)
        .map_err(|error| Error::TaskJson { line: number, reason: error.to_string() })?;
    let line = Line { number, json };
    if line.get("endings").is_some() {
        hellaswag(&line)
    } else if line.get("sentence").is_some() {
        winogrande(&line)
    } else if line.get("answerKey").is_some() {
        arc(&line)
    } else if line.get("choices").is_some() {
        mmlu(&line)
    } else {
        let field = "endings`, `sentence`, `answerKey` or `choices";
        Err(line.error(field, "there, as in tasks of HellaSwag, Winogrande, ARC or MMLU", None))
    }
}

/// A line of the file.
struct Line {
    number: usize,
    json: Json,
}

impl Line {
    /// A field by its name, or by names with dots between them.
    fn get(&self, field: &str) -> Option<&Json> {
        field.split('.').try_fold(&self.json, |json, name| json.get(name)).filter(|json| !json.is_null())
    }

    fn error(&self, field: &'static str, expected: &'static str, found: Option<String>) -> Error {
        let found = found.or_else(|| self.get(field).map(Json::to_string));
        let found = found.map_or("nothing".to_owned(), |found| found.chars().take(60).collect());
        Error::TaskField { line: self.number, field, expected, found }
    }

    fn text(&self, field: &'static str) -> Result<&str> {
        let text = self.get(field).and_then(Json::as_str);
        text.ok_or_else(|| self.error(field, "a string", None))
    }

    fn list(&self, field: &'static str) -> Result<&[Json]> {
        let list = self.get(field).and_then(Json::as_array).filter(|list| list.len() > 1);
        list.map(Vec::as_slice).ok_or_else(|| self.error(field, "an array of at least two choices", None))
    }

    fn texts(&self, field: &'static str) -> Result<Vec<&str>> {
        let list = self.list(field)?.iter().map(Json::as_str);
        list.collect::<Option<_>>().ok_or_else(|| self.error(field, "an array of strings", None))
    }

    /// One of the fields of each object in a list.
    fn column(&self, field: &'static str, name: &str) -> Result<Vec<&str>> {
        let list = self.list(field)?.iter().map(|json| json.get(name).and_then(Json::as_str));
        list.collect::<Option<_>>()
            .ok_or_else(|| self.error(field, "objects with the strings `text` and `label`", None))
    }

    /// A number, as such or in a string.
    fn number(&self, field: &'static str) -> Option<usize> {
        let json = self.get(field)?;
        let number = json.as_u64().and_then(|number| usize::try_from(number).ok());
        number.or_else(|| json.as_str()?.trim().parse().ok())
    }

    /// The place of a choice among `count`.
    fn place(&self, field: &'static str, place: Option<usize>, count: usize) -> Result<usize> {
        let place = place.filter(|&place| place < count);
        place.ok_or_else(|| self.error(field, "one of the choices", None))
    }
}

fn hellaswag(line: &Line) -> Result<Task> {
    let context = match line.get("ctx_a") {
        Some(_) => format!("{} {}", line.text("ctx_a")?, capitalized(line.text("ctx_b")?)),
        None => line.text("ctx")?.to_owned(),
    };
    let context = match line.get("activity_label") {
        Some(_) => format!("{}: {context}", line.text("activity_label")?),
        None => context,
    };
    let endings: Vec<String> = line.texts("endings")?.into_iter().map(without_brackets).collect();
    let answer = line.place("label", line.number("label"), endings.len())?;
    Task::of(line, TaskKind::HellaSwag, &without_brackets(&context), endings, answer)
}

fn winogrande(line: &Line) -> Result<Task> {
    let blank = line.text("sentence")?.split_once('_');
    let (before, behind) =
        blank.ok_or_else(|| line.error("sentence", "a sentence with a blank `_`", None))?;
    let choice = |option| Choice { prompt: format!("{before}{option}"), text: behind.trim().to_owned() };
    let choices = vec![choice(line.text("option1")?), choice(line.text("option2")?)];
    let answer = line.number("answer").and_then(|answer| answer.checked_sub(1));
    let answer = line.place("answer", answer, choices.len())?;
    Task { kind: TaskKind::Winogrande, choices, answer }.checked(line)
}

fn arc(line: &Line) -> Result<Task> {
    let (question, texts, labels) = match line.get("question.stem") {
        Some(_) => {
            let column = |name| line.column("question.choices", name);
            (line.text("question.stem")?, column("text")?, column("label")?)
        }
        None => (line.text("question")?, line.texts("choices.text")?, line.texts("choices.label")?),
    };
    let key = line.text("answerKey")?;
    let answer = labels.iter().position(|&label| label == key);
    let answer = line.place("answerKey", answer, texts.len())?;
    let texts = texts.into_iter().map(str::to_owned).collect();
    Task::of(line, TaskKind::Arc, &format!("Question: {question}\nAnswer:"), texts, answer)
}

fn mmlu(line: &Line) -> Result<Task> {
    let mut prompt = match line.get("subject") {
        Some(_) => {
            let subject = line.text("subject")?.replace('_', " ");
            format!("The following are multiple choice questions (with answers) about {subject}.\n\n")
        }
        None => String::new(),
    };
    prompt.push_str(line.text("question")?.trim());
    let choices = line.texts("choices")?;
    if choices.len() > 26 {
        return Err(line.error("choices", "at most 26 choices", Some(choices.len().to_string())));
    }
    let letters: Vec<String> = ('A'..='Z').take(choices.len()).map(String::from).collect();
    for (letter, choice) in letters.iter().zip(&choices) {
        prompt.push_str(&format!("\n{letter}. {choice}"));
    }
    prompt.push_str("\nAnswer:");
    let by_letter =
        || letters.iter().position(|letter| line.get("answer").and_then(Json::as_str) == Some(letter));
    let answer = line.place("answer", line.number("answer").or_else(by_letter), letters.len())?;
    Task::of(line, TaskKind::Mmlu, &prompt, letters, answer)
}

/// The first letter large, the others small.
fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

/// A text without the marks in brackets that HellaSwag's texts from WikiHow carry.
fn without_brackets(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let (mut kept, mut rest) = (String::new(), text.as_str());
    while let Some((before, behind)) = rest.split_once('[') {
        kept.push_str(before);
        rest = match behind.split_once(']') {
            Some((inside, behind)) if !inside.contains('\n') => behind,
            _ => {
                kept.push('[');
                behind
            }
        };
    }
    kept.push_str(rest);
    kept.replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Task {
        Task::parse(line).unwrap().remove(0)
    }

    fn texts(task: &Task) -> Vec<&str> {
        task.choices.iter().map(|choice| choice.text.as_str()).collect()
    }

    #[test]
    fn hellaswag_is_cleaned_of_its_marks() {
        let task =
            one(r#"{"activity_label": "Roof", "ctx_a": "A man sits [step] on a roof.", "ctx_b": "he THEN",
                "endings": ["is  up. [title] Then more [substeps] here", "pulls"], "label": "1"}"#
                .replace('\n', " ")
                .as_str());
        assert_eq!((task.kind, task.answer), (TaskKind::HellaSwag, 1));
        assert_eq!(task.choices[0].prompt, "Roof: A man sits on a roof. He then");
        assert_eq!(texts(&task), ["is up.. Then more here", "pulls"]);
        let other = one(r#"{"ctx": "A man [", "endings": ["sits", "stands"], "label": 0}"#);
        assert_eq!((other.choices[1].prompt.as_str(), other.answer), ("A man [", 0));
    }

    #[test]
    fn winogrande_is_scored_behind_the_blank() {
        let task = one(
            r#"{"sentence": "The cup is in _ , so look.", "option1": "the box", "option2": "it", "answer": "2"}"#,
        );
        assert_eq!((task.kind, task.answer), (TaskKind::Winogrande, 1));
        assert_eq!(task.choices[0].prompt, "The cup is in the box");
        assert_eq!(texts(&task), [", so look."; 2]);
    }

    #[test]
    fn both_forms_of_arc_are_the_same_task() {
        let nested = one(
            r#"{"question": {"stem": "Why?", "choices": [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]}, "answerKey": "2"}"#,
        );
        let flat = one(
            r#"{"question": "Why?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}"#,
        );
        assert_eq!(nested, flat);
        assert_eq!((flat.choices[1].prompt.as_str(), flat.answer), ("Question: Why?\nAnswer:", 1));
    }

    #[test]
    fn mmlu_is_answered_by_letters() {
        let line =
            r#"{"question": "2 + 2? ", "subject": "abstract_algebra", "choices": ["3", "4"], "answer": 1}"#;
        let task = one(line);
        let about = "The following are multiple choice questions (with answers) about abstract algebra.\n\n";
        assert_eq!(task.choices[0].prompt, format!("{about}2 + 2?\nA. 3\nB. 4\nAnswer:"));
        assert_eq!((texts(&task), task.answer), (vec!["A", "B"], 1));
        assert_eq!(one(&line.replace("\"answer\": 1", "\"answer\": \"B\"")), task);
    }

    #[test]
    fn errors_name_the_line_and_the_field() {
        assert!(matches!(Task::parse("\n{"), Err(Error::TaskJson { line: 2, .. })));
        let cases = [
            ("", None),
            ("{}", Some("endings`, `sentence`, `answerKey` or `choices")),
            ("[1]", Some("endings`, `sentence`, `answerKey` or `choices")),
            (r#"{"ctx": 3, "endings": ["a", "b"], "label": 0}"#, Some("ctx")),
            (r#"{"ctx": "c", "endings": ["a"], "label": 0}"#, Some("endings")),
            (r#"{"ctx": "c", "endings": ["a", 2], "label": 0}"#, Some("endings")),
            (r#"{"ctx": "c", "endings": ["a", ""], "label": 0}"#, Some("choices")),
            (r#"{"ctx": "c", "endings": ["a", "b"], "label": 2}"#, Some("label")),
            (r#"{"ctx": "c", "endings": ["a", "b"]}"#, Some("label")),
            (r#"{"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"}"#, Some("sentence")),
            (r#"{"sentence": "a _ b", "option1": "a", "option2": "b", "answer": "0"}"#, Some("answer")),
            (
                r#"{"question": "q", "choices": {"text": ["a", "b"]}, "answerKey": "A"}"#,
                Some("choices.label"),
            ),
            (
                r#"{"question": {"stem": "q", "choices": [{"text": "a"}, {"text": "b"}]}, "answerKey": "A"}"#,
                Some("question.choices"),
            ),
            (r#"{"question": "q", "choices": ["a", "b"], "answer": "C"}"#, Some("answer")),
        ];
        for (line, expected) in cases {
            let good = r#"{"question": "q", "choices": ["a", "b"], "answer": "A"}"#;
            match (
                Task::parse(&if line.is_empty() { String::new() } else { format!("{good}\n\n{line}\n") }),
                expected,
            ) {
                (Err(Error::NoTasks), None) => (),
                (Err(Error::TaskField { line: 3, field, .. }), Some(expected)) => assert_eq!(field, expected),
                (other, _) => panic!("{line}: {other:?}"),
            }
        }
    }
}
