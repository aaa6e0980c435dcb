//! Which models are on the front, and which one to take.

use super::data::{Cell, Divergence, Recommendation, Speed, Use};
use super::text::{percent, size, times};

/// Divergences in words, in nats a position: each word holds below its number. Perplexity grows by about as many percent as
/// there are hundredths of a nat.
const WORDS: [(f64, &str); 5] = [
    (0.001, "hardly measurable"),
    (0.01, "very small"),
    (0.05, "small"),
    (0.2, "plain"),
    (f64::INFINITY, "heavy"),
];

/// The divergence up to which a faster or smaller model is worth its loss: the end of "small".
const BEARABLE: f64 = 0.05;

/// A divergence in a word.
pub fn word(nats: f64) -> &'static str {
    WORDS.iter().find(|(below, _)| nats < *below).map_or("not finite", |(_, word)| word)
}

/// Which points are on the front: those that no other point beats, being at most as costly and at most as bad, and one of
/// the two less. Points that are no numbers are on none.
pub fn front(points: &[(f64, f64)]) -> Vec<bool> {
    let number = |&(cost, loss): &(f64, f64)| !cost.is_nan() && !loss.is_nan();
    let beats = |a: &(f64, f64), b: &(f64, f64)| a.0 <= b.0 && a.1 <= b.1 && (a.0 < b.0 || a.1 < b.1);
    let beaten = |point| points.iter().any(|other| beats(other, point));
    points.iter().map(|point| number(point) && !beaten(point)).collect()
}

/// Marks the cells that are on the fronts of size and of speed.
pub fn mark_fronts(cells: &mut [Cell]) {
    let loss = |cell: &Cell| divergence(cell).map_or(f64::NAN, |found| found.mean.value);
    let by_size: Vec<_> = cells.iter().map(|cell| (cell.size.bytes as f64, loss(cell))).collect();
    let by_speed: Vec<_> =
        cells.iter().map(|cell| (-generation(cell).unwrap_or(f64::NAN), loss(cell))).collect();
    for ((cell, size), speed) in cells.iter_mut().zip(front(&by_size)).zip(front(&by_speed)) {
        (cell.on_size_front, cell.on_speed_front) = (size, speed);
    }
}

fn divergence(cell: &Cell) -> Option<&Divergence> {
    cell.quality.divergence.as_ref()
}

fn generation(cell: &Cell) -> Option<f64> {
    Some(cell.speed.as_ref()?.generate.median)
}

/// Says which cell to take.
///
/// Of those that fit into memory, and diverge bearably if any does: for chat the one that generates fastest, for batches the
/// one that reads prompts fastest, the smallest, or the nearest to the reference. Of two that are alike but for the error of
/// the measurement, the smaller one.
pub fn recommend(
    cells: &[Cell],
    wanted_for: Use,
    memory_limit: Option<u64>,
    context: usize,
) -> Recommendation {
    let mut reasons = Vec::new();
    let choice = choose(cells, wanted_for, memory_limit, context, &mut reasons);
    Recommendation { wanted_for, memory_limit, choice: choice.map(|cell| cell.name.clone()), reasons }
}

fn choose<'a>(
    cells: &'a [Cell],
    wanted_for: Use,
    memory_limit: Option<u64>,
    context: usize,
    reasons: &mut Vec<String>,
) -> Option<&'a Cell> {
    let limit = memory_limit.unwrap_or(u64::MAX);
    let measured =
        cells.iter().filter(|cell| divergence(cell).is_some_and(|found| found.mean.value.is_finite()));
    let fitting: Vec<&Cell> = measured.filter(|cell| cell.memory <= limit).collect();
    let Some(nearest) = fitting.iter().copied().min_by(|a, b| loss(a).total_cmp(&loss(b))) else {
        let least = cells.iter().min_by_key(|cell| cell.memory);
        reasons.push(match least.filter(|_| memory_limit.is_some()) {
            Some(least) => format!(
                "None fits into {}: with a context of {context} tokens the smallest, {}, needs {}.",
                size(limit),
                least.name,
                size(least.memory),
            ),
            None => "There is no divergence to choose by.".to_owned(),
        });
        return None;
    };
    // What the nearest already loses cannot be asked of the others.
    let bearable: Vec<&Cell> =
        fitting.iter().copied().filter(|cell| loss(cell) <= BEARABLE.max(loss(nearest))).collect();
    let rate = |cell: &Cell| match wanted_for {
        Use::Batch => cell.speed.as_ref().map(|speed| speed.prompt.median),
        _ => generation(cell),
    };
    let timed = bearable.iter().all(|cell| rate(cell).is_some());
    let best = match wanted_for {
        Use::Quality => alike(&fitting, nearest),
        Use::Chat | Use::Batch if timed => fastest(&bearable, rate)?,
        _ => bearable.iter().copied().min_by_key(|cell| cell.size.bytes)?,
    };
    explain(best, nearest, &fitting, wanted_for, memory_limit, context, reasons);
    if matches!(wanted_for, Use::Chat | Use::Batch) && !timed {
        reasons.push("No speeds were measured: of those that stay near enough it is the smallest.".into());
    }
    Some(best)
}

