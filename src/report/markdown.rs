//! `report.md`.

use std::fmt::Write as _;

use super::columns::COLUMNS;
use super::data::{Cell, Report};
use super::notes::notes;
use super::text::bits;

/// The report in Markdown.
pub fn markdown(report: &Report) -> String {
    let mut out = format!("# {}: quantizations compared\n\n", escape(&report.title));
    for reason in &report.recommendation.reasons {
        let _ = writeln!(out, "{}", escape(reason));
    }
    out.push('\n');
    let names = COLUMNS.iter().map(|column| column.name);
    let _ = writeln!(out, "| {} |", names.collect::<Vec<_>>().join(" | "));
    let _ = writeln!(out, "|---|{}", "---:|".repeat(COLUMNS.len() - 1));
    for cell in report.all() {
        let values = COLUMNS.iter().map(|column| {
            let field = (column.value)(cell);
            let small = match field.small.as_str() {
                "" => String::new(),
                small if small.starts_with('±') => format!(" {small}"),
                small => format!(" ({small})"),
            };
            escape(&field.text) + &escape(&small)
        });
        let _ = writeln!(out, "| {} |", values.collect::<Vec<_>>().join(" | "));
    }
    out.push_str("\n## Bits by tensor type\n\n| model | type | tensors | weights | bytes | bits per weight |\n|---|---|---:|---:|---:|---:|\n");
    for cell in report.all() {
        types(&mut out, cell);
    }
    out.push_str("\n## Notes\n\n");
    for note in notes(report) {
        let _ = writeln!(out, "- {}", escape(&note));
    }
    out
}

fn types(out: &mut String, cell: &Cell) {
    for share in &cell.size.types {
        let (name, ty) = (escape(&cell.name), &share.ty);
        let _ = writeln!(
            out,
            "| {name} | {ty} | {} | {} | {} | {} |",
            share.tensors,
            share.weights,
            share.bytes,
            bits(share.bits_per_weight()),
        );
    }
}

/// Text that Markdown and its HTML leave alone.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '|' | '*' | '`' | '\\' | '[' | ']' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn every_cell_has_a_row_of_every_column() {
        let text = markdown(&sample::report());
        assert!(text.starts_with("# Sample &lt;4B>: quantizations compared\n\nTake Q4_0 "), "{text}");
        assert!(text.contains("| 210 (202 to 216) |") && text.contains("| 0.0450 ± 0.0020 |"), "{text}");
        let columns = COLUMNS.len();
        let table: Vec<&str> = text.lines().skip_while(|line| !line.starts_with('|')).take(9).collect();
        assert!(table.iter().all(|row| row.matches('|').count() == columns + 1), "{table:#?}");
        assert!(table[2].contains("F16") && table[8].contains("Q2_K"), "{table:#?}");
        assert_eq!(escape("a|b`c\n<d>"), "a\\|b\\`c &lt;d>");
    }
}
