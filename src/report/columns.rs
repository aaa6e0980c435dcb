//! The table of all figures: the one list of its columns, for the page and for Markdown.

use super::data::{Cell, Divergence, Measured, Rate};
use super::text::{bits, measured, number, percent, rate, size};

/// A column.
pub struct Column {
    /// Its head.
    pub name: &'static str,
    /// What it says of a cell.
    pub value: fn(&Cell) -> Field,
}

/// What stands in a row.
pub struct Field {
    /// The figure.
    pub text: String,
    /// What is told below it.
    pub small: String,
    /// What rows are sorted by; not a number where there is nothing.
    pub key: f64,
}

impl Field {
    fn plain(text: String, key: f64) -> Self {
        Field { text, small: String::new(), key }
    }

    fn none() -> Self {
        Field::plain("–".to_owned(), f64::NAN)
    }

    fn measured(found: Measured) -> Self {
        let text = measured(found.value, found.error);
        let (text, small) = text.split_once(' ').unwrap_or((&text, ""));
        Field { text: text.to_owned(), small: small.to_owned(), key: found.value }
    }

    /// With digits beyond the error, which is far larger than the errors of differences between models.
    fn fine(found: Measured) -> Self {
        let (text, small) = (format!("{:.4}", found.value), format!("± {:.4}", found.error));
        Field { text, small, key: found.value }
    }

    fn rate(found: Option<&Rate>) -> Self {
        let Some(found) = found else { return Field::none() };
        let small = format!("{} to {}", rate(found.least), rate(found.most));
        Field { text: rate(found.median), small, key: found.median }
    }

    fn divergence(cell: &Cell, field: fn(&Divergence) -> Field) -> Self {
        cell.quality.divergence.as_ref().map_or_else(Field::none, field)
    }
}

/// The columns.
pub const COLUMNS: [Column; 13] = [
    Column { name: "model", value: |cell| Field::plain(cell.name.clone(), f64::NAN) },
    Column { name: "size", value: |cell| Field::plain(size(cell.size.bytes), cell.size.bytes as f64) },
    Column {
        name: "bits per weight",
        value: |cell| Field::plain(bits(cell.size.bits_per_weight), cell.size.bits_per_weight),
    },
    Column {
        name: "memory (measured)",
        value: |cell| Field {
            text: size(cell.memory),
            small: cell.peak.map(size).unwrap_or_default(),
            key: cell.memory as f64,
        },
    },
    Column {
        name: "prompt, tokens/s",
        value: |cell| Field::rate(cell.speed.as_ref().map(|speed| &speed.prompt)),
    },
    Column {
        name: "generation, tokens/s",
        value: |cell| Field::rate(cell.speed.as_ref().map(|speed| &speed.generate)),
    },
    Column { name: "perplexity", value: |cell| Field::fine(cell.quality.perplexity) },
    Column { name: "bits per byte", value: |cell| Field::fine(cell.quality.bits_per_byte) },
    Column {
        name: "divergence, nats",
        value: |cell| Field::divergence(cell, |found| Field::measured(found.mean)),
    },
    Column {
        name: "99 % below",
        value: |cell| Field::divergence(cell, |found| Field::plain(number(found.p99), found.p99)),
    },
    Column {
        name: "greatest",
        value: |cell| Field::divergence(cell, |found| Field::plain(number(found.max), found.max)),
    },
    Column {
        name: "same token",
        value: |cell| {
            Field::divergence(cell, |found| {
                let Measured { value, error } = found.same_top;
                Field { text: percent(value), small: format!("± {:.2} %", 100.0 * error), key: value }
            })
        },
    },
    Column {
        name: "on the front of",
        value: |cell| {
            let fronts = [(cell.on_size_front, "size"), (cell.on_speed_front, "speed")];
            let on: Vec<&str> = fronts.into_iter().filter(|(on, _)| *on).map(|(_, front)| front).collect();
            match on.as_slice() {
                [] => Field::none(),
                on => Field::plain(on.join(", "), on.len() as f64),
            }
        },
    },
];
