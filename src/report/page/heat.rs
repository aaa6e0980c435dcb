//! The errors of a model's matrices: layers one way, what the matrices do the other.

use std::fmt::Write as _;

use super::super::data::{Cell, Report, TensorError};
use super::super::text::number;
use super::escape;

/// Where a shade ends and the next, darker one begins: relative errors.
const SHADES: [f64; 6] = [0.003, 0.01, 0.02, 0.04, 0.08, 0.16];

/// How wide a matrix must be drawn for its number to find room.
const ROOM: f64 = 46.0;

fn shade(error: f64) -> usize {
    SHADES.iter().filter(|&&end| error >= end).count()
}

/// The section of the page.
pub fn section(report: &Report, out: &mut String) {
    let cells: Vec<&Cell> = report.cells.iter().filter(|cell| !cell.tensors.is_empty()).collect();
    let Some(first) = cells.first() else { return };
    let open = report.recommendation.choice.as_ref().unwrap_or(&first.name);
    let _ = write!(
        out,
        "<section>\n<h2>Error of each matrix</h2>\n<p>The root mean square of the errors of a matrix's weights, as a part of that \
         of the weights of {}: by layer, and by what the matrix does.</p>\n<p class=\"legend\">",
        escape(&report.reference.name),
    );
    for (index, end) in SHADES.iter().enumerate() {
        let _ = writeln!(out, "<span>{}below {end}</span>", patch(index));
    }
    let _ = writeln!(out, "<span>{}more</span></p>", patch(SHADES.len()));
    for cell in cells {
        let open = if cell.name == *open { " open" } else { "" };
        let name = escape(&cell.name);
        let _ = write!(out, "<details{open}>\n<summary>{name}</summary>\n<figure>\n");
        let map = Map::new(&cell.tensors);
        let _ = write!(
            out,
            "<div class=\"wide\">{}</div>\n<div class=\"narrow\">{}</div>\n",
            map.across(&name),
            map.down(&name)
        );
        out.push_str("</figure>\n</details>\n");
    }
    out.push_str("</section>\n");
}

fn patch(shade: usize) -> String {
    format!(
        "<svg class=\"key\" viewBox=\"0 0 14 14\" aria-hidden=\"true\"><rect class=\"h{shade}\" width=\"14\" height=\"14\" rx=\"2\"/></svg> "
    )
}

/// What is to be drawn.
struct Map<'a> {
    /// In the order of the file.
    kinds: Vec<&'a str>,
    layers: Vec<u32>,
    inside: Vec<&'a TensorError>,
    outside: Vec<&'a TensorError>,
}

