//! Python's operators on a template's values; [`source`](super::source) spells them as filters.

use minijinja::formatting::FormatStyle;
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Environment, Error, State, Value};

use super::python::{self, afford, charge, error, is_engine_object, limit, type_name, undefined};

/// Bytes that one place in a list is reckoned to take.
pub(super) const SLOT: usize = 32;

pub(super) fn register(env: &mut Environment<'static>) {
    env.add_filter("__add", add);
    env.add_filter("__sub", |a: Value, b: Value| arithmetic("-", &a, &b));
    env.add_filter("__mul", mul);
    env.add_filter("__div", |a: Value, b: Value| arithmetic("/", &a, &b));
    env.add_filter("__floordiv", |a: Value, b: Value| arithmetic("//", &a, &b));
    env.add_filter("__mod", modulo);
    env.add_filter("__pow", |a: Value, b: Value| arithmetic("**", &a, &b));
    env.add_filter("__concat", concat);
    env.add_filter("__compare", compare);
    env.add_filter("__in", contains);
    env.add_filter("__slice", slice);
    env.add_filter("__built", built);
    env.add_filter("__stored", stored);
}

fn unsupported(op: &str, a: &Value, b: &Value) -> Error {
    if a.is_undefined() || b.is_undefined() {
        let side = if a.is_undefined() { "left" } else { "right" };
        return undefined(format!("the {side} operand of `{op}` is undefined"));
    }
    match (type_name(a), type_name(b), op) {
        ("str", other, "+") => error(format!("can only concatenate str (not \"{other}\") to str")),
        (a, b, _) => error(format!("unsupported operand type(s) for {op}: '{a}' and '{b}'")),
    }
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

pub(super) fn items(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    afford(state, value.len().unwrap_or_default().saturating_mul(SLOT))?;
    value.try_iter()?.checked().collect()
}

fn list_like(model: &Value, items: Vec<Value>) -> Value {
    if model.is_tuple() { Tuple::from(items).into() } else { items.into() }
}

fn concat(state: &State, a: Value, b: Value) -> Result<Value, Error> {
    let (left, right);
    let a = match a.as_str() {
        Some(text) => text,
        None => {
            left = python::str(state, &a)?;
            &left
        }
    };
    let b = match b.as_str() {
        Some(text) => text,
        None => {
            right = python::str(state, &b)?;
            &right
        }
    };
    afford(state, a.len() + b.len())?;
    Ok(Value::from([a, b].concat()))
}

fn add(state: &State, a: Value, b: Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        afford(state, left.len() + right.len())?;
        if a.is_safe() == b.is_safe() {
            let sum = [left, right].concat();
            return Ok(if a.is_safe() { Value::from_safe_string(sum) } else { sum.into() });
        }
        // adding to what `safe` marked escapes the other side, as MarkupSafe does
        let escaped = super::filters::escape(state, if a.is_safe() { &b } else { &a })?;
        let sum = if a.is_safe() { [left, &escaped].concat() } else { [&escaped, right].concat() };
        return Ok(Value::from_safe_string(sum));
    }
    if is_list(&a) && is_list(&b) && a.is_tuple() == b.is_tuple() {
        let mut sum = items(state, &a)?;
        sum.extend(items(state, &b)?);
        return Ok(list_like(&a, sum));
    }
    arithmetic("+", &a, &b)
}

fn mul(state: &State, a: Value, b: Value) -> Result<Value, Error> {
    let (sequence, count) = if a.as_str().is_some() || is_list(&a) { (&a, &b) } else { (&b, &a) };
    let Some(Number::Int(times)) = number(count) else { return arithmetic("*", &a, &b) };
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = sequence.as_str() {
        afford(state, text.len().saturating_mul(times))?;
        return Ok(text.repeat(times).into());
    }
    if is_list(sequence) {
        let list = items(state, sequence)?;
        afford(state, list.len().saturating_mul(times).saturating_mul(SLOT))?;
        let length = list.len().saturating_mul(times);
        let repeated = list.iter().cycle().take(length).cloned().collect();
        return built(state, list_like(sequence, repeated));
    }
    arithmetic("*", &a, &b)
}

enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn float(&self) -> f64 {
        match self {
            Self::Int(value) => *value as f64,
            Self::Float(value) => *value,
        }
    }
}

