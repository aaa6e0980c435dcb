#!/usr/bin/env python3
"""Makes expected.json and the importance matrices beside it, by llama.cpp's programs.

    make.py FOLDER-OF-LLAMA.CPP'S-PROGRAMS [FOLDER-OF-GOLDEN-SETS]

The text is tests/data/tokenizers/english.txt. Each perplexity is measured in several ways that should not matter (batches,
flash attention, the type of the cache): `spread` is how far llama.cpp is from itself.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
TEXT = ROOT / "tests/data/tokenizers/english.txt"
INSTRUCT = ROOT / "vendor/models/tiny-instruct-q8_0.gguf"
STORIES = ROOT / "tests/data/models/stories260K-f32.gguf"
PROGRAMS = pathlib.Path(sys.argv[1])
CONTEXT, CHUNKS = 128, 12
WAYS = [[], ["-b", "32", "-ub", "32"], ["-fa", "off"], ["-ctk", "f32", "-ctv", "f32"]]


def run(program, *args, until=""):
    """What the program prints: again where `until` is missing, since its log loses the last lines now and then."""
    while True:
        done = subprocess.run([PROGRAMS / program, *map(str, args)], capture_output=True, text=True, check=True)
        printed = done.stdout + done.stderr
        if re.search(until, printed):
            return printed


def over_text(model, *args):
    own = [] if "-b" in args else ["-b", CONTEXT]
    return ["-m", model, "-f", TEXT, "-c", CONTEXT, "--chunks", CHUNKS, "-t", 2, *own, *args]


def number(name, output):
    found = re.search(rf"^\s*{re.escape(name)}\s*:\s*(-?[\d.]+)%?(?: ± +([\d.]+))?", output, re.MULTILINE)
    return [float(x) for x in found.groups() if x is not None]


def perplexity(model):
    def once(way):
        estimate = r"PPL = ([\d.]+) \+/- ([\d.]+)"
        found = re.search(estimate, run("llama-perplexity", *over_text(model, *way), until=estimate))
        return float(found[1]), float(found[2])

    found = [once(way) for way in WAYS]
    values = [value for value, _ in found]
    return {"value": values[0], "error": found[0][1], "spread": max(values) - min(values)}


def divergence(reference, model, folder):
    kept = folder / "reference.kld"
    run("llama-perplexity", *over_text(reference, "--kl-divergence-base", kept))
    both = ["--kl-divergence-base", kept, "--kl-divergence"]
    output = run("llama-perplexity", *over_text(model, *both), until="Same top p")
    names = {
        "kl": "Mean    KLD", "min": "Minimum KLD", "median": "Median  KLD", "p90": "90.0%   KLD", "p95": "95.0%   KLD",
        "p99": "99.0%   KLD", "p99.9": "99.9%   KLD", "max": "Maximum KLD", "log_ratio": "Mean ln(PPL(Q)/PPL(base))",
        "change_percent": "Mean    Δp", "rms_change_percent": "RMS Δp", "same_top_percent": "Same top p",
    }
    return {key: number(name, output) for key, name in names.items()}


def main():
    expected = {"reference": re.search(r"version: .*", run("llama-perplexity", "--version"))[0]}
    expected["context"], expected["chunks"] = CONTEXT, CHUNKS
    expected["perplexity"] = {model.stem: perplexity(model) for model in (INSTRUCT, STORIES)}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run("llama-quantize", STORIES, folder / "q4_0.gguf", "Q4_0")
        expected["divergence"] = divergence(STORIES, folder / "q4_0.gguf", folder)
    models = [STORIES]
    if len(sys.argv) > 2:
        models.append(pathlib.Path(sys.argv[2]) / "parity/open/models/mixtral.f16.gguf")
    for model in models:
        for way, cache in (("", "f16"), ("-exact", "f32")):
            out = HERE / f"{model.stem}{way}.imatrix.gguf"
            run("llama-imatrix", *over_text(model, "-o", out, "-ctk", cache, "-ctv", cache))
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


main()
