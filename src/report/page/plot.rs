//! Points in a plane, drawn as SVG: something across, the divergence upwards on a logarithmic axis.

use std::fmt::Write as _;

use super::escape;

/// A plot.
pub struct Plot {
    /// What is across.
    pub x_title: String,
    /// The points.
    pub points: Vec<Point>,
    /// A value across, and its name: where the reference stands, whose divergence is nothing.
    pub mark: Option<(f64, String)>,
}

/// A point with its ranges.
pub struct Point {
    /// The label.
    pub name: String,
    /// Where it stands.
    pub x: f64,
    /// Its divergence.
    pub y: f64,
    /// From where to where it may stand.
    pub x_range: (f64, f64),
    /// From where to where its divergence may lie.
    pub y_range: (f64, f64),
    /// Whether it is on the front.
    pub front: bool,
    /// Whether it is the one to take.
    pub chosen: bool,
    /// What is told where a pointer rests on it.
    pub title: String,
}

/// A rectangle: left, top, right, bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Area(f64, f64, f64, f64);

impl Area {
    /// How much of it another covers, in square pixels.
    fn shared(self, other: Area) -> f64 {
        let across = self.2.min(other.2) - self.0.max(other.0);
        let down = self.3.min(other.3) - self.1.max(other.1);
        across.max(0.0) * down.max(0.0)
    }

    /// How much of it lies outside of another.
    fn outside(self, other: Area) -> f64 {
        (self.2 - self.0) * (self.3 - self.1) - self.shared(other)
    }
}

/// Around the plane: for numbers and titles.
const MARGINS: Area = Area(62.0, 26.0, 14.0, 46.0);
/// Half a dot with its ring.
const DOT: f64 = 10.0;
/// A letter of a label, and its height: of 12 pixels, rather too wide than too narrow.
const LETTER: (f64, f64) = (7.4, 14.0);

/// Where values lie on the picture.
struct Scale {
    plane: Area,
    x: (f64, f64),
    /// Logarithms to the base of 10.
    y: (f64, f64),
}

impl Scale {
    fn new(plot: &Plot, width: f64, height: f64) -> Self {
        let Area(left, top, right, bottom) = MARGINS;
        let range = |values: &mut dyn Iterator<Item = f64>| {
            values
                .filter(|value| value.is_finite())
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                    (low.min(value), high.max(value))
                })
        };
        let points = plot.points.iter();
        let (low, high) = range(&mut points.clone().flat_map(|point| [point.x_range.0, point.x_range.1]));
        // The reference is shown in its place where that does not push the others together.
        let mark = plot.mark.as_ref().map(|(x, _)| *x).filter(|&x| x <= 1.3 * high && x >= low / 1.3);
        let (low, high) = mark.map_or((low, high), |x| (low.min(x), high.max(x)));
        let air = if high > low { 0.12 * (high - low) } else { 0.5 * high.abs().max(1e-9) };
        // Bars may reach down to zero, which has no logarithm: points decide.
        let (least, most) = range(&mut points.clone().map(|point| point.y).filter(|&y| y > 0.0));
        let (least, most) = if least.is_finite() { (least, most) } else { (1e-6, 1e-3) };
        let bars = range(&mut points.flat_map(|point| [point.y_range.0.max(least / 3.0), point.y_range.1]));
        let (low_y, high_y) = (least.min(bars.0).max(least / 3.0), most.max(bars.1));
        let (low_y, high_y) = (libm::log10(low_y), libm::log10(high_y));
        let air_y = 0.1 * (high_y - low_y).max(0.5);
        Scale {
            plane: Area(left, top, width - right, height - bottom),
            x: ((low - air).max(0.0), high + air),
            y: (low_y - air_y, high_y + air_y),
        }
    }

    fn x(&self, value: f64) -> f64 {
        let part = (value - self.x.0) / (self.x.1 - self.x.0);
        self.plane.0 + part.clamp(0.0, 1.0) * (self.plane.2 - self.plane.0)
    }

    fn y(&self, value: f64) -> f64 {
        let part = (libm::log10(value.max(1e-300)) - self.y.0) / (self.y.1 - self.y.0);
        self.plane.3 - part.clamp(0.0, 1.0) * (self.plane.3 - self.plane.1)
    }

    /// Round values across.
    fn ticks_x(&self) -> Vec<f64> {
        let (low, high) = self.x;
        let most = ((self.plane.2 - self.plane.0) / 70.0).max(2.0);
        let rough = (high - low) / most;
        let power = libm::pow(10.0, libm::floor(libm::log10(rough)));
        let step = [1.0, 2.0, 5.0, 10.0].map(|part| part * power).into_iter().find(|&step| step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let first = libm::ceil(low / step);
        (0..40).map(|i| (first + f64::from(i)) * step).take_while(|&value| value <= high).collect()
    }

    /// Powers of ten upwards, and where those are few their doubles and fives.
    fn ticks_y(&self) -> Vec<f64> {
        let (low, high) = self.y;
        let parts: &[f64] = if high - low > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = (libm::floor(low) as i32..=libm::floor(high) as i32).take(40);
        let values =
            powers.flat_map(|power| parts.iter().map(move |part| part * libm::pow(10.0, f64::from(power))));
        values.filter(|&value| (low..=high).contains(&libm::log10(value))).collect()
    }
}