fn loss(cell: &Cell) -> f64 {
    divergence(cell).map_or(f64::INFINITY, |found| found.mean.value)
}

/// The smallest of those that are no farther than `nearest`, as far as the measurement tells.
fn alike<'a>(cells: &[&'a Cell], nearest: &'a Cell) -> &'a Cell {
    let error = |cell: &Cell| divergence(cell).map_or(0.0, |found| found.mean.error);
    let same = cells.iter().copied().filter(|cell| {
        let (own, other) = (error(cell), error(nearest));
        loss(cell) - loss(nearest) <= 2.0 * libm::sqrt(own * own + other * other)
    });
    same.min_by_key(|cell| cell.size.bytes).unwrap_or(nearest)
}

/// The nearest to the reference of those that are as fast as the fastest, as far as the runs tell.
fn fastest<'a>(cells: &[&'a Cell], rate: impl Fn(&Cell) -> Option<f64>) -> Option<&'a Cell> {
    // Medians of a few runs on a machine with other work differ by as much.
    const NOISE: f64 = 0.03;
    let most = cells.iter().filter_map(|cell| rate(cell)).max_by(f64::total_cmp)?;
    let fast = cells.iter().copied().filter(|cell| rate(cell).is_some_and(|own| own >= (1.0 - NOISE) * most));
    fast.min_by(|a, b| loss(a).total_cmp(&loss(b)))
}

