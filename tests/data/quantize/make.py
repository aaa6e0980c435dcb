"""Makes expected.json: what llama-quantize does, for the tests of our own rules and bytes.

    python3 make.py PATH-TO-llama-quantize

Needs the packages gguf and numpy. `models` describes models made up for the rules; the tests build the same ones. `types` has, for each
of them and each mix, a letter for each tensor in the order of the output ("types" of the head says which); a name with `+` is a run with
an importance matrix. `checksums` has, for real models of this repository, CRC-32 over each tensor's name, type and bytes, padding and all.
`altered` has CRC-32 of whole files, metadata and all, of runs that leave layers out or change metadata; `+` with an importance matrix,
whose path in the metadata is that of the run, so that only the tensors count there.
"""
import json, re, struct, subprocess, sys, tempfile, zlib
from pathlib import Path

import gguf
import numpy as np

QUANTIZE = sys.argv[1]
HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
MIXES = """Q1_0 Q2_0 Q4_0 Q4_1 MXFP4_MOE Q5_0 Q5_1 IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ1_S IQ1_M TQ1_0 TQ2_0 Q2_K Q2_K_S IQ3_XXS IQ3_S IQ3_M
IQ3_XS Q3_K_S Q3_K_M Q3_K_L IQ4_NL IQ4_XS Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K Q8_0 F16 BF16 F32""".split()

SUPERBLOCKS = "TQ1_0 TQ2_0 Q2_K Q3_K_M Q4_K_M Q5_K_M Q6_K IQ4_XS".split()


def model(arch, layers, heads, kv, experts, per_layer, rest, width=256):
    tensors = [[name, shape] for name, shape in rest]
    for layer in range(layers):
        tensors += [[f"blk.{layer}.{name}.weight", shape] for name, shape in per_layer]
    return dict(architecture=arch, layers=layers, heads=heads, kv_heads=kv, experts=experts, tensors=tensors)


W = [256, 2]
DENSE = [("attn_q", W), ("attn_k", W), ("attn_v", W), ("attn_output", W), ("ffn_gate", W), ("ffn_up", W), ("ffn_down", W)]
EXPERTS = [("attn_q", W), ("attn_k", W), ("attn_v", W), ("attn_output", W), ("ffn_gate_inp", W), ("ffn_norm", [256])] + [
    (f"ffn_{part}_exps", [256, 2, 2]) for part in ("gate", "up", "down")]
ENDS = [("token_embd.weight", W), ("output.weight", W), ("output_norm.weight", [256])]
MODELS = {
    "grouped": model("llama", 16, 8, 2, 0, DENSE, ENDS),
    "tied": model("llama", 9, 4, 4, 0, DENSE, ENDS[:1]),
    "large": model("llama", 80, 64, 8, 0, [("attn_v", W), ("ffn_down", W)], ENDS),
    "eight-experts": model("llama", 16, 8, 2, 8, EXPERTS, ENDS),
    "four-experts": model("llama", 8, 4, 4, 4, EXPERTS, ENDS),
    "falcon": model("falcon", 16, 8, 1, 0, [("attn_qkv", W), ("attn_output", W), ("ffn_up", W), ("ffn_down", W)], ENDS),
    "narrow": model("qwen2", 2, 2, 2, 0, [("attn_q", [96, 2]), ("attn_v", [40, 2]), ("ffn_down", [128, 2]), ("ffn_up", [64, 2])],
                    [("token_embd.weight", [96, 2]), ("output.weight", [40, 2])]),
}


