//! `report.html`: one file that needs no other, and works without its script.

mod heat;
mod plot;

use std::fmt::Write as _;

use super::columns::{COLUMNS, Field};
use super::data::{Cell, Report};
use super::notes::notes;
use super::text::{bits, measured, rate, size};
use plot::{Plot, Point};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Half the width of an interval that holds the true value in 95 of 100 cases, in standard errors.
const INTERVAL: f64 = 1.96;

/// What the marks of the plots mean.
const LEGEND: &str = r#"<p class="legend"><span><svg class="key" viewBox="0 0 14 14" aria-hidden="true"><circle class="dot front" cx="7" cy="7" r="5"/></svg> on the front</span>
<span><svg class="key" viewBox="0 0 14 14" aria-hidden="true"><circle class="dot" cx="7" cy="7" r="5"/></svg> beaten by another</span>
<span><svg class="key" viewBox="0 0 14 14" aria-hidden="true"><circle class="dot front" cx="7" cy="7" r="3"/><circle class="ring" cx="7" cy="7" r="6"/></svg> recommended</span>
Bars: the divergence's 95 % interval, the slowest to the fastest run.</p>
"#;

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    let title = escape(&report.title);
    let _ = write!(
        out,
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: quantizations compared</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<header>
<div>
<h1>{title}</h1>
<p>{} quantizations beside {}: how large, how fast, how near to it</p>
</div>
<button id="theme" type="button" hidden>dark</button>
</header>
"#,
        report.cells.len(),
        escape(&report.reference.name),
    );
    if let Some((first, rest)) = report.recommendation.reasons.split_first() {
        let (first, rest) = (escape(first), escape(&rest.join(" ")));
        let _ = write!(out, "<section class=\"choice\">\n<h2>{first}</h2>\n<p>{rest}</p>\n</section>\n");
    }
    plots(report, &mut out);
    table(report, &mut out);
    heat::section(report, &mut out);
    types(report, &mut out);
    out.push_str(
        "<section>\n<h2>What the figures mean, and how to get them again</h2>\n<ol class=\"notes\">\n",
    );
    for note in notes(report) {
        let _ = writeln!(out, "<li>{}</li>", escape(&note));
    }
    out.push_str("</ol>\n</section>\n</main>\n");
    // No string of the report may end the element.
    let json = serde_json::to_string(report).unwrap_or_default().replace('<', "\\u003c");
    let _ = write!(
        out,
        "<script type=\"application/json\" id=\"report\">{json}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    );
    out
}

/// A cell in a plot, at `x` with its range.
fn point(report: &Report, cell: &Cell, (x, x_range): (f64, (f64, f64)), front: bool) -> Option<Point> {
    let found = cell.quality.divergence.as_ref()?.mean;
    let half = INTERVAL * found.error;
    let mut title = format!(
        "{}: {}, {} bits per weight, divergence {} nats",
        cell.name,
        size(cell.size.bytes),
        bits(cell.size.bits_per_weight),
        measured(found.value, found.error),
    );
    if let Some(speed) = &cell.speed {
        let _ = write!(title, ", {} tokens/s in generation", rate(speed.generate.median));
    }
    Some(Point {
        name: cell.name.clone(),
        x,
        y: found.value,
        x_range,
        y_range: (found.value - half, found.value + half),
        front,
        chosen: report.recommendation.choice.as_ref() == Some(&cell.name),
        title,
    })
}

fn plots(report: &Report, out: &mut String) {
    let (unit, scale) = match report.reference.size.bytes {
        bytes if bytes >= 1 << 30 => ("GiB", f64::from(1 << 30)),
        _ => ("MiB", f64::from(1 << 20)),
    };
    let weight = |cell: &Cell| cell.size.bytes as f64 / scale;
    let cells = report.cells.iter();
    let by_size = Plot {
        x_title: format!("size in {unit} (further left is smaller)"),
        points: cells
            .clone()
            .filter_map(|cell| {
                point(report, cell, (weight(cell), (weight(cell), weight(cell))), cell.on_size_front)
            })
            .collect(),
        mark: Some((weight(&report.reference), report.reference.name.clone())),
    };
    let speed = |cell: &Cell| cell.speed.as_ref().map(|speed| speed.generate.clone());
    let by_speed = Plot {
        x_title: "tokens/s in generation (further right is faster)".to_owned(),
        points: cells
            .filter_map(|cell| {
                let rate = speed(cell)?;
                point(report, cell, (rate.median, (rate.least, rate.most)), cell.on_speed_front)
            })
            .collect(),
        mark: speed(&report.reference).map(|rate| (rate.median, report.reference.name.clone())),
    };
    for (plot, title) in [(by_size, "Size against divergence"), (by_speed, "Speed against divergence")] {
        if plot.points.is_empty() {
            continue;
        }
        // Two widths, of which the page shows the one that fits.
        let _ = write!(
            out,
            "<section>\n<h2>{title}</h2>\n<figure>\n<div class=\"wide\">{}</div>\n<div class=\"narrow\">{}</div>\n</figure>\n\
             </section>\n",
            plot.svg(title, 860.0, 420.0),
            plot.svg(title, 358.0, 380.0),
        );
    }
    out.push_str(LEGEND);
}

