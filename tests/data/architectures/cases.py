"""The tiny models, one for each architecture: a class of transformers and the sizes of its parts."""
import transformers as t

SMALL = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def case(name, causal=None, **more):
    """A case by the names of transformers' classes; `SMALL` with `more` on top, `...` takes a value away."""
    extra = {key: more.pop(key) for key in ("seed", "adjust", "cache", "edit", "relabel", "set", "reference", "rename") if key in more}
    own = more.pop("own", False)
    settings = {**({} if own else SMALL), **more}
    settings = {key: value for key, value in settings.items() if value is not ...}
    config = lambda: getattr(t, f"{name}Config")(**settings)
    return {"config": config, "model": lambda: getattr(t, causal or f"{name}ForCausalLM"), **extra}


EXPERTS = dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=16)

SECTIONS = dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5, mrope_section=[2, 1, 1],
                mrope_interleaved=True)

NEMOTRON_H = dict(head_dim=8, num_hidden_layers=..., mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=16, n_groups=2,
                  time_step_min=1e-30, use_mamba_kernels=False)

CASES = {
    # ---- mixtures of experts
    "qwen2moe": case("Qwen2Moe", **EXPERTS, shared_expert_intermediate_size=24, decoder_sparse_step=1, mlp_only_layers=[]),
    "qwen3moe": case("Qwen3Moe", **EXPERTS, head_dim=12, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[]),
    "olmoe": case("Olmoe", num_key_value_heads=4, num_experts=8, num_experts_per_tok=3, intermediate_size=16),
    "granitemoe": case("GraniteMoe", num_local_experts=8, num_experts_per_tok=3, intermediate_size=16,
                       attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.6, logits_scaling=2.0),
    # ---- dense
    "qwen2": case("Qwen2"),
    "gptneox": case("GPTNeoX", num_key_value_heads=..., rotary_pct=0.5, use_parallel_residual=True),
    "gptneox-sequential": case("GPTNeoX", num_key_value_heads=..., rotary_pct=0.5, use_parallel_residual=False),
    "gemma": case("Gemma", head_dim=16),
    "phi2": case("Phi", intermediate_size=128, partial_rotary_factor=0.5, num_key_value_heads=4, hidden_act="gelu_new"),
    "granite": case("Granite", attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.6,
                    logits_scaling=2.0),
    "smollm3": case("SmolLM3", num_hidden_layers=4, no_rope_layer_interval=4),
    "starcoder2": case("Starcoder2", use_bias=True),
    "stablelm": case("StableLm", partial_rotary_factor=0.5, use_qkv_bias=True),
    "falcon": case("Falcon", own=True, vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                   multi_query=True, num_kv_heads=1, parallel_attn=True, bias=False, new_decoder_architecture=False, alibi=False,
                   ffn_hidden_size=128, max_position_embeddings=128),
    "falcon40b": case("Falcon", own=True, vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                      num_kv_heads=2, new_decoder_architecture=True, bias=False, alibi=False, ffn_hidden_size=128,
                      max_position_embeddings=128),
    "cohere": case("Cohere", logit_scale=0.25),
    "exaone4": case("Exaone4", num_hidden_layers=4, sliding_window=16, sliding_window_pattern=4),
    "glm4": case("Glm4", head_dim=16, partial_rotary_factor=0.5, attention_bias=True),
    "ernie4-5": case("Ernie4_5", head_dim=16, use_bias=False),
    "hunyuan-dense": case("HunYuanDenseV1", head_dim=16),
    "seed-oss": case("SeedOss", head_dim=16, attention_bias=True, attention_out_bias=False),
    "nemotron": case("Nemotron", partial_rotary_factor=0.5, head_dim=8, edit=lambda h: h.update(rope_theta=10000.0)),
    "minicpm": case("Llama", relabel="minicpm", reference="llama.cpp",
                    set={"minicpm.embedding_scale": 3.0, "minicpm.residual_scale": 0.6, "minicpm.logit_scale": 2.0}),
    "baichuan-7b": case("Llama", hidden_size=16, intermediate_size=16, num_hidden_layers=32, num_attention_heads=2,
                        num_key_value_heads=2, relabel="baichuan", reference="llama.cpp"),
    "baichuan-13b": case("Llama", hidden_size=16, intermediate_size=16, num_hidden_layers=40, num_attention_heads=2,
                         num_key_value_heads=2, relabel="baichuan", reference="llama.cpp"),
    "internlm2": case("Llama", relabel="internlm2", reference="llama.cpp"),
    "bitnet": case("BitNet", hidden_act="silu", tie_word_embeddings=True, reference="llama.cpp",
                   rename=[("ffn_sub_norm", "ffn_layernorm"), ("attn_sub_norm", "inner_attn_ln")]),
    "glm4moe": case("Glm4Moe", head_dim=16, partial_rotary_factor=0.5, attention_bias=True, use_qk_norm=True,
                    n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=1,
                    first_k_dense_replace=1, n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=1.5,
                    num_hidden_layers=3),
    "phimoe": case("Phimoe", num_local_experts=4, num_experts_per_tok=2, intermediate_size=16, attention_bias=True,
                   lm_head_bias=True, input_jitter_noise=0.0, router_jitter_noise=0.01,
                   edit=lambda h: h.update(architectures=["PhiMoEForCausalLM"], original_max_position_embeddings=48)),
    "phi3-longrope": case("Phi3", max_position_embeddings=96, original_max_position_embeddings=48,
                          rope_scaling=dict(type="longrope", short_factor=[1.0, 1.1, 1.2, 1.3],
                                            long_factor=[1.0, 2.0, 3.0, 4.0])),
    "llama-linear": case("Llama", rope_scaling=dict(rope_type="linear", factor=4.0)),
    "llama-yarn": case("Llama", head_dim=16, max_position_embeddings=256,
                       rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)),
    # ---- windows
    "gpt-oss": case("GptOss", head_dim=8, num_local_experts=4, num_experts_per_tok=2, intermediate_size=32,
                    sliding_window=16, layer_types=["sliding_attention", "full_attention"],
                    rope_scaling=dict(rope_type="yarn", factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=True,
                                      original_max_position_embeddings=32), max_position_embeddings=128),
    "gemma3": case("Gemma3Text", causal="Gemma3ForCausalLM", head_dim=8, num_hidden_layers=6, sliding_window=16,
                   query_pre_attn_scalar=8, rope_scaling=dict(rope_type="linear", factor=8.0)),
    "olmo3": case("Olmo3", num_hidden_layers=4, sliding_window=16),
    "ministral3": case("Ministral3", head_dim=8, max_position_embeddings=256, rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=32, beta_fast=32.0,
        type="yarn", beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1)),
    "gemma2": case("Gemma2", head_dim=16, num_hidden_layers=4, sliding_window=16, query_pre_attn_scalar=16,
                   attn_logit_softcapping=5.0, final_logit_softcapping=4.0),
    "cohere2": case("Cohere2", edit=lambda h: h.update(rotary_pct=1.0), num_hidden_layers=4, sliding_window=16, sliding_window_pattern=4, logit_scale=0.25),
    # ---- biases of positions
    "bloom": case("Bloom", own=True, vocab_size=64, hidden_size=32, n_layer=2, n_head=4),
    "mpt": case("Mpt", own=True, vocab_size=64, d_model=32, n_layers=2, n_heads=4, expansion_ratio=4, max_seq_len=128, edit=lambda h: h.update(architectures=["MPTForCausalLM"])),
    # ---- latent attention
    "deepseek2-lite": case("DeepseekV2", first_k_dense_replace=1, kv_lora_rank=16, q_lora_rank=None,
                           qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10, n_routed_experts=8,
                           num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=2, num_key_value_heads=4,
                           num_hidden_layers=3, topk_method="greedy", n_group=1, topk_group=1),
    "deepseek3": case("DeepseekV3", first_k_dense_replace=1, kv_lora_rank=16, q_lora_rank=24, qk_nope_head_dim=12,
                      qk_rope_head_dim=8, v_head_dim=10, n_routed_experts=8, num_experts_per_tok=3,
                      moe_intermediate_size=16, n_shared_experts=1, num_key_value_heads=4, num_hidden_layers=3,
                      n_group=4, topk_group=2, norm_topk_prob=True, routed_scaling_factor=2.5,
                      max_position_embeddings=256, rope_scaling=dict(type="yarn", factor=8.0, mscale=1.0,
                      mscale_all_dim=1.0, original_max_position_embeddings=32, beta_fast=32, beta_slow=1),
                      edit=lambda h: h.update(scoring_func="sigmoid")),
    # ---- recurrent
    "qwen3next": case("Qwen3Next", **EXPERTS, head_dim=16, num_hidden_layers=4, linear_num_key_heads=2,
                      linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
                      linear_conv_kernel_dim=4, shared_expert_intermediate_size=16, partial_rotary_factor=0.5,
                      norm_topk_prob=True),
    "qwen35": case("Qwen3_5Text", causal="Qwen3_5ForCausalLM", head_dim=16, num_hidden_layers=4,
                   linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
                   linear_conv_kernel_dim=4, rope_parameters=SECTIONS),
    "qwen35moe": case("Qwen3_5MoeText", causal="Qwen3_5MoeForCausalLM", head_dim=16, num_hidden_layers=4,
                      linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16,
                      linear_value_head_dim=16, linear_conv_kernel_dim=4, **EXPERTS, shared_expert_intermediate_size=16,
                      rope_parameters=SECTIONS),
    "mamba": case("Mamba", own=True, vocab_size=64, hidden_size=32, state_size=8, num_hidden_layers=2, time_step_rank=4),
    "mamba2": case("Mamba2", own=True, vocab_size=64, hidden_size=32, state_size=16, num_hidden_layers=2, head_dim=16,
                   num_heads=4, n_groups=1, expand=2),
    "lfm2": case("Lfm2", num_hidden_layers=4, conv_L_cache=3, full_attn_idxs=[1, 3], block_auto_adjust_ff_dim=False),
    "lfm2moe": case("Lfm2Moe", num_hidden_layers=4, conv_L_cache=3, num_dense_layers=1, **EXPERTS,
                    layer_types=["conv", "full_attention", "conv", "full_attention"]),
    "granitehybrid": case("GraniteMoeHybrid", num_hidden_layers=4, num_local_experts=0, shared_intermediate_size=48,
                          layer_types=["mamba", "attention", "mamba", "attention"], mamba_n_heads=4, mamba_d_head=16,
                          mamba_d_state=16, mamba_n_groups=1, mamba_expand=2, position_embedding_type="nope",
                          attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.6,
                          logits_scaling=2.0),
    "falcon-h1": case("FalconH1", head_dim=16, mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=16,
                      mamba_n_groups=1, mamba_rms_norm=False),
    "nemotron-h": case("NemotronH", **NEMOTRON_H,
                       layers_block_type=["linear_attention", "full_attention", "mlp", "linear_attention"],
                       edit=lambda h: (h.pop("num_experts_per_tok", None), h.update(hybrid_override_pattern="M*-M"))),
    "nemotron-h-moe": case("NemotronH", **NEMOTRON_H, moe_intermediate_size=16, moe_shared_expert_intermediate_size=24,
                           n_routed_experts=8, num_experts_per_tok=3, routed_scaling_factor=1.5,
                           layers_block_type=["linear_attention", "moe", "full_attention", "moe"]),
    "jamba": case("Jamba", num_hidden_layers=4, num_experts=4, num_experts_per_tok=2, expert_layer_period=2,
                  expert_layer_offset=1, attn_layer_period=2, attn_layer_offset=1, mamba_d_state=8, mamba_d_conv=4,
                  mamba_expand=2, mamba_dt_rank=4, use_mamba_kernels=False),
    # ---- others
    "gemma4": case("Gemma4Text", causal="Gemma4ForCausalLM", head_dim=8, global_head_dim=16, num_hidden_layers=6,
                   sliding_window=16, hidden_size_per_layer_input=8, vocab_size_per_layer_input=64,
                   num_kv_shared_layers=2, use_double_wide_mlp=True, final_logit_softcapping=4.0,
                   layer_types=["sliding_attention", "full_attention"] * 3),
    "gemma4-moe": case("Gemma4Text", causal="Gemma4ForCausalLM", head_dim=8, global_head_dim=16, num_hidden_layers=4,
                       sliding_window=16, hidden_size_per_layer_input=0, num_kv_shared_layers=0, enable_moe_block=True,
                       num_experts=4, top_k_experts=2, moe_intermediate_size=16, attention_k_eq_v=True,
                       num_global_key_value_heads=1, layer_types=["sliding_attention", "full_attention"] * 2),
    "llama4": case("Llama4Text", causal="Llama4ForCausalLM", head_dim=16, num_hidden_layers=4, num_local_experts=4,
                   num_experts_per_tok=1, interleave_moe_layer_step=2, intermediate_size_mlp=48, intermediate_size=16,
                   attention_chunk_size=8192, use_qk_norm=True),
    "gemma3n": case("Gemma3nText", causal="Gemma3nForCausalLM", head_dim=16, num_hidden_layers=4,
                    hidden_size_per_layer_input=8, vocab_size_per_layer_input=64, num_kv_shared_layers=2,
                    laurel_rank=8, sliding_window=16,
                    layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
                    activation_sparsity_pattern=[0.8, 0.0, 0.0, 0.0], intermediate_size=[48] * 4,
                    cache=True,  # without one the last layers do not share keys and values
                    rename=[("per_layer_model.language_model_projection", "per_layer_model_projection")]),
}