fn explain(
    best: &Cell,
    nearest: &Cell,
    fitting: &[&Cell],
    wanted_for: Use,
    memory_limit: Option<u64>,
    context: usize,
    reasons: &mut Vec<String>,
) {
    let name = &best.name;
    let purpose = match wanted_for {
        Use::Chat => "for chat, where generation must be fast",
        Use::Batch => "for batches, where prompts must be read fast",
        Use::Quality => "to stay as near to the original as can be",
        Use::Small => "where it must be small",
    };
    let within = memory_limit.map_or_else(String::new, |limit| format!(", within {}", size(limit)));
    reasons.push(format!("Take {name} {purpose}{within}."));
    if let Some(found) = divergence(best) {
        reasons.push(format!(
            "It diverges from the original by {:.4} nats on average, which is {}; in {} of the positions both find the same \
             token likeliest.",
            found.mean.value,
            word(found.mean.value),
            percent(found.same_top.value),
        ));
    }
    reasons.push(format!(
        "It takes {} of memory with a context of {context} tokens, and {:.2} bits per weight.",
        size(best.memory),
        best.size.bits_per_weight,
    ));
    if let Some(speed) = &best.speed {
        reasons.push(format!(
            "Here it reads {:.0} tokens of a prompt per second and generates {:.1}.",
            speed.prompt.median, speed.generate.median,
        ));
    }
    let unsteady = |speed: &Speed| match wanted_for {
        Use::Chat => speed.generate.remark.is_some(),
        Use::Batch => speed.prompt.remark.is_some(),
        Use::Quality | Use::Small => false,
    };
    // Also those of what it was chosen before.
    if fitting.iter().flat_map(|cell| &cell.speed).any(unsteady) {
        reasons.push(
            "The runs were not steady: time them again on a quiet machine before relying on speeds.".into(),
        );
    }
    if nearest.name != *name {
        let mut sentence = format!("{} is nearer to the original ({:.4} nats)", nearest.name, loss(nearest));
        if best.size.bytes < nearest.size.bytes {
            let smaller = percent(1.0 - best.size.bytes as f64 / nearest.size.bytes as f64);
            sentence.push_str(&format!(", but {name} is {smaller} smaller"));
            if let (Some(own), Some(other)) = (generation(best), generation(nearest))
                && own > 1.03 * other
            {
                sentence.push_str(&format!(" and generates {} as fast", times(own / other)));
            }
        }
        sentence.push('.');
        reasons.push(sentence);
    }
    let smaller =
        fitting.iter().copied().filter(|cell| cell.size.bytes < best.size.bytes && cell.on_size_front);
    if let Some(next) = smaller.max_by_key(|cell| cell.size.bytes) {
        let ratio = loss(next) / loss(best);
        if ratio.is_finite() && ratio > 1.0 {
            reasons.push(format!(
                "The next smaller one, {}, saves {} and diverges {} as much.",
                next.name,
                size(best.size.bytes - next.size.bytes),
                times(ratio),
            ));
        }
    }
    let beaten: Vec<&str> = fitting
        .iter()
        .filter(|cell| !cell.on_size_front && !cell.on_speed_front && cell.name != *name)
        .map(|cell| cell.name.as_str())
        .collect();
    if !beaten.is_empty() {
        let verb = if beaten.len() == 1 { "is" } else { "are" };
        reasons.push(format!(
            "{} {verb} on no front: something else is at most as large, or at least as fast, and nearer.",
            beaten.join(", "),
        ));
    }
    if loss(best) > BEARABLE {
        reasons.push(
            "Nothing that fits stays near to the original: a smaller model in more bits may do better."
                .into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_front_holds_what_nothing_beats() {
        let points = [(1.0, 5.0), (2.0, 3.0), (2.0, 4.0), (3.0, 3.0), (4.0, 1.0), (f64::NAN, 0.0)];
        assert_eq!(front(&points), [true, true, false, false, true, false]);
        // Two of the same both stay.
        assert_eq!(front(&[(1.0, 1.0), (1.0, 1.0)]), [true, true]);
        assert!(front(&[]).is_empty());
    }

    #[test]
    fn cells_are_marked_by_size_and_by_speed() {
        let cells = sample::report().cells;
        let marks: Vec<_> =
            cells.iter().map(|cell| (&*cell.name, cell.on_size_front, cell.on_speed_front)).collect();
        let expected = [
            ("Q8_0", true, true),
            ("Q6_K", true, true),
            ("Q4_K_M", true, true),
            ("Q4_0", true, true),
            ("Q3_K_M", true, false),
            ("Q2_K", true, true),
        ];
        assert_eq!(marks, expected);
    }

    fn choice(wanted_for: Use, limit: Option<u64>) -> (Option<String>, Vec<String>) {
        let found = recommend(&sample::report().cells, wanted_for, limit, 4096);
        (found.choice, found.reasons)
    }

    #[test]
    fn the_choice_follows_from_use_and_memory() {
        let named = |name: &str| Some(name.to_owned());
        // Q4_0 generates fastest of those below 0.05 nats.
        assert_eq!(choice(Use::Chat, None).0, named("Q4_0"));
        assert_eq!(choice(Use::Batch, None).0, named("Q8_0"));
        // Q6_K's divergence is within the error of Q8_0's.
        assert_eq!(choice(Use::Quality, None).0, named("Q6_K"));
        assert_eq!(choice(Use::Small, None).0, named("Q4_0"));
        assert_eq!(choice(Use::Quality, Some(2_300_000_000)).0, named("Q3_K_M"));
        // Where nothing is bearable, what is nearest.
        let (found, reasons) = choice(Use::Chat, Some(2_300_000_000));
        assert_eq!(found, named("Q3_K_M"));
        assert!(reasons.last().unwrap().starts_with("Nothing that fits"), "{reasons:?}");
    }

    #[test]
    fn without_speeds_the_smallest_is_taken_and_that_is_said() {
        let mut cells = sample::report().cells;
        cells.iter_mut().for_each(|cell| cell.speed = None);
        mark_fronts(&mut cells);
        let found = recommend(&cells, Use::Batch, None, 4096);
        assert_eq!(found.choice.as_deref(), Some("Q4_0"));
        assert!(found.reasons.last().unwrap().starts_with("No speeds were measured"), "{found:?}");
    }

    #[test]
    fn where_nothing_fits_the_smallest_is_named() {
        let (found, reasons) = choice(Use::Chat, Some(1 << 20));
        assert_eq!(found, None);
        assert!(reasons[0].contains("None fits into 1 MiB") && reasons[0].contains("Q2_K"), "{reasons:?}");
    }

    #[test]
    fn reasons_name_the_alternatives() {
        let (_, reasons) = choice(Use::Chat, None);
        let text = reasons.join(" ");
        for part in [
            "Take Q4_0 for chat",
            "0.0450 nats on average, which is small",
            "93.00 % of the positions",
            "Q8_0 is nearer to the original (0.0010 nats), but Q4_0 is 47.1 % smaller and generates 1.67 times as fast.",
            "The next smaller one, Q3_K_M, saves",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn a_choice_by_speed_doubts_runs_that_were_not_steady() {
        let mut cells = sample::report().cells;
        let speed = cells[0].speed.as_mut().unwrap();
        speed.generate.remark = Some("unsteady".to_owned());
        let doubts = |wanted_for| {
            let found = recommend(&cells, wanted_for, None, 4096);
            assert_ne!(wanted_for == Use::Chat, found.choice.as_deref() == Some("Q8_0"));
            found.reasons.iter().any(|reason| reason.starts_with("The runs were not steady"))
        };
        assert_eq!([Use::Chat, Use::Batch].map(doubts), [true, false]);
    }

    #[test]
    fn divergences_have_words() {
        assert_eq!(
            [0.0, 0.001, 0.02, 0.1, 1.0].map(word),
            ["hardly measurable", "very small", "small", "plain", "heavy"]
        );
    }
}
