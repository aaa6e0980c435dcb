#!/usr/bin/env python3
"""embeddings.py LLAMA_CPP [NAME...]: makes the tiny models that embed, and the embeddings that are expected of them.

As `make.py` does it for logits: random weights of a fixed seed, exact in half precision; the reference is the last hidden
states of transformers in float32 with eager attention, all of one sequence and pooled of several lengths. Models that
transformers has no code of are held against llama.cpp: a program `LLAMA_EMBEDDINGS` (MODEL OUT TOKENS, ...) writes its
hidden states. Where that is given, the others are compared with it too.
"""
import json, os, subprocess, sys, tempfile
from pathlib import Path

import numpy as np
import torch
import transformers as t
from safetensors.torch import save_file

from make import HERE, LLAMA, VOCABULARY, convert, gguf, randomize, tokens, write

TOKENS = tokens(512, 512)
# Around the edges of blocks and tiles, across every window, and as long as the models can.
LENGTHS = [1, 31, 32, 33, 96, 512]
# The one whose tokens' vectors are all kept.
WHOLE = 33

SMALL = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
             max_position_embeddings=512, pad_token_id=0)


def case(name, pooling, model=None, **more):
    """A case by the names of transformers' classes; `SMALL` with `more` on top."""
    extra = {key: more.pop(key) for key in ("edit", "dense", "make") if key in more}
    config = lambda: getattr(t, f"{name}Config")(**{**SMALL, **more})
    return {"config": config, "model": lambda: getattr(t, model or f"{name}Model"), "pooling": pooling, **extra}


def as_first_published(h):
    """The parameters of Nomic's own code, by which files are converted."""
    h.update(n_embd=32, n_head=4, n_inner=48, n_layer=3, n_positions=2048, activation_function="swiglu", causal=False,
             qkv_proj_bias=False, mlp_fc1_bias=False, mlp_fc2_bias=False, prenorm=False, rotary_emb_fraction=1.0,
             rotary_emb_interleaved=False, rotary_emb_scale_base=None, rotary_emb_base=1000.0, layer_norm_epsilon=1e-12)
    for name in ("rope_parameters", "rope_theta"):
        h.pop(name, None)


def fan(rows, columns):
    return (rows, columns), 0.0, 1.6 / columns**0.5


def around(start, len=32):
    return (len,), start, 0.2


def encoder(arch, parameters, layer, width=32, inner=48, layers=3):
    """A model of BERT's kin of which transformers has no code: parameters, and tensors with their shapes and spreads."""
    norm = lambda name: {f"{name}.weight": around(1.0), f"{name}.bias": around(0.0)}
    tensors = {"token_embd.weight": ((VOCABULARY, width), 0.0, 1.0), "token_types.weight": ((2, width), 0.0, 1.0),
               **norm("token_embd_norm")}
    for number in range(layers):
        own = {"attn_output.weight": fan(width, width), "attn_output.bias": around(0.0), **norm("attn_output_norm"),
               **norm("layer_output_norm"), **layer(number, norm)}
        tensors |= {f"blk.{number}.{name}": tensor for name, tensor in own.items()}
    parameters = {"vocab_size": VOCABULARY, "context_length": 512, "embedding_length": width, "block_count": layers, "feed_forward_length": inner,
                  "attention.head_count": 4, "attention.layer_norm_epsilon": 1e-12, "attention.causal": False, **parameters}
    return {"direct": arch, "token_types": 2, "parameters": parameters, "tensors": tensors}


def nomic_moe(number, norm, width=32, inner=48, experts=4):
    own = {"attn_qkv.weight": fan(3 * width, width), "attn_qkv.bias": around(0.0, 3 * width)}
    if number % 2 == 1:
        return own | {"ffn_gate_inp.weight": fan(experts, width),
                      "ffn_up_exps.weight": ((experts, inner, width), 0.0, 1.6 / width**0.5),
                      "ffn_down_exps.weight": ((experts, width, inner), 0.0, 1.6 / inner**0.5)}
    return own | {"ffn_up.weight": fan(inner, width), "ffn_up.bias": around(0.0, inner),
                  "ffn_down.weight": fan(width, inner), "ffn_down.bias": around(0.0)}


def jina(gated_by, norms):
    def layer(number, norm, width=32, inner=48):
        own = {f"attn_{part}.{kind}": fan(width, width) if kind == "weight" else around(0.0)
               for part in "qkv" for kind in ("weight", "bias")}
        own |= {"ffn_down.weight": fan(width, inner), "ffn_down.bias": around(0.0)}
        rows = 2 * inner if gated_by == "up" else inner
        own |= {"ffn_up.weight": fan(rows, width)}
        if gated_by == "gate":
            own |= {"ffn_gate.weight": fan(inner, width)}
        for name in norms:
            own |= norm(name)
        return own
    return layer


