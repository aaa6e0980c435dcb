//! What the figures mean, and how to get them again: the notes at a report's foot.

use super::data::{Cell, Report};
use super::text::percent;

/// The notes, one after the other.
pub fn notes(report: &Report) -> Vec<String> {
    let (settings, from) = (&report.settings, &report.provenance);
    let (machine, quality) = (&from.machine, &report.reference.quality);
    let mut notes = vec![
        format!(
            "Perplexity and divergence: over {} chunks of {} tokens of {} ({} bytes, SHA-256 {}), of each the second half, as \
             llama-perplexity does it. ± is one standard error, of which differences between \
             models have far less: all of them read the same text.",
            quality.chunks, settings.context, from.text.path, from.text.bytes, from.text.sha256,
        ),
        format!(
            "Divergence: the Kullback-Leibler divergence of a model's prediction from that of {}, in nats, at each of {} \
             positions. Same token: the share of positions at which both find the same token likeliest.",
            report.reference.name, quality.tokens,
        ),
        format!(
            "Size: the tensors alone. Memory: the file, and an f16 cache of {} tokens.",
            settings.memory_context
        ),
    ];
    if report.all().any(|cell| cell.peak.is_some()) {
        notes.push(format!(
            "Memory measured: the most that a process of grist held which read a prompt of {} tokens and generated {}, pages of the \
             mapped file among it.",
            settings.prompt, settings.generate,
        ));
    }
    if settings.runs > 0 {
        notes.push(format!(
            "Speed: a prompt of {} tokens and a generation of {}, the median of {} runs, and from the slowest to the fastest; the \
             models took turns, each warmed up before; on {} ({}), instruction set {}, {} threads.",
            settings.prompt,
            settings.generate,
            settings.runs,
            machine.cpu,
            machine.system,
            machine.level,
            machine.threads,
        ));
        notes.extend(report.drift.map(|drift| {
            format!(
                "A fixed workload before each turn (reading memory, multiplying) spread by {}: what the machine itself moved.",
                percent(drift),
            )
        }));
        let doubts: Vec<String> = report.all().flat_map(doubts).collect();
        if !doubts.is_empty() {
            notes.push(format!("Speeds that are not to be relied on: {}.", doubts.join("; ")));
        }
    }
    notes.push(
        "Front: the models that no other beats, being at most as large (or generating at least as fast) and at most as far from \
         the reference, and better in one of the two."
            .to_owned(),
    );
    notes.extend(report.all().map(|cell| {
        let how = if cell.quantized.is_some() { ", quantized for this report" } else { "" };
        format!(
            "{}: {} ({} bytes, SHA-256 {}){how}.",
            cell.name, cell.file.path, cell.file.bytes, cell.file.sha256
        )
    }));
    notes.extend(from.imatrix.as_ref().map(|file| {
        format!("Importance matrix: {} ({} bytes, SHA-256 {}).", file.path, file.bytes, file.sha256)
    }));
    if !from.command.is_empty() {
        notes.push(format!("Made by: {}", from.command));
    }
    notes.push(format!(
        "{}, {}. The command grist report --verify report.json measures all of it again and says what differs: everything but the speeds \
         must be the same to the last bit, on any machine.",
        from.program, from.date,
    ));
    notes
}

/// Speeds that are not to be believed.
fn doubts(cell: &Cell) -> Vec<String> {
    let speeds =
        cell.speed.iter().flat_map(|speed| [("prompt", &speed.prompt), ("generation", &speed.generate)]);
    let doubted = speeds.filter_map(|(what, rate)| Some((what, rate.remark.as_ref()?)));
    doubted.map(|(what, why)| format!("{}, {what}: {why}", cell.name)).collect()
}
