#!/usr/bin/env python3
"""Makes expected.json and the importance matrices beside it, by llama.cpp's programs (those there: 0.5.0-dev, ggml 0.25.3).

    make.py FOLDER-OF-LLAMA.CPP'S-PROGRAMS [FOLDER-OF-GOLDEN-SETS]

The text is tests/data/tokenizers/english.txt. Everything is measured in several ways that should not matter (batches, flash
attention, the type of the cache; weights as they are, and as the same numbers in F32, so that no inputs are rounded to 8 bits):
all values are kept, so that it shows how far llama.cpp is from itself. The first is the plain way.
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
# llama-perplexity reads half a stride more than it is told, made a multiple of 256.
STRIDE, STRIDING, STRIDED = 128, 192, 256
WAYS = [[], ["-b", "32", "-ub", "32"], ["-fa", "off"], ["-fa", "off", "-ctk", "f32", "-ctv", "f32"]]
EXACT = WAYS[-1]


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


def widened(model, folder):
    """The same weights in F32."""
    out = folder / f"{model.stem}-f32.gguf"
    run("llama-quantize", "--allow-requantize", model, out, "F32")
    return out


def perplexity(model, folder):
    def once(model, way):
        estimate = r"PPL = ([\d.]+) \+/- ([\d.]+)"
        found = re.search(estimate, run("llama-perplexity", *over_text(model, *way), until=estimate))
        return [float(found[1]), float(found[2])]

    return [once(model, way) for way in WAYS] + [once(widened(model, folder), WAYS[0])]


def strided(model):
    def once(way):
        args = ["-m", model, "-f", TEXT, "-c", STRIDING, "-b", STRIDING, "--ppl-stride", STRIDE, "--chunks", CHUNKS, "-t", 2, *way]
        last = rf"\[{CHUNKS}\]([\d.]+),"
        return float(re.search(last, run("llama-perplexity", *args, until=last))[1])

    return [once(way) for way in (WAYS[0], *WAYS[2:])]


def divergence(reference, model, folder):
    both = ["--kl-divergence-base", folder / "reference.kld"]
    run("llama-perplexity", *over_text(reference, *both))
    both.append("--kl-divergence")
    names = {
        "kl": "Mean    KLD", "min": "Minimum KLD", "median": "Median  KLD", "p90": "90.0%   KLD", "p95": "95.0%   KLD",
        "p99": "99.0%   KLD", "p99.9": "99.9%   KLD", "max": "Maximum KLD", "log_ratio": "Mean ln(PPL(Q)/PPL(base))",
        "change_percent": "Mean    Δp", "rms_change_percent": "RMS Δp", "same_top_percent": "Same top p",
    }

    def once(model, way):
        output = run("llama-perplexity", *over_text(model, *both, *way), until="Same top p: ")
        return {key: number(name, output) for key, name in names.items()}

    return [once(model, []), once(model, EXACT), once(widened(model, folder), [])]


def main():
    expected = {"context": CONTEXT, "chunks": CHUNKS}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        expected["perplexity"] = {model.stem: perplexity(model, folder) for model in (INSTRUCT, STORIES)}
        expected["strided"] = {"context": STRIDED, "stride": STRIDE, "perplexity": strided(STORIES)}
        run("llama-quantize", STORIES, folder / "q4_0.gguf", "Q4_0")
        expected["divergence"] = divergence(STORIES, folder / "q4_0.gguf", folder)
    models = [STORIES]
    if len(sys.argv) > 2:
        models.append(pathlib.Path(sys.argv[2]) / "parity/open/models/mixtral.f16.gguf")
    for model in models:
        for name, way in (("", WAYS[0]), ("-exact", EXACT)):
            run("llama-imatrix", *over_text(model, "-o", HERE / f"{model.stem}{name}.imatrix.gguf", *way))
    text = json.dumps(expected, ensure_ascii=False)
    (HERE / "expected.json").write_text(text.replace("}, ", "},\n").replace("]], ", "]],\n") + "\n")


main()
