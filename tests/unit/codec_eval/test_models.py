# SPDX-License-Identifier: MIT
"""Decoders of every family run as their own attention runs them, and what is no decoder is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")
transformers = pytest.importorskip("transformers", reason="it is not installed: pip install 'speckv[codec]'")

from speckvctl.reference import loading, rotary  # noqa: E402
from speckvctl.reference.decoder import Decoder, restored  # noqa: E402
from tests.unit.codec_eval import tiny  # noqa: E402

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 80,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
#: family -> what its configuration has beside SIZES, and whether calibrations can undo its rotary embedding
FAMILIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "llama": ("llama", {}, True),
    "llama, one KV head": ("llama", {"num_key_value_heads": 1}, True),
    "llama, as many KV heads as queries": ("llama", {"num_key_value_heads": 4}, True),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3}, True),
    "qwen2": ("qwen2", {}, True),
    "qwen3": ("qwen3", {"head_dim": 32}, True),
    "mistral": ("mistral", {"sliding_window": 96}, True),
    "gemma2": ("gemma2", {"head_dim": 32, "sliding_window": 96, "query_pre_attn_scalar": 32}, True),
    "gemma3": ("gemma3_text", {"head_dim": 32, "sliding_window": 96, "query_pre_attn_scalar": 32}, False),
    "granite": ("granite", {"logits_scaling": 4.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5}, True),
    "phi": ("phi", {}, False),
    "phi3": ("phi3", {}, True),
    "smollm3": ("smollm3", {}, False),
    "olmo2": ("olmo2", {}, True),
}


def written(folder: Path, family: str) -> Path:
    kind, changes, _ = FAMILIES[family]
    torch.manual_seed(5)
    config = transformers.AutoConfig.for_model(kind, **SIZES | changes)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 1.2 / weight.shape[1] ** 0.5)
            elif "bias" in name:
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


def coarse(_layer: int, k: Any, v: Any) -> tuple[Any, Any]:
    return (k * 2).round() / 2, (v * 2).round() / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_attends_to_what_its_store_gives_back(family: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", family)
    model = loading.load(folder)
    exact = Decoder(model.shape, model.module, torch.float32, scale=model.scale, cap=model.cap)
    ids = torch.from_numpy(tiny.documents(2, 200).astype(np.int64))
    own = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        plain = own(ids, use_cache=False).logits
        assert torch.allclose(exact.logits(exact.hidden(ids)), plain, atol=2e-4)
        cache = own(ids[:, :128], use_cache=True).past_key_values
        for layer in cache.layers:
            layer.keys, layer.values = coarse(0, layer.keys, layer.values)
        wanted = own(ids[:, 128:], cache=cache, use_cache=True).logits
        kept = exact.prefix(ids[:, :128])
        found = exact.logits(exact.behind(restored(coarse, kept), ids[:, 128:]))
        raw = exact.logits(exact.behind(kept, ids[:, 128:]))
    assert torch.allclose(raw, plain[:, 128:], atol=2e-4)
    assert torch.allclose(found, wanted, atol=2e-4)
    assert not torch.allclose(found, plain[:, 128:], atol=2e-2)


def test_a_model_runs_in_full_single_precision(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", "llama")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        loading.load(folder)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_without_their_rotary_embedding_do_not_move_with_the_position(family: str, tmp_path: Path) -> None:
    """In the first layer the same token has the same K everywhere but for its embedding."""
    model = loading.load(written(tmp_path / "model", family))
    exact = Decoder(model.shape, model.module, torch.float32)
    keys: list[Any] = []
    with torch.inference_mode():
        exact.hidden(torch.full((1, 300), 7), keep=lambda layer, k, _: keys.append(k) if layer == 0 else None)
    turns = rotary.turns(model)
    assert (turns is not None) == FAMILIES[family][2]
    if turns is not None:
        still = rotary.unrotated(turns, keys[0])
        assert torch.allclose(still, still[:, :, :1].expand_as(still), atol=2e-3)
        assert not torch.allclose(keys[0], still, atol=0.1)


def test_a_gguf_file_is_the_model_that_it_was_made_from(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="it is not installed: pip install 'speckv[codec]'")
    pytest.importorskip("accelerate", reason="it is not installed: pip install 'speckv[codec]'")
    weights = tiny.write(tmp_path / "model")
    file = tmp_path / "model.gguf"
    write_gguf(gguf, file, weights)
    ids = torch.from_numpy(tiny.documents(1, 100).astype(np.int64))
    with torch.inference_mode():
        made = [model.logits(model.hidden(ids)) for model in map(loading.load, (tmp_path / "model", file))]
    assert loading.check(file) == loading.check(tmp_path / "model")
    assert torch.allclose(*made, atol=1e-4)


def test_a_gguf_file_with_more_layers_than_any_model_is_refused_at_once(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="it is not installed: pip install 'speckv[codec]'")
    pytest.importorskip("accelerate", reason="it is not installed: pip install 'speckv[codec]'")
    write_gguf(gguf, tmp_path / "model.gguf", tiny.write(tmp_path / "model"), layers=1 << 30)
    with pytest.raises(loading.ModelError, match="num_hidden_layers: a whole number from 1 to 4096"):
        loading.check(tmp_path / "model.gguf")


def write_gguf(gguf: Any, path: Path, weights: dict[str, tiny.Floats], layers: int = tiny.LAYERS) -> None:
    """In GGUF the rows of q and k of a llama are interleaved."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(tiny.CONTEXT)
    writer.add_embedding_length(tiny.HIDDEN)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(tiny.INNER)
    writer.add_head_count(tiny.HEADS)
    writer.add_head_count_kv(tiny.KV_HEADS)
    writer.add_key_length(tiny.HEAD_DIM)
    writer.add_value_length(tiny.HEAD_DIM)
    writer.add_layer_norm_rms_eps(tiny.EPSILON)
    writer.add_rope_freq_base(tiny.THETA)
    writer.add_vocab_size(tiny.VOCABULARY)
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attn_output"}
    names |= {f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"}
    names |= {f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")}
    for name, weight in weights.items():
        if name == "model.embed_tokens.weight":
            writer.add_tensor("token_embd.weight", weight)
        elif name == "model.norm.weight":
            writer.add_tensor("output_norm.weight", weight)
        else:
            _, _, layer, rest = name.split(".", 3)
            kind = rest.removesuffix(".weight")
            if kind in ("self_attn.q_proj", "self_attn.k_proj"):
                heads = weight.shape[0] // tiny.HEAD_DIM
                weight = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
            writer.add_tensor(f"blk.{layer}.{names[kind]}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.shared
def test_the_real_model_makes_the_published_k_and_v(shared_dir: Path) -> None:
    from safetensors import safe_open

    model = loading.load(shared_dir / "model")
    ids = np.load(shared_dir / "model" / "eval_dev.npy").astype(np.int64)
    made: dict[int, Any] = {}
    with torch.inference_mode():
        model.hidden(torch.from_numpy(ids[29:30, :512]), keep=lambda layer, k, v: made.update({layer: (k[0], v[0])}))
    with safe_open(shared_dir / "model" / "kv_dev.safetensors", "pt") as file:
        for kind, own in zip("kv", made[3], strict=True):
            published = file.get_tensor(f"bf16.doc029.layer3.{kind}")[:, :512].float()
            # Made in other arithmetic (TF32, and K rounded before its rotary embedding too): half the values agree
            # to the bit, the rest nearly.
            assert ((own - published).pow(2).sum() / published.pow(2).sum()).sqrt() < 3e-3
            assert (own == published).float().mean() > 0.5


BROKEN_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "a type that there is not": ({"model_type": "gpt9"}, "of type gpt9, which transformers"),
    "no type": ({"model_type": None}, "of type None"),
    "its own code": ({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}, "code .* is not run"),
    "an encoder": ({"model_type": "vit"}, "of type vit is not a decoder"),
    "an encoder and a decoder": ({"model_type": "t5"}, "of type t5 is not a decoder"),
    "latents": ({"kv_lora_rank": 64}, "latent vectors in place of K and V"),
    "scales": ({"quantization_config": {"quant_method": "gptq"}}, "need scales"),
    "heads that do not divide": ({"num_key_value_heads": 3}, r"k_proj.weight is \[128, 32\]; \[192, 32\] was expected"),
    "an odd head": ({"head_dim": 63}, "transformers cannot load it"),
    "no layers": ({"num_hidden_layers": 0}, "num_hidden_layers: a whole number from 1"),
    "more layers than any model": ({"num_hidden_layers": 10**12}, "num_hidden_layers: a whole number from 1"),
    "no number": ({"hidden_size": "many"}, "hidden_size: a whole number"),
    "a truth value": ({"hidden_size": True}, "hidden_size: a whole number"),
    "a fraction": ({"vocab_size": 50.5}, "vocab_size: a whole number"),
    "no epsilon": ({"rms_norm_eps": None}, "transformers cannot load it"),
    "rope of another kind": ({"rope_parameters": [1]}, "transformers cannot load it"),
    "other weights": ({"hidden_size": 64}, "was expected"),
    "more layers than weights": ({"num_hidden_layers": 3}, r"has no tensor model\.layers\.2\.\S+ and 8 more"),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_a_model_that_cannot_be_run_is_refused_by_name(case: str, tmp_path: Path) -> None:
    changes, reason = BROKEN_MODELS[case]
    tiny.write(tmp_path, **changes)
    for take in (loading.check, loading.load):
        with pytest.raises(loading.ModelError, match=reason) as caught:
            take(tmp_path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_what_sees_the_tokens_behind_is_no_decoder(tmp_path: Path) -> None:
    torch.manual_seed(5)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=50, is_decoder=False, **sizes)
    model = transformers.BertLMHeadModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.5)
    model.save_pretrained(tmp_path)
    with pytest.raises(loading.ModelError, match="is not a decoder: a token sees the ones behind it"):
        loading.load(tmp_path)


def test_a_model_without_k_and_v_is_refused(tmp_path: Path) -> None:
    config = transformers.MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=8)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(loading.ModelError, match="has no attention, and so no K and V"):
        loading.check(tmp_path)


def test_weights_that_need_scales_are_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny.write(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    for dtype, name in ((torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e5m2, "F8_E5M2"), (torch.int8, "I8")):
        save_file(weights | {"model.norm.weight": weights["model.norm.weight"].to(dtype)}, file)
        for take in (loading.check, loading.load):
            with pytest.raises(loading.ModelError, match=f"model.norm.weight is {name};"):
                take(tmp_path)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        save_file({name: weight.to(dtype) for name, weight in weights.items()}, file)
        loading.check(tmp_path)
        loading.load(tmp_path)


def test_damaged_model_files_are_refused_by_name(tmp_path: Path) -> None:
    tiny.write(tmp_path, shards=2)
    shard = tmp_path / "model-1.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4])
    with pytest.raises(loading.ModelError, match="shorter or longer than its tensors"):
        loading.load(tmp_path)
    shard.write_bytes(whole[:-4] + np.array([np.nan], np.float32).tobytes())
    with pytest.raises(loading.ModelError, match="not numbers"):
        loading.load(tmp_path)
    shard.unlink()
    with pytest.raises(loading.ModelError, match="is missing"):
        loading.load(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text("utf-8"))
    table["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(table), "utf-8")
    with pytest.raises(loading.ModelError, match="names no file of this folder"):
        loading.load(tmp_path)
    for text in (b"[", b"[]", b"\xff", b'{"weight_map": 1, "weight_map": 2}', b"[" * 100_000, b'{"a": NaN}'):
        index.write_bytes(text)
        with pytest.raises(loading.ModelError, match="cannot be read") as caught:
            loading.load(tmp_path)
        assert "Expecting" not in str(caught.value)


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("GGU")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00")
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for place, reason in (
        (tmp_path / "notes.txt", "neither a model folder nor a GGUF file"),
        (tmp_path / "cut.gguf", "transformers cannot load it"),
        (tmp_path, r"has pytorch_model\.bin but no model\.safetensors"),
    ):
        with pytest.raises(loading.ModelError, match=reason):
            loading.check(place)
    with pytest.raises(FileNotFoundError):
        loading.check(tmp_path / "nothing")
