#!/usr/bin/env python3
"""rerankers.py PROGRAM: gives models of embeddings.py heads that score, and writes the scores that llama.cpp makes with them.

Heads are random, of a fixed seed. PROGRAM (MODEL OUT TOKENS, ...) has llama.cpp pool by rank, with caches and attention in single
precision, and writes the scores of each list of tokens as floats. It gets files whose weights are the same numbers in F32, for with
others llama.cpp rounds what it multiplies them with.
"""
import json, subprocess, sys, tempfile
from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).parent
INDEX = HERE / "EMBEDDINGS.json"
LLAMA = "llama.cpp (ggml 0.25.3)"
WIDTH = 32
# The model, its head's tensors as rows x columns, the names of its scores, how it pools before.
CASES = {
    "qwen3-rank": ("qwen3-embedding", {"cls.output.weight": (2, WIDTH)}, ["yes", "no"], None),
    "modern-bert-rank": ("modern-bert", {"cls.weight": (WIDTH, WIDTH), "cls.norm.weight": (WIDTH,), "cls.output.weight": (3, WIDTH),
                                         "cls.output.bias": (3,)}, ["a", "b", "c"], None),
    "modern-bert-rank-cls": ("modern-bert", {"cls.weight": (WIDTH, WIDTH), "cls.norm.weight": (WIDTH,),
                                             "cls.output.weight": (1, WIDTH)}, ["a"], 2),
    "jina-bert-v2-rank": ("jina-bert-v2", {"cls.weight": (1, WIDTH), "cls.bias": (1,)}, ["a"], None),
}


def write(path, source, case, number, single):
    _, head, labels, pooling = case
    reader = gguf.GGUFReader(source)
    arch = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(path, arch)
    own = [f"{arch}.pooling_type", f"{arch}.classifier.pooling_type"]
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key not in ("general.architecture", *own):
            kind, *inner = field.types
            writer.add_key_value(key, field.contents(), kind, sub_type=inner[-1] if inner else None)
    writer.add_uint32(own[0], 4)
    writer.add_array(f"{arch}.classifier.output_labels", labels)
    if pooling is not None:
        writer.add_uint32(own[1], pooling)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data.astype(np.float32) if single else tensor.data)
    random = np.random.default_rng(number)
    for name, shape in head.items():
        values = random.standard_normal(shape) / WIDTH**0.5 + (1 if len(shape) == 1 else 0)
        writer.add_tensor(name, values.astype(np.float16).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    index = json.loads(INDEX.read_text())
    entries = []
    for number, (name, case) in enumerate(CASES.items()):
        source = HERE / f"{case[0]}.gguf"
        write(HERE / f"{name}.gguf", source, case, number, False)
        with tempfile.TemporaryDirectory() as folder:
            write(f"{folder}/f32.gguf", source, case, number, True)
            pairs = [x for n in index["lengths"] for x in (f"{folder}/{n}", ",".join(map(str, index["tokens"][:n])))]
            subprocess.run([sys.argv[1], f"{folder}/f32.gguf", *pairs], check=True, capture_output=True)
            scores = np.stack([np.fromfile(f"{folder}/{n}", np.float32) for n in index["lengths"]])
        np.save(HERE / f"{name}.pooled.npy", scores)
        print(name, scores.tolist())
        arch = gguf.GGUFReader(source).get_field("general.architecture").contents()
        entries.append({"name": name, "arch": arch, "pooling": "rank", "by": LLAMA, "llama_cpp": None})
    kept = [case for case in index["models"] if case["name"] not in CASES]
    lines = ",\n".join("  " + json.dumps(case) for case in sorted(kept + entries, key=lambda case: case["name"]))
    text = INDEX.read_text()
    INDEX.write_text(text[:text.index(' "models"')] + f' "models": [\n{lines}\n ]\n}}\n')


main()