fn number(value: &Value) -> Option<Number> {
    match value.kind() {
        ValueKind::Bool => Some(Number::Int(value.is_true().into())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok().map(Number::Int),
        ValueKind::Number => f64::try_from(value.clone()).ok().map(Number::Float),
        _ => None,
    }
}

fn integer(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

fn arithmetic(op: &str, a: &Value, b: &Value) -> Result<Value, Error> {
    let (Some(left), Some(right)) = (number(a), number(b)) else { return Err(unsupported(op, a, b)) };
    let zero_divisor = matches!(op, "/" | "//" | "%") && right.float() == 0.0;
    if zero_divisor || (op == "**" && left.float() == 0.0 && right.float() < 0.0) {
        return Err(error(format!("division by zero in `{op}`")));
    }
    if let (Number::Int(a), Number::Int(b)) = (&left, &right)
        && op != "/"
        && !(op == "**" && *b < 0)
    {
        let (a, b) = (*a, *b);
        let result = match op {
            "+" => a.checked_add(b),
            "-" => a.checked_sub(b),
            "*" => a.checked_mul(b),
            "**" => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            // rounded towards minus infinity, the remainder taking the divisor's sign
            "//" => a.checked_div(b).map(|q| if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q }),
            _ => a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r }),
        };
        return result
            .map(integer)
            .ok_or_else(|| limit(format!("the result of `{op}` does not fit 128 bits")));
    }
    let (a, b) = (left.float(), right.float());
    let remainder = || {
        let r = a % b;
        if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
    };
    Ok(Value::from(match op {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "//" => ((a - remainder()) / b).round(),
        "%" => remainder(),
        _ => a.powf(b),
    }))
}

fn modulo(state: &State, a: Value, b: Value) -> Result<Value, Error> {
    let Some(template) = a.as_str() else { return arithmetic("%", &a, &b) };
    let arguments = if b.is_tuple() { items(state, &b)? } else { vec![b] };
    format(state, FormatStyle::Printf, template, &arguments)
}

/// Fills a format string, containers as Python prints them, widths bounded.
pub(super) fn format(
    state: &State,
    style: FormatStyle,
    template: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    const WIDEST: i64 = 9_999;
    let named = match style {
        FormatStyle::Printf => template.contains("%("),
        FormatStyle::StrFormat => false,
    };
    let digits = template.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or_default();
    let dynamic = template.contains('*') || template.contains(":{") || template.contains(">{");
    if digits > 4
        || (dynamic && arguments.iter().any(|value| value.as_i64().is_some_and(|n| n.abs() > WIDEST)))
    {
        return Err(limit(format!("a format string asks for a width past {WIDEST}")));
    }
    let places = template.bytes().filter(|b| matches!(b, b'%' | b'{')).count();
    let mut longest = 0;
    let reaches_in = named || template.contains('[') || template.contains(".{") || template.contains("{0.");
    let printed = arguments
        .iter()
        .map(|value| {
            let container = is_list(value) || value.kind() == ValueKind::Map;
            if container && !reaches_in && !value.is_kwargs() {
                let text = python::str(state, value)?;
                longest = longest.max(text.len());
                return Ok(Value::from(text));
            }
            longest = longest.max(value.as_str().map_or(WIDEST as usize, str::len));
            Ok(value.clone())
        })
        .collect::<Result<Vec<_>, Error>>()?;
    afford(state, template.len().saturating_add(places.saturating_mul(longest)))?;
    minijinja::formatting::format(style, template, &printed).map(Value::from)
}

fn compare(state: &State, a: Value, op: &str, b: Value) -> Result<bool, Error> {
    use std::cmp::Ordering::{self, Equal, Greater, Less};
    let order: Option<Ordering> = match (number(&a), number(&b)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => Some(a.cmp(&b)),
        (Some(a), Some(b)) => a.float().partial_cmp(&b.float()),
        _ => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => Some(a.cmp(b)),
            _ if is_list(&a) && is_list(&b) && a.is_tuple() == b.is_tuple() => {
                charge(state, a.len().unwrap_or_default().min(b.len().unwrap_or_default()))?;
                a.partial_cmp(&b)
            }
            _ if a.is_undefined() || b.is_undefined() => return Err(unsupported(op, &a, &b)),
            _ => {
                let (a, b) = (type_name(&a), type_name(&b));
                return Err(error(format!("'{op}' not supported between instances of '{a}' and '{b}'")));
            }
        },
    };
    Ok(match op {
        "<" => order == Some(Less),
        "<=" => matches!(order, Some(Less | Equal)),
        ">" => order == Some(Greater),
        _ => matches!(order, Some(Greater | Equal)),
    })
}