CASES = {
    "bert": case("Bert", "mean", layer_norm_eps=1e-12),
    "roberta": case("Roberta", "cls", max_position_embeddings=514, pad_token_id=1, type_vocab_size=1),
    "roberta-rank": case("Roberta", "rank", "RobertaForSequenceClassification", max_position_embeddings=514, pad_token_id=1,
                         type_vocab_size=1, num_labels=1),
    "qwen3-embedding": case("Qwen3", "last", num_key_value_heads=2, head_dim=8),
    "modern-bert": case("ModernBert", "cls", num_hidden_layers=4, local_attention=16, global_attn_every_n_layers=3,
                        bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
                        edit=lambda h: h.update(layer_norm_eps=h["norm_eps"])),
    "gemma-embedding": case("Gemma3Text", "mean", "Gemma3TextModel", num_hidden_layers=6, num_key_value_heads=1, head_dim=8,
                            query_pre_attn_scalar=8, sliding_window=16, use_bidirectional_attention=True, dense=[(32, 64), (64, 32)],
                            edit=lambda h: h.update(sliding_window=16)),
    "nomic-bert": case("NomicBert", "mean", rope_parameters=dict(rope_type="default", rope_theta=1000.0),
                       edit=as_first_published),
    "nomic-bert-moe": {**encoder("nomic-bert-moe", {"moe_every_n_layers": 2, "expert_count": 4, "expert_used_count": 2,
                                                    "rope.freq_base": 10000.0}, nomic_moe), "pooling": "mean"},
    "jina-bert-v2": {**encoder("jina-bert-v2", {}, jina("gate", ["attn_q_norm", "attn_k_norm"])), "pooling": "mean"},
    "jina-bert-v2-code": {**encoder("jina-bert-v2", {}, jina("up", ["attn_norm_2"])), "pooling": "mean"},
}
MODULES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}


def of_llama_cpp(folder, file):
    """Hidden states of each length."""
    pairs = [x for n in LENGTHS for x in (f"{folder}/{n}", ",".join(map(str, TOKENS[:n])))]
    done = subprocess.run([os.environ["LLAMA_EMBEDDINGS"], str(file), *pairs], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    return {n: np.fromfile(f"{folder}/{n}", np.float32).reshape(n, -1) for n in LENGTHS}


def pool(pooling, hidden, dense):
    hidden = torch.tensor(hidden)
    vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
    for matrix in dense:
        vector = matrix @ vector
    return torch.nn.functional.normalize(vector, dim=0).numpy()


def add_modules(folder, case, dense):
    """What sentence-transformers keeps beside a model."""
    modules = [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({MODULES[case["pooling"]]: True}))
    for number, matrix in enumerate(dense, 2):
        path = f"{number}_Dense"
        (folder / path).mkdir()
        save_file({"linear.weight": matrix.contiguous()}, folder / path / "model.safetensors")
        config = {"in_features": matrix.shape[1], "out_features": matrix.shape[0]}
        (folder / path / "config.json").write_text(json.dumps(config))
        modules.append({"path": path, "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))


def from_transformers(name, case, folder):
    """The model's file, what it makes of each length, and what its pooled vectors go through."""
    config = case["config"]()
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = case["model"]()(config).eval().float()
    randomize(model, 1)
    generator = torch.Generator().manual_seed(2)
    dense = [(torch.randn(out, into, generator=generator) / into**0.5).half().float() for into, out in case.get("dense", [])]
    with torch.no_grad():
        results = {n: model(torch.tensor([TOKENS[:n]])) for n in LENGTHS}
    rank = case["pooling"] == "rank"
    found = {n: (result.logits if rank else result.last_hidden_state[0]).numpy() for n, result in results.items()}
    model.save_pretrained(folder)
    path = folder / "config.json"
    hparams = json.loads(path.read_text())
    if "edit" in case:
        case["edit"](hparams)
        path.write_text(json.dumps(hparams))
    if not rank:
        add_modules(folder, case, dense)
    vocabulary = {"model": {"type": "WordPiece", "vocab": {str(i): i for i in range(VOCABULARY)}}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    file = HERE / f"{name}.gguf"
    options = {"sentence_transformers_dense_modules": True} if dense else {}
    convert(folder, file, case, **options)
    return file, found, dense


def make(name, case):
    worst = None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        if "direct" in case:
            file, single = HERE / f"{name}.gguf", folder / "f32.gguf"
            case["parameters"]["pooling_type"] = 1
            write(case, file, np.float16)
            write(case, single, np.float32)
            found, dense, by, line = of_llama_cpp(folder, single), [], LLAMA, ""
        else:
            file, found, dense = from_transformers(name, case, folder)
            by, line = f"transformers {t.__version__}", ""
            # Without pooling llama.cpp sends every token through the dense layers.
            if "LLAMA_EMBEDDINGS" in os.environ and case["pooling"] != "rank" and not dense:
                convert(folder, folder / "f32.gguf", case, gguf.LlamaFileType.ALL_F32)
                other = of_llama_cpp(folder, folder / "f32.gguf")
                worst = float(max(np.abs(found[n] - other[n]).max() for n in LENGTHS))
                line = f"; llama.cpp is off by at most {worst:.1e}"
    if case["pooling"] == "rank":
        np.save(HERE / f"{name}.pooled.npy", np.concatenate([found[n] for n in LENGTHS]))
    else:
        np.save(HERE / f"{name}.s{WHOLE}.npy", found[WHOLE])
        np.save(HERE / f"{name}.pooled.npy", np.stack([pool(case["pooling"], found[n], dense) for n in LENGTHS]))
    arch = gguf.GGUFReader(file).get_field("general.architecture").contents()
    print(f"{name}: {arch}, {file.stat().st_size} bytes, deviation {found[96].std():.2f}{line}", flush=True)
    return {"name": name, "arch": arch, "pooling": case["pooling"], "by": by, "llama_cpp": worst}


def main():
    import logging
    logging.disable(logging.WARNING)
    index = HERE / "EMBEDDINGS.json"
    all = json.loads(index.read_text())["models"] if index.exists() else []
    for name in sys.argv[2:] or CASES:
        made = make(name, CASES[name])
        all = [case for case in all if case["name"] != name] + [made]
    all.sort(key=lambda case: case["name"])
    lines = ",\n".join("  " + json.dumps(case) for case in all)
    index.write_text(f'{{\n "tokens": {json.dumps(TOKENS)},\n "lengths": {json.dumps(LENGTHS)},\n "whole": {WHOLE},\n'
                     f' "models": [\n{lines}\n ]\n}}\n')


main()