impl<'a> Map<'a> {
    fn new(tensors: &'a [TensorError]) -> Self {
        let (inside, outside): (Vec<_>, Vec<_>) = tensors.iter().partition(|tensor| tensor.layer.is_some());
        let mut kinds: Vec<&str> = Vec::new();
        for tensor in &inside {
            if !kinds.contains(&tensor.kind.as_str()) {
                kinds.push(&tensor.kind);
            }
        }
        let mut layers: Vec<u32> = inside.iter().filter_map(|tensor| tensor.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        Map { kinds, layers, inside, outside }
    }

    /// The place of each matrix: its layer's and its kind's number.
    fn places(&self) -> impl Iterator<Item = (f64, f64, &'a TensorError)> {
        self.inside.iter().filter_map(|tensor| {
            let layer = self.layers.binary_search(&tensor.layer?).ok()?;
            let kind = self.kinds.iter().position(|kind| *kind == tensor.kind)?;
            Some((layer as f64, kind as f64, *tensor))
        })
    }

    /// Layers from left to right, for wide pages.
    fn across(&self, name: &str) -> String {
        const WIDTH: f64 = 860.0;
        let letters = self.kinds.iter().chain(&self.outside_kinds()).map(|kind| kind.chars().count()).max();
        let left = (7.4 * letters.unwrap_or(0) as f64 + 12.0).min(260.0);
        let (wide, high) = (((WIDTH - left) / self.layers.len().max(1) as f64).clamp(2.0, 52.0), 22.0);
        let foot = high * self.kinds.len() as f64 + 18.0;
        let height = foot + 8.0 + high * self.outside.len() as f64;
        let mut out = open(WIDTH, height, name);
        for (row, kind) in self.kinds.iter().enumerate() {
            label(&mut out, "heat y", left - 8.0, high * row as f64 + 15.0, kind);
        }
        for (layer, kind, tensor) in self.places() {
            let (x, y) = (left + wide * layer, high * kind);
            square(&mut out, (x, y), (wide, high), tensor);
            if wide >= ROOM {
                let class = if shade(tensor.error) < 4 { "heat in" } else { "heat in dark" };
                let percent = format!("{:.1} %", 100.0 * tensor.error);
                label(&mut out, class, x + wide / 2.0, y + 15.0, &percent);
            }
        }
        // Numbers of layers where they have room.
        let step = libm::ceil(26.0 / wide) as usize;
        for (column, layer) in self.layers.iter().enumerate().step_by(step.max(1)) {
            let x = left + wide * (column as f64 + 0.5);
            label(&mut out, "heat x", x, foot - 4.0, &layer.to_string());
        }
        for (row, tensor) in self.outside.iter().enumerate() {
            let y = foot + 8.0 + high * row as f64;
            label(&mut out, "heat y", left - 8.0, y + 15.0, &tensor.kind);
            square(&mut out, (left, y), (40.0, high), tensor);
            label(&mut out, "heat", left + 48.0, y + 15.0, &number(tensor.error));
        }
        out + "</svg>"
    }

    /// Layers from top to bottom, for narrow pages.
    fn down(&self, name: &str) -> String {
        const WIDTH: f64 = 358.0;
        let (left, high) = (34.0, 16.0);
        let wide = ((WIDTH - left - 24.0) / self.kinds.len().max(1) as f64).clamp(6.0, 40.0);
        let letters = self.kinds.iter().map(|kind| kind.chars().count()).max().unwrap_or(0);
        let top = if self.kinds.is_empty() { 4.0 } else { (6.4 * letters as f64 + 10.0).min(150.0) };
        let foot = top + high * self.layers.len() as f64 + 10.0;
        let mut out = open(WIDTH, foot + 22.0 * self.outside.len() as f64 + 2.0, name);
        for (column, kind) in self.kinds.iter().enumerate() {
            let (x, y) = (left + wide * (column as f64 + 0.5) + 4.0, top - 6.0);
            let kind = escape(kind);
            let _ = writeln!(
                out,
                "<text class=\"heat\" transform=\"translate({x:.1} {y:.1}) rotate(-75)\">{kind}</text>"
            );
        }
        for (row, layer) in self.layers.iter().enumerate() {
            label(&mut out, "heat y", left - 6.0, top + high * row as f64 + 12.0, &layer.to_string());
        }
        for (layer, kind, tensor) in self.places() {
            square(&mut out, (left + wide * kind, top + high * layer), (wide, high), tensor);
        }
        for (row, tensor) in self.outside.iter().enumerate() {
            let y = foot + 22.0 * row as f64;
            square(&mut out, (left, y), (28.0, 18.0), tensor);
            label(
                &mut out,
                "heat",
                left + 36.0,
                y + 13.0,
                &format!("{}  {}", tensor.kind, number(tensor.error)),
            );
        }
        out + "</svg>"
    }

    fn outside_kinds(&self) -> Vec<&'a str> {
        self.outside.iter().map(|tensor| tensor.kind.as_str()).collect()
    }
}

fn open(width: f64, height: f64, name: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width} {height:.0}\" role=\"img\" aria-label=\"Errors of the matrices of {name}\">\n"
    )
}

fn label(out: &mut String, class: &str, x: f64, y: f64, text: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(text));
}

fn square(out: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), tensor: &TensorError) {
    // Some air between, where there is room for it.
    let air = if width > 8.0 { 1.0 } else { 0.0 };
    let place = tensor.layer.map_or_else(String::new, |layer| format!("layer {layer}, "));
    let _ = writeln!(
        out,
        "<rect class=\"h{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{place}{}: {} ({})</title></rect>",
        shade(tensor.error),
        width - air,
        height - 1.0,
        escape(&tensor.kind),
        number(tensor.error),
        escape(&tensor.ty),
    );
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn shades_grow_with_the_error() {
        assert_eq!([0.0, 0.003, 0.015, 0.03, 0.05, 0.1, 0.5].map(shade), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn each_matrix_is_drawn_once_in_each_width() {
        let cell = sample::report().cells.remove(3);
        let map = Map::new(&cell.tensors);
        assert_eq!(
            (map.kinds.as_slice(), map.layers.len()),
            (&["attn_q", "attn_k", "ffn_up", "ffn_down"][..], 24)
        );
        for svg in [map.across("x"), map.down("x")] {
            assert_eq!(svg.matches("<rect").count(), cell.tensors.len());
            assert_eq!(svg.matches("<title>layer 23, ").count(), 4);
            assert!(svg.contains("output"));
        }
        // No layers at all is drawn, too.
        assert!(Map::new(&cell.tensors[96..]).across("x").contains("<rect"));
    }
}
