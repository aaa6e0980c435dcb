#!/usr/bin/env python3
"""make.py LLAMA_CPP [NAME...]: makes the tiny models of this folder and the logits that are expected of them.

LLAMA_CPP is a source tree of llama.cpp (for its converter). Each model is a class of transformers with random weights of
a fixed seed, rounded to half precision; logits are those of transformers in float32 with eager attention. Where a
program `LLAMA_LOGITS` is given in the environment (MODEL OUT TOKENS, ...), the logits of llama.cpp are compared too.
"""
import json, os, subprocess, sys, tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
LLAMA_CPP = Path(sys.argv[1])
sys.path[:0] = [str(LLAMA_CPP), str(LLAMA_CPP / "gguf-py")]
import gguf
import conversion
from conversion import ModelBase, ModelType, get_model_class
from conversion.base import TextModel
from cases import CASES

torch.set_num_threads(1)
VOCABULARY = 64
LLAMA = "llama.cpp (ggml 0.25.3)"


def no_vocabulary(self):
    """The tests give token ids: the files need no tokenizer."""
    self.gguf_writer.add_tokenizer_model("none")
    self.gguf_writer.add_vocab_size(VOCABULARY)
    if types := self.hparams.get("type_vocab_size"):
        self.gguf_writer.add_token_type_count(types)


def subclasses(cls):
    return [cls] + [below for sub in cls.__subclasses__() for below in subclasses(sub)]


def tokens(count, seed):
    return [int(t) for t in np.random.default_rng(seed).integers(3, VOCABULARY, count)]


SEQUENCES = {"s8": tokens(8, 8), "s33": tokens(33, 33), "s96": tokens(96, 96)}