/// A round number without the dust of its computation.
fn tick(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-4 {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Where a label stands.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Label {
    /// The baseline's left end.
    at: (f64, f64),
    area: Area,
    /// Whether a line leads to its point.
    far: bool,
}

/// Finds a place for each point's label, beside it or farther away, where it covers neither another nor a dot.
fn labels(points: &[(f64, f64)], names: &[&str], bars: &[Area], plane: Area) -> Vec<Label> {
    let dots: Vec<Area> = points.iter().map(|&(x, y)| Area(x - DOT, y - DOT, x + DOT, y + DOT)).collect();
    let mut placed: Vec<Label> = Vec::new();
    for (&(x, y), name) in points.iter().zip(names) {
        let (width, height) = (LETTER.0 * name.chars().count() as f64, LETTER.1);
        let mut best: Option<(f64, Label)> = None;
        for ring in 0..8 {
            let away = DOT + 1.0 + 15.0 * f64::from(ring);
            let beside = y - height / 2.0;
            let (above, below) = (y - away - height, y + away);
            let middle = x - width / 2.0;
            let (left, right) = (x - away - width, x + away);
            // Right and left first; then above and below; then the corners.
            let corners = [
                (right, beside),
                (left, beside),
                (middle, above),
                (middle, below),
                (x + 4.0, above),
                (x + 4.0, below),
                (x - 4.0 - width, above),
                (x - 4.0 - width, below),
            ];
            for (order, (left, top)) in corners.into_iter().enumerate() {
                let area = Area(left, top, left + width, top + height);
                let others = placed.iter().map(|label| area.shared(label.area)).sum::<f64>();
                let covered = others + dots.iter().map(|dot| area.shared(*dot)).sum::<f64>();
                let crossed = bars.iter().map(|bar| area.shared(*bar)).sum::<f64>();
                let cost = 1e3 * (covered + area.outside(plane))
                    + 2.0 * crossed
                    + 40.0 * f64::from(ring)
                    + order as f64;
                let label = Label { at: (left, top + height - 3.0), area, far: ring > 0 };
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, label));
                }
            }
        }
        placed.extend(best.map(|(_, label)| label));
    }
    placed
}

impl Plot {
    /// The picture, of so many pixels.
    pub fn svg(&self, what: &str, width: f64, height: f64) -> String {
        let scale = Scale::new(self, width, height);
        let mut out =
            format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n", escape(what));
        self.grid(&scale, &mut out);
        let mut bars = self.front(&scale, &mut out);
        let places: Vec<(f64, f64)> =
            self.points.iter().map(|point| (scale.x(point.x), scale.y(point.y))).collect();
        for (point, &(x, y)) in self.points.iter().zip(&places) {
            let (left, right) = (scale.x(point.x_range.0), scale.x(point.x_range.1));
            let (top, bottom) = (scale.y(point.y_range.1), scale.y(point.y_range.0));
            for (length, from, to) in
                [(right - left, (left, y), (right, y)), (bottom - top, (x, top), (x, bottom))]
            {
                // What would be hidden by the dot is not drawn.
                if length > 2.0 {
                    line(&mut out, "bar", from, to);
                    bars.push(Area(from.0 - 1.0, from.1 - 1.0, to.0 + 1.0, to.1 + 1.0));
                }
            }
        }
        for (point, (x, y)) in self.points.iter().zip(&places) {
            let class = if point.front { "dot front" } else { "dot" };
            let title = escape(&point.title);
            let _ = writeln!(
                out,
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"><title>{title}</title></circle>"
            );
            if point.chosen {
                let _ = writeln!(out, "<circle class=\"ring\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"9\"/>");
            }
        }
        if self.mark.is_some() {
            // The reference's name stands at the foot.
            let Area(left, _, right, bottom) = scale.plane;
            bars.push(Area(left, bottom - 20.0, right, bottom - 4.0));
        }
        let names: Vec<&str> = self.points.iter().map(|point| point.name.as_str()).collect();
        let labels = labels(&places, &names, &bars, scale.plane);
        for ((point, place), label) in self.points.iter().zip(&places).zip(labels) {
            let Area(left, top, right, bottom) = label.area;
            if label.far {
                let near = (place.0.clamp(left, right), place.1.clamp(top, bottom));
                line(&mut out, "leader", *place, near);
            }
            let class = if point.chosen { "name chosen" } else { "name" };
            let (x, y) = ((left + right) / 2.0, label.at.1);
            let _ = writeln!(
                out,
                "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
                escape(&point.name)
            );
        }
        out.push_str("</svg>");
        out
    }

