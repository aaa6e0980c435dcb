//! A report made up for tests.

use super::choose::{mark_fronts, recommend};
use super::data::*;

/// Name, gigabytes, divergence and its error, same top, tokens per second of prompt and of generation.
const CELLS: [(&str, f64, f64, f64, f64, f64, f64); 6] = [
    ("Q8_0", 4.25, 0.0010, 0.0002, 0.985, 220.0, 30.0),
    ("Q6_K", 3.28, 0.0012, 0.0002, 0.981, 200.0, 34.0),
    ("Q4_K_M", 2.4, 0.03, 0.001, 0.945, 180.0, 44.0),
    ("Q4_0", 2.25, 0.045, 0.002, 0.93, 210.0, 50.0),
    ("Q3_K_M", 2.0, 0.12, 0.004, 0.88, 150.0, 45.0),
    ("Q2_K", 1.6, 0.6, 0.02, 0.71, 140.0, 52.0),
];

fn hash(path: &str, bytes: u64) -> FileHash {
    FileHash { path: path.to_owned(), bytes, sha256: "0123456789abcdef".repeat(4) }
}

fn rate(median: f64) -> Rate {
    Rate { median, least: 0.96 * median, most: 1.03 * median, remark: None }
}

fn cell(name: &str, gigabytes: f64, prompt: f64, generate: f64, divergence: Option<Divergence>) -> Cell {
    let (bytes, weights) = ((gigabytes * 1e9) as u64, 4_000_000_000);
    let types = vec![
        TypeShare { ty: name.to_lowercase(), tensors: 225, weights: weights - 1000, bytes: bytes - 4000 },
        TypeShare { ty: "f32".to_owned(), tensors: 65, weights: 1000, bytes: 4000 },
    ];
    let loss = divergence.as_ref().map_or(0.0, |found| found.mean.value);
    let tensors = (0..24).flat_map(|layer| {
        ["attn_q", "attn_k", "ffn_up", "ffn_down"].map(|kind| TensorError {
            layer: Some(layer),
            kind: kind.to_owned(),
            ty: name.to_lowercase(),
            error: libm::sqrt(loss) * f64::from(layer + 8) / 16.0,
        })
    });
    let output = TensorError { layer: None, kind: "output".to_owned(), ty: "q6_K".to_owned(), error: 0.011 };
    Cell {
        name: name.to_owned(),
        file: hash(&format!("model-{name}.gguf"), bytes + 5_000_000),
        quantized: Some(name.to_owned()),
        size: Size { bytes, weights, bits_per_weight: bytes as f64 * 8.0 / weights as f64, types },
        memory: bytes + 100_000_000,
        peak: Some(bytes + 60_000_000),
        quality: Quality {
            perplexity: Measured { value: 8.125 * libm::exp(loss), error: 0.0625 },
            bits_per_byte: Measured { value: 0.75 + loss, error: 0.03125 },
            tokens: 4096,
            chunks: 16,
            divergence,
        },
        speed: Some(Speed { prompt: rate(prompt), generate: rate(generate) }),
        tensors: tensors.chain([output]).filter(|_| loss > 0.0).collect(),
        on_size_front: false,
        on_speed_front: false,
    }
}

pub fn report() -> Report {
    let mut cells: Vec<Cell> = CELLS
        .iter()
        .map(|&(name, size, value, error, same, prompt, generate)| {
            let found = Divergence {
                mean: Measured { value, error },
                median: value / 3.0,
                p99: value * 9.0,
                max: value * 40.0,
                same_top: Measured { value: same, error: 0.004 },
                log_ratio: Measured { value: value * 0.9, error },
            };
            cell(name, size, prompt, generate, Some(found))
        })
        .collect();
    mark_fronts(&mut cells);
    let recommendation = recommend(&cells, Use::Chat, Some(8 << 30), 4096);
    Report {
        format: FORMAT,
        title: "Sample <4B>".to_owned(),
        provenance: Provenance {
            program: "gristmill 0.0.0".to_owned(),
            date: "2026-01-02T03:04:05Z".to_owned(),
            command: "grist report model.gguf --text text.txt --types Q8_0,Q6_K --out out".to_owned(),
            machine: Machine {
                cpu: "A processor & more".to_owned(),
                system: "linux x86_64".to_owned(),
                level: "avx2".to_owned(),
                threads: 8,
                memory: Some(16 << 30),
            },
            text: hash("text.txt", 170_000),
            imatrix: None,
        },
        settings: Settings {
            context: 512,
            chunks: Some(16),
            prompt: 512,
            generate: 128,
            runs: 5,
            memory_context: 4096,
        },
        reference: Cell { quantized: None, ..cell("F16", 8.0, 120.0, 18.0, None) },
        cells,
        drift: Some(0.016),
        recommendation,
    }
}