def randomize(model, seed):
    """Weights large enough that every part of a layer matters, and exact in half precision."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() < 2:
                # Around the initial value: one for norms, zero for biases.
                start = weight.clone().float()
                value = start + 0.2 * noise
                if "A_log" in name or "dt_bias" in name:
                    value = start + 0.1 * noise
            else:
                fan = weight.shape[-1] if "conv" not in name else weight.shape[-1] * 4
                value = noise * (1.6 / fan**0.5 if "embed" not in name and "wte" not in name else 1.0)
            weight.copy_(value.half().float())
        for name, buffer in model.named_buffers():
            if "bias" in name and buffer.dim() == 1 and buffer.is_floating_point():
                buffer.copy_((0.3 * torch.randn(buffer.shape, generator=generator)).half().float())


def logits(model, ids, cache):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=cache).logits[0].float().numpy()


def divergence(expected, found):
    def log_softmax(x):
        x = x.astype(np.float64)
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))
    p, q = log_softmax(expected), log_softmax(found)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def convert(folder, out, case, kind=gguf.LlamaFileType.MOSTLY_F16, **options):
    hparams = ModelBase.load_hparams(folder, False)
    hparams = {**hparams, **hparams.get("text_config", {})} if "architectures" not in hparams else hparams
    if "edit" in case:
        # Reading a configuration adds what it leaves out.
        case["edit"](hparams)
    cls = get_model_class(hparams["architectures"][0])
    for model in subclasses(TextModel):
        model.set_vocab = no_vocabulary
    if hasattr(cls, "no_mtp"):
        cls.no_mtp = True
    with torch.inference_mode():
        writer = cls(folder, kind, out, hparams=hparams, **options)
        writer.write()


def relabel(file, arch, values):
    """The same tensors as another architecture's, with further parameters."""
    reader = gguf.GGUFReader(file)
    old = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(f"{file}.new", arch)
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            kind = field.types[0]
            sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            name = field.name.replace(f"{old}.", f"{arch}.", 1)
            if name not in values:
                writer.add_key_value(name, field.contents(), kind, sub)
    for name, value in values.items():
        writer.add_float32(name, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(f"{file}.new", file)


def write(case, file, matrices):
    """A model that transformers does not know, with random weights."""
    writer = gguf.GGUFWriter(file, case["direct"])
    generator = np.random.default_rng(case.get("seed", 1))
    for name, value in case["parameters"].items():
        add = {bool: writer.add_bool, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(f"{case['direct']}.{name}", value)
    writer.add_tokenizer_model("none")
    if types := case.get("token_types"):
        writer.add_token_type_count(types)
    for name, (shape, start, spread) in case["tensors"].items():
        tensor = (start + spread * generator.standard_normal(shape)).astype(np.float16)
        small = sum(size > 1 for size in shape) < 2 or "lerp" in name
        writer.add_tensor(name, tensor.astype(np.float32 if small else matrices))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run_llama_cpp(folder, file):
    pairs = [x for key, ids in SEQUENCES.items() for x in (f"{folder}/{key}", ",".join(map(str, ids)))]
    done = subprocess.run([os.environ["LLAMA_LOGITS"], str(file), *pairs], capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()[-300:]
    load = lambda key: np.fromfile(f"{folder}/{key}", np.float32).reshape(-1, VOCABULARY)
    return {key: load(key) for key in SEQUENCES}


def of_llama_cpp(folder, case):
    """What llama.cpp makes of the same weights in single precision: nothing where it is not given, or its error."""
    program = os.environ.get("LLAMA_LOGITS")
    if not program:
        return {}
    file = Path(folder) / "f32.gguf"
    convert(Path(folder), file, case, gguf.LlamaFileType.ALL_F32)
    if arch := case.get("relabel"):
        relabel(file, arch, case.get("set", {}))
    return run_llama_cpp(folder, file)


def make_direct(name, case):
    file = HERE / f"{name}.gguf"
    write(case, file, np.float16)
    with tempfile.TemporaryDirectory() as folder:
        single = Path(folder) / "f32.gguf"
        write(case, single, np.float32)
        found = run_llama_cpp(folder, single)
    if isinstance(found, str):
        raise RuntimeError(found)
    return save(name, file, found, LLAMA, "")


def save(name, file, found, by, line):
    np.save(HERE / f"{name}.s33.npy", found["s33"])
    np.save(HERE / f"{name}.last.npy", np.stack([found["s8"][-1], found["s96"][-1]]))
    arch = gguf.GGUFReader(file).get_field("general.architecture").contents()
    spread = float(found["s96"].std())
    print(f"{name}: {arch}, {file.stat().st_size} bytes, logits' deviation {spread:.2f}{line}", flush=True)
    return {"name": name, "arch": arch, "file": file.name, "by": by}


def make(name, case):
    if "direct" in case:
        return make_direct(name, case)
    config = case["config"]()
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = case["model"]()(config).eval().float()
    randomize(model, case.get("seed", 1))
    if "adjust" in case:
        with torch.no_grad():
            case["adjust"](model)
    found = {key: logits(model, ids, case.get("cache", False)) for key, ids in SEQUENCES.items()}
    with tempfile.TemporaryDirectory() as temporary:
        # The converter calls the model by its folder.
        folder = f"{temporary}/{name}"
        model.save_pretrained(folder)
        if "rename" in case:
            path = str(Path(folder) / "model.safetensors")
            tensors = load_file(path)
            for old, new in case["rename"]:
                tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
            save_file(tensors, path, {"format": "pt"})
        if "edit" in case:
            path = Path(folder) / "config.json"
            hparams = json.loads(path.read_text())
            case["edit"](hparams)
            path.write_text(json.dumps(hparams))
        # Some converters count the tokens.
        vocabulary = {"model": {"vocab": {str(i): i for i in range(VOCABULARY)}}, "added_tokens": []}
        (Path(folder) / "tokenizer.json").write_text(json.dumps(vocabulary))
        file = HERE / f"{name}.gguf"
        convert(Path(folder), file, case)
        if arch := case.get("relabel"):
            relabel(file, arch, case.get("set", {}))
        other = of_llama_cpp(folder, case)
        if isinstance(other, str):
            line = f"; llama.cpp fails: {other}"
        else:
            worst = max(divergence(found[key], other[key]) for key in other) if other else 0
            line = f"; divergence of llama.cpp {worst:.1e}" if other else ""
        by = f"transformers {transformers.__version__}"
        if case.get("reference") == "llama.cpp":
            found, by = other, LLAMA
    return save(name, file, found, by, line)


def main():
    import logging
    logging.disable(logging.WARNING)
    index = HERE / "INDEX.json"
    all = json.loads(index.read_text())["models"] if index.exists() else []
    for name in sys.argv[2:] or CASES:
        try:
            made = make(name, CASES[name])
        except Exception as error:
            if len(sys.argv) == 3:
                raise
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            continue
        all = [case for case in all if case["name"] != name] + [made]
    all.sort(key=lambda case: case["name"])
    lines = ",\n".join("  " + json.dumps(case) for case in all)
    sequences = ",\n".join(f"  {json.dumps(key)}: {json.dumps(ids)}" for key, ids in SEQUENCES.items())
    index.write_text(f'{{\n "sequences": {{\n{sequences}\n }},\n "models": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