def write(path, description):
    writer = gguf.GGUFWriter(path, description["architecture"])
    arch = description["architecture"]
    for key, value in [("block_count", description["layers"]), ("context_length", 64), ("embedding_length", 256),
                       ("feed_forward_length", 256), ("attention.head_count", description["heads"]),
                       ("attention.head_count_kv", description["kv_heads"]), ("expert_count", description["experts"]),
                       ("expert_used_count", min(2, description["experts"])), ("vocab_size", 2)]:
        writer.add_uint32(f"{arch}.{key}", value)
    for key in ("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"):
        writer.add_float32(f"{arch}.{key}", 1e-5)
    for name, shape in description["tensors"]:
        writer.add_tensor(name, np.ones(shape[::-1], dtype=np.float16 if len(shape) > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def importance(name, columns):
    """The tests compute the same."""
    return (((np.arange(columns) * 37 + len(name)) % 101 + 1) / 64).astype(np.float32)


def write_imatrix(path, model):
    tensors = [t for t in gguf.GGUFReader(model).tensors if len(t.shape) > 1]
    with open(path, "wb") as file:
        file.write(struct.pack("<i", len(tensors)))
        for t in tensors:
            columns = int(t.shape[0]) * (int(t.shape[2]) if len(t.shape) > 2 else 1)
            name = t.name.encode()
            file.write(struct.pack("<i", len(name)) + name + struct.pack("<ii", 1, columns))
            file.write(importance(t.name, columns).tobytes())


ALTERED = [
    ("vendor/models/tiny-instruct-q8_0.gguf", "Q4_K_M --prune-layers 1,3"),
    ("vendor/models/tiny-instruct-q8_0.gguf", "Q3_K_M --prune-layers 0,5"),
    ("vendor/models/tiny-instruct-q8_0.gguf", "COPY --prune-layers 4"),
    ("vendor/models/tiny-instruct-q8_0.gguf", "IQ3_XXS+ --prune-layers 2"),
    ("tests/data/architectures/qwen3moe.gguf", "Q8_0 --prune-layers 0"),
    ("vendor/models/tiny-instruct-q8_0.gguf",
     "Q4_0 --override-kv general.name=str:Other --override-kv llama.rope.freq_base=float:1e6"
     " --override-kv tokenizer.ggml.add_bos_token=bool:false --override-kv some.number=int:-7"),
    ("vendor/models/tiny-instruct-q8_0.gguf", "Q4_K_M --override-kv llama.block_count=int:48"),
]


NAMES = {t.value: t.name for t in gguf.GGMLQuantizationType} | {40: "NVFP4", 41: "Q1_0", 42: "Q2_0"}


def read(path):
    """Name, type and bytes of each tensor; the package's reader does not know all types."""
    data = path.read_bytes()
    at = 0

    def take(form):
        nonlocal at
        (value,) = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value

    def string():
        nonlocal at
        length = take("Q")
        at += length
        return data[at - length:at]

    def value(kind):
        if kind == 8:
            string()
        elif kind == 9:
            kind, count = take("I"), take("Q")
            for _ in range(count):
                value(kind)
        else:
            take("BbHhIif?__QqD".replace("D", "d")[kind])

    assert take("I") == 0x46554747 and take("I") == 3
    tensors, keys = take("Q"), take("Q")
    for _ in range(keys):
        string()
        value(take("I"))
    found = []
    for _ in range(tensors):
        name = string().decode()
        shape = [take("Q") for _ in range(take("I"))]
        found.append((name, take("I"), take("Q")))
    begin = (at + 31) // 32 * 32
    ends = [offset for _, _, offset in found[1:]] + [len(data) - begin]
    # With what pads them: zeros.
    return [(name, NAMES[ty], data[begin + offset:begin + end]) for (name, ty, offset), end in zip(found, ends)]


def quantize(model, mix, imatrix, *flags, read=read):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.gguf"
        extra = []
        if imatrix:
            write_imatrix(Path(folder) / "imatrix.dat", model)
            extra = ["--imatrix", Path(folder) / "imatrix.dat"]
        run = subprocess.run([QUANTIZE, "--allow-requantize", *extra, *flags, model, out, mix], capture_output=True)
        if run.returncode != 0:
            return None
        return read(out)


def dry_run(model, mix, imatrix):
    """The types alone, which take no time; None where the real run would refuse."""
    with tempfile.TemporaryDirectory() as folder:
        extra = []
        if imatrix:
            write_imatrix(Path(folder) / "imatrix.dat", model)
            extra = ["--imatrix", Path(folder) / "imatrix.dat"]
        run = subprocess.run([QUANTIZE, "--dry-run", *extra, model, mix], capture_output=True, text=True)
    said = run.stdout + run.stderr
    if run.returncode != 0 or "will require an imatrix" in said:
        return None
    lines = re.findall(r"^\[ *\d+/ *\d+\] (\S+) .*?type = *(\w+), size = [^(\n]*(?:\((\w+)\))?$", said, re.MULTILINE)
    return [(name, (after or before).upper()) for name, before, after in lines]


def checksum(tensors):
    crc = 0
    for name, ty, data in tensors:
        for part in (name.encode(), ty.encode(), data):
            crc = zlib.crc32(part, crc)
    return crc


def altered():
    checksums = {}
    for model, how in ALTERED:
        mix, *flags = how.split()
        if mix.endswith("+"):
            found = checksum(quantize(ROOT / model, mix[:-1], True, *flags))
        else:
            found = quantize(ROOT / model, mix, False, *flags, read=lambda path: zlib.crc32(path.read_bytes()))
        checksums[f"{model} {how}"] = found
    return checksums


def main():
    names, types, checksums = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, description in MODELS.items():
            path = Path(folder) / f"{name}.gguf"
            write(path, description)
            for mix in MIXES:
                for imatrix in (False, True):
                    tensors = dry_run(path, mix, imatrix)
                    letters = None
                    if tensors is not None:
                        assert len(tensors) == len(description["tensors"]), (name, mix, tensors)
                        for _, ty in tensors:
                            if ty not in names:
                                names.append(ty)
                        letters = "".join(chr(65 + names.index(ty)) for _, ty in tensors)
                    types[f"{name} {mix}{'+' * imatrix}"] = letters
    runs = [(model, mix, imatrix) for model in ("tests/data/models/qwen3.f16.gguf", "tests/data/models/gpt2.f16.gguf")
            for mix in MIXES for imatrix in (False, True)]
    # Rows of 256: the formats with superblocks.
    runs += [("vendor/models/tiny-instruct-q8_0.gguf", mix, imatrix) for mix in SUPERBLOCKS for imatrix in (False, True)]
    for model, mix, imatrix in runs:
        tensors = quantize(ROOT / model, mix, imatrix)
        if tensors is not None:
            checksums[f"{model} {mix}{'+' * imatrix}"] = checksum(tensors)
    head = dict(reference="llama-quantize of llama.cpp as in llama-cpp-python 0.3.36 (ggml 0.25.3)")
    lines = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
    lines.append('"letters": ' + json.dumps(names))
    for key, table in (("models", MODELS), ("types", types), ("checksums", checksums), ("altered", altered())):
        inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in table.items())
        lines.append(f'"{key}": {{\n{inner}\n}}')
    (HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