fn table(report: &Report, out: &mut String) {
    out.push_str(
        "<section>\n<h2>All figures</h2>\n<div class=\"scroll broad\">\n<table id=\"figures\">\n<thead><tr>",
    );
    for column in &COLUMNS {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(column.name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for cell in report.all() {
        let chosen = report.recommendation.choice.as_ref() == Some(&cell.name);
        out.push_str(if chosen { "<tr class=\"chosen\">" } else { "<tr>" });
        for (index, column) in COLUMNS.iter().enumerate() {
            let Field { text, small, key } = (column.value)(cell);
            let (text, small) = (escape(&text), escape(&small));
            if index == 0 {
                let _ = write!(out, "<th scope=\"row\">{text}</th>");
                continue;
            }
            let key = if key.is_finite() { format!(" data-key=\"{key}\"") } else { String::new() };
            let _ = write!(out, "<td{key}>{text}");
            if !small.is_empty() {
                let _ = write!(out, "<small>{small}</small>");
            }
            out.push_str("</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n</section>\n");
}

fn types(report: &Report, out: &mut String) {
    out.push_str("<section>\n<h2>Bits by tensor type</h2>\n");
    for cell in report.all() {
        let _ = write!(
            out,
            "<details>\n<summary>{}: {} bits per weight</summary>\n<div class=\"scroll\">\n<table>\n<thead><tr><th>type</th>\
             <th>tensors</th><th>weights</th><th>bytes</th><th>bits per weight</th></tr></thead>\n<tbody>\n",
            escape(&cell.name),
            bits(cell.size.bits_per_weight),
        );
        for share in &cell.size.types {
            let _ = writeln!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&share.ty),
                share.tensors,
                share.weights,
                share.bytes,
                bits(share.bits_per_weight()),
            );
        }
        out.push_str("</tbody>\n</table>\n</div>\n</details>\n");
    }
    out.push_str("</section>\n");
}

/// Text that means nothing to HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// The names of all elements, after a check that each is closed in its turn.
    fn elements(html: &str) -> Vec<String> {
        const VOID: [&str; 1] = ["meta"];
        let (mut open, mut all): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let mut rest = html.strip_prefix("<!DOCTYPE html>").unwrap();
        while let Some(at) = rest.find('<') {
            rest = &rest[at + 1..];
            let end = rest.find('>').unwrap();
            let tag = &rest[..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "{rest:.200}");
                continue;
            }
            let name = tag.split([' ', '/']).next().unwrap().to_owned();
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if name == "script" || name == "style" {
                rest = &rest[rest.find(&format!("</{name}>")).unwrap()..];
            }
            let closed = tag.ends_with('/');
            if !closed && !VOID.contains(&name.as_str()) {
                open.push(name.clone());
            }
            all.push(name);
        }
        assert!(open.is_empty(), "{open:?}");
        all
    }

    #[test]
    fn the_page_is_whole_and_needs_nothing_else() {
        let html = page(&sample::report());
        let all = elements(&html);
        assert_eq!(all.iter().filter(|name| *name == "figure").count(), 2 + sample::report().cells.len());
        for name in ["link", "img", "image", "iframe", "object", "embed", "base", "a", "use"] {
            assert!(!all.iter().any(|one| one == name), "{name}");
        }
        for mark in ["http:", "https:", "://", "src=", "href", "@import", "url("] {
            assert!(!html.contains(mark), "{mark}");
        }
    }

    #[test]
    fn text_from_files_stays_text() {
        let mut report = sample::report();
        report.title = "</title><script>alert(1)</script>".to_owned();
        report.provenance.text.path = "\"><img src=x onerror=alert(1)>".to_owned();
        report.cells[0].name = "</text></svg><b>&".to_owned();
        report.cells[0].tensors[0].kind = "<i>".to_owned();
        let all = elements(&page(&report));
        assert_eq!(all.iter().filter(|name| *name == "script").count(), 2);
        assert!(!all.iter().any(|name| ["img", "b", "i"].contains(&name.as_str())));
    }

    #[test]
    fn the_page_shows_and_holds_the_figures() {
        let report = sample::report();
        let html = page(&report);
        for cell in report.all() {
            for column in &COLUMNS {
                let text = escape(&(column.value)(cell).text);
                assert!(html.contains(&text), "{}: {text}", column.name);
            }
        }
        let (_, rest) = html.split_once("id=\"report\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        assert_eq!(serde_json::from_str::<Report>(json).unwrap(), report);
    }
}