    fn grid(&self, scale: &Scale, out: &mut String) {
        let Area(left, top, right, bottom) = scale.plane;
        for value in scale.ticks_x() {
            let x = scale.x(value);
            line(out, "grid", (x, top), (x, bottom));
            let _ = writeln!(
                out,
                "<text class=\"tick x\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 17.0,
                tick(value)
            );
        }
        for value in scale.ticks_y() {
            let y = scale.y(value);
            line(out, "grid", (left, y), (right, y));
            let _ = writeln!(
                out,
                "<text class=\"tick y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                left - 8.0,
                y + 4.0,
                tick(value)
            );
        }
        line(out, "axis", (left, bottom), (right, bottom));
        let (middle, below) = ((left + right) / 2.0, bottom + 38.0);
        let title = escape(&self.x_title);
        let _ = writeln!(out, "<text class=\"title x\" x=\"{middle:.1}\" y=\"{below:.1}\">{title}</text>");
        let _ = writeln!(
            out,
            "<text class=\"title\" x=\"4\" y=\"14\">divergence in nats (further down is nearer)</text>"
        );
        let Some((value, name)) = &self.mark else { return };
        let name = escape(name);
        if (scale.x.0..=scale.x.1).contains(value) {
            let x = scale.x(*value);
            line(out, "mark", (x, top), (x, bottom));
            let (class, x) = if x > middle { ("right", x - 5.0) } else { ("left", x + 5.0) };
            let _ = writeln!(
                out,
                "<text class=\"mark {class}\" x=\"{x:.1}\" y=\"{:.1}\">{name}</text>",
                bottom - 8.0
            );
        } else if *value > scale.x.1 {
            let shown = tick((value * 100.0).round() / 100.0);
            let _ = writeln!(
                out,
                "<text class=\"mark right\" x=\"{right:.1}\" y=\"{:.1}\">{name}: {shown} →</text>",
                bottom - 8.0
            );
        } else {
            let shown = tick((value * 10.0).round() / 10.0);
            let _ = writeln!(
                out,
                "<text class=\"mark left\" x=\"{:.1}\" y=\"{:.1}\">← {name}: {shown}</text>",
                left + 4.0,
                bottom - 8.0
            );
        }
    }

    /// The line through the points on the front; gives what it covers, in small pieces.
    fn front(&self, scale: &Scale, out: &mut String) -> Vec<Area> {
        let mut front: Vec<(f64, f64)> = self
            .points
            .iter()
            .filter(|point| point.front)
            .map(|point| (scale.x(point.x), scale.y(point.y)))
            .collect();
        front.sort_by(|a, b| a.0.total_cmp(&b.0));
        let places: Vec<String> = front.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(out, "<polyline class=\"through\" points=\"{}\"/>", places.join(" "));
        const PIECE: f64 = 4.0;
        let mut pieces = Vec::new();
        for (&(x, y), &(next_x, next_y)) in front.iter().zip(front.iter().skip(1)) {
            let (across, down) = (next_x - x, next_y - y);
            let count = (libm::hypot(across, down) / PIECE) as usize;
            pieces.extend((0..count).map(|piece| {
                let part = (piece as f64 + 0.5) / count as f64;
                let (x, y) = (x + part * across, y + part * down);
                Area(x - PIECE / 2.0, y - PIECE / 2.0, x + PIECE / 2.0, y + PIECE / 2.0)
            }));
        }
        pieces
    }
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANE: Area = Area(62.0, 26.0, 344.0, 334.0);