def rwkv7(width=64, head=64, inner=64, rank=8, layers=2, vocabulary=64):
    """RWKV 7, of which transformers has no code: parameters, and tensors with their shapes and spreads.

    Heads of 64 values: with AVX-512 ggml counts on whole steps of so many."""
    fan = lambda rows, columns: ((rows, columns), 0.0, 1.6 / columns**0.5)
    around = lambda start, spread=0.2: ((width,), start, spread)
    tensors = {"token_embd.weight": ((vocabulary, width), 0.0, 1.0), "token_embd_norm.weight": around(1.0),
               "token_embd_norm.bias": around(0.0), "output_norm.weight": around(1.0), "output_norm.bias": around(0.0),
               "output.weight": fan(vocabulary, width)}
    for layer in range(layers):
        own = {"attn_norm.weight": around(1.0), "attn_norm.bias": around(0.0), "attn_norm_2.weight": around(1.0),
               "attn_norm_2.bias": around(0.0), "time_mix_lerp_fused.weight": ((6, 1, 1, width), 0.5, 0.2),
               "time_mix_k_k.weight": around(1.0), "time_mix_k_a.weight": around(1.0), "time_mix_r_k.weight": around(0.0),
               "time_mix_ln.weight": around(1.0), "time_mix_ln.bias": around(0.0),
               "channel_mix_lerp_k.weight": ((1, 1, width), 0.5, 0.2),
               "channel_mix_key.weight": fan(inner, width), "channel_mix_value.weight": fan(width, inner)}
        for part in "wavg":
            own |= {f"time_mix_{part}1.weight": fan(rank, width), f"time_mix_{part}2.weight": fan(width, rank)}
            if part != "g":
                own[f"time_mix_{part}0.weight"] = around(0.0, 0.5)
        for part in ("receptance", "key", "value", "output"):
            own[f"time_mix_{part}.weight"] = fan(width, width)
        tensors |= {f"blk.{layer}.{name}": tensor for name, tensor in own.items()}
    parameters = {"context_length": 1024, "embedding_length": width, "block_count": layers, "wkv.head_size": head,
                  "attention.head_count": 0, "attention.layer_norm_epsilon": 1e-5, "feed_forward_length": inner,
                  "vocab_size": vocabulary, "token_shift_count": 2}
    parameters |= {f"attention.{part}_lora_rank": rank for part in ("decay", "iclr", "value_residual_mix", "gate")}
    return {"direct": "rwkv7", "parameters": parameters, "tensors": tensors}


CASES["rwkv7"] = rwkv7()