fn contains(state: &State, needle: Value, container: Value) -> Result<bool, Error> {
    if let Some(text) = container.as_str() {
        charge(state, text.len() / SLOT)?;
        return match needle.as_str() {
            Some(part) => Ok(text.contains(part)),
            None => {
                let found = type_name(&needle);
                Err(error(format!("'in <string>' requires string as left operand, not {found}")))
            }
        };
    }
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::Map => Ok(container.as_object().is_some_and(|map| map.get_value(&needle).is_some())),
        ValueKind::Seq | ValueKind::Iterable => {
            for item in container.try_iter()?.checked() {
                charge(state, 2)?;
                if item? == needle {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Err(error(format!("argument of type '{}' is not iterable", type_name(&container)))),
    }
}

fn slice(state: &State, value: Value, start: Value, stop: Value, step: Value) -> Result<Value, Error> {
    let bound = |value: &Value| match number(value) {
        _ if value.is_none() => Ok(None),
        Some(Number::Int(n)) => Ok(Some(n.clamp(i64::MIN.into(), i64::MAX.into()))),
        _ => Err(error("slice indices must be integers or None")),
    };
    let (start, stop, step) = (bound(&start)?, bound(&stop)?, bound(&step)?.unwrap_or(1));
    if step == 0 {
        return Err(error("slice step cannot be zero"));
    }
    let pick = |length: usize| {
        let length = length as i128;
        // Python clamps to -1..length-1 when it walks down and to 0..length when it walks up
        let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
        let place = |bound: i128| (if bound < 0 { bound + length } else { bound }).clamp(low, high);
        let start = start.map_or(if step > 0 { low } else { high }, place);
        let stop = stop.map_or(if step > 0 { high } else { low }, place);
        let mut at = start;
        std::iter::from_fn(move || {
            let inside = if step > 0 { at < stop } else { at > stop };
            let current = usize::try_from(at).ok();
            at += step;
            current.filter(|_| inside)
        })
    };
    if let Some(text) = value.as_str() {
        afford(state, text.len().saturating_mul(4))?;
        if text.is_ascii() && step == 1 {
            let mut range = pick(text.len());
            let first = range.next();
            let part = first.and_then(|first| text.get(first..=range.last().unwrap_or(first)));
            return Ok(part.unwrap_or_default().into());
        }
        let chars: Vec<char> = text.chars().collect();
        return Ok(pick(chars.len()).filter_map(|at| chars.get(at)).collect::<String>().into());
    }
    if is_list(&value) {
        let list = items(state, &value)?;
        let part = pick(list.len()).filter_map(|at| list.get(at).cloned()).collect();
        return Ok(list_like(&value, part));
    }
    if value.is_undefined() {
        return Err(undefined("what is sliced here is undefined"));
    }
    Err(error(format!("'{}' object cannot be sliced", type_name(&value))))
}

/// Checks a new container: how deeply it nests, and how large it would print, are bounded by what fuel pays for.
///
/// Without this, `[x, x]` thirty times over would be a value of a gigabyte, and `[x]` a hundred thousand times a
/// value that overflows the stack when it is dropped.
pub(super) fn built(state: &State, value: Value) -> Result<Value, Error> {
    let remaining = state.fuel_levels().map_or(u64::MAX, |(_, remaining)| remaining);
    let mut budget = usize::try_from(remaining / 2).unwrap_or(usize::MAX);
    let start = budget;
    measure(&value, 0, &mut budget)?;
    state.consume_fuel(((start - budget) / 32) as u64)?;
    Ok(value)
}

fn measure(value: &Value, depth: usize, budget: &mut usize) -> Result<(), Error> {
    if depth > MAX_BUILT_DEPTH {
        return Err(limit(format!("a value nests more than {MAX_BUILT_DEPTH} deep")));
    }
    let cost = 1 + value.as_str().map_or(0, str::len) / SLOT;
    *budget = budget.checked_sub(cost).ok_or_else(|| limit("a list or dict grows too large"))?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable if value.len().is_some() => {
            value.try_iter()?.checked().try_for_each(|item| measure(&item?, depth + 1, budget))
        }
        ValueKind::Map if !engine_map(value) => {
            let Some(pairs) = value.as_object().and_then(|map| map.try_iter_pairs()) else { return Ok(()) };
            for (key, value) in pairs {
                measure(&key, depth + 1, budget)?;
                measure(&value, depth + 1, budget)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Deeper than any input may nest, so that an input in a few lists passes.
const MAX_BUILT_DEPTH: usize = python::MAX_DEPTH + 40;

fn engine_map(value: &Value) -> bool {
    is_engine_object(value, "Namespace") || is_engine_object(value, "Loop")
}

/// Checks a value that goes into a namespace, the one thing that lives on from one iteration to the next: as
/// [`built`] does, for filters build containers too, and that it holds no namespace, as a ring would never be freed.
fn stored(state: &State, value: Value) -> Result<Value, Error> {
    fn holds_namespace(value: &Value, budget: &mut usize) -> bool {
        *budget = budget.saturating_sub(1);
        match value.kind() {
            _ if *budget == 0 => false,
            ValueKind::Seq => {
                value.try_iter().is_ok_and(|mut items| items.any(|item| holds_namespace(&item, budget)))
            }
            ValueKind::Map => {
                engine_map(value)
                    || value
                        .as_object()
                        .and_then(|map| map.try_iter_pairs())
                        .is_some_and(|mut pairs| pairs.any(|(_, value)| holds_namespace(&value, budget)))
            }
            _ => false,
        }
    }
    let value = built(state, value)?;
    // the bound keeps a large value from costing its size twice
    if holds_namespace(&value, &mut 10_000) {
        return Err(error("a namespace cannot hold a namespace or a loop"));
    }
    Ok(value)
}