    /// Labels of points, after a check that none covers another, or a dot, or leaves the plane.
    fn placed(points: &[(f64, f64)]) -> Vec<Label> {
        let names: Vec<String> = (0..points.len()).map(|i| format!("IQ{i}_XXS")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = labels(points, &names, &[], PLANE);
        for (i, label) in found.iter().enumerate() {
            assert!(label.area.outside(PLANE) < 1e-9, "{i}: {label:?}");
            assert!(found[..i].iter().all(|other| label.area.shared(other.area) == 0.0), "{i}: {found:?}");
            for &(x, y) in points {
                assert_eq!(
                    label.area.shared(Area(x - DOT, y - DOT, x + DOT, y + DOT)),
                    0.0,
                    "{i}: {label:?}"
                );
            }
        }
        found
    }

    #[test]
    fn a_lonely_point_has_its_label_to_the_right_unless_the_edge_is_there() {
        let [middle] = placed(&[(200.0, 100.0)])[..] else { panic!("one") };
        assert!(middle.area.0 == 211.0 && !middle.far);
        let [edge] = placed(&[(340.0, 100.0)])[..] else { panic!("one") };
        assert!(edge.area.2 == 329.0 && !edge.far);
    }

    #[test]
    fn labels_of_points_close_together_do_not_collide() {
        // A heap of ten, a row of ten, and twelve down the right edge.
        let heap: Vec<_> =
            (0..10).map(|i| (180.0 + f64::from(i * 7 % 5) * 6.0, 150.0 + f64::from(i) * 4.0)).collect();
        let row: Vec<_> = (0..10).map(|i| (90.0 + f64::from(i) * 25.0, 200.0)).collect();
        let edge: Vec<_> = (0..12).map(|i| (338.0, 40.0 + f64::from(i) * 22.0)).collect();
        for points in [heap, row, edge] {
            assert_eq!(placed(&points).len(), points.len());
        }
    }

    fn plot(values: &[(f64, f64)]) -> Plot {
        let points = values.iter().map(|&(x, y)| Point {
            name: "p".into(),
            x,
            y,
            x_range: (x, x),
            y_range: (y, y),
            front: true,
            chosen: false,
            title: String::new(),
        });
        Plot { x_title: "x".into(), points: points.collect(), mark: Some((16.0, "F16".into())) }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::new(&plot(&[(2.0, 0.001), (8.0, 0.5)]), 860.0, 420.0);
        assert_eq!(
            scale.ticks_x().iter().map(|&x| tick(x)).collect::<Vec<_>>(),
            ["2", "3", "4", "5", "6", "7", "8"]
        );
        assert_eq!(scale.ticks_y().iter().map(|&y| tick(y)).collect::<Vec<_>>(), ["0.001", "0.01", "0.1"]);
        let narrow = Scale::new(&plot(&[(2.0, 0.02), (8.0, 0.05)]), 358.0, 380.0);
        assert_eq!(narrow.ticks_y().iter().map(|&y| tick(y)).collect::<Vec<_>>(), ["0.02", "0.05"]);
        assert_eq!((tick(0.00002), tick(0.0), tick(2.5)), ("2e-5".into(), "0".into(), "2.5".into()));
    }

    #[test]
    fn values_without_a_logarithm_and_single_ones_are_drawn() {
        for values in [&[(1.0, 0.0)][..], &[(0.0, f64::NAN)], &[(5.0, 0.1)], &[(5.0, 0.1), (5.0, 0.1)]] {
            let svg = plot(values).svg("a plot", 358.0, 380.0);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{values:?}: {svg}");
            assert_eq!(svg.matches("<circle").count(), values.len());
        }
    }

    #[test]
    fn a_reference_far_away_is_told_at_the_edge() {
        assert!(plot(&[(2.0, 0.1), (8.0, 0.01)]).svg("", 858.0, 420.0).contains("F16: 16 →"));
        assert!(plot(&[(2.0, 0.1), (14.0, 0.01)]).svg("", 858.0, 420.0).contains("<line class=\"mark\""));
        assert!(plot(&[(24.0, 0.1), (40.0, 0.01)]).svg("", 858.0, 420.0).contains("← F16: 16"));
    }
}
