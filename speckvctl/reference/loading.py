# SPDX-License-Identifier: MIT
"""Loads a model folder or a GGUF file with `transformers` as a Decoder, and refuses what is none. Needs torch.

No code of a model folder is run, nothing is fetched, and weights are read from safetensors or GGUF only.
"""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from speckvctl import jsontext, tensorfiles
from speckvctl.errors import UnsupportedError
from speckvctl.reference.decoder import NAME, Decoder, Shape, attention

MAX_JSON_BYTES = 16 << 20
GGUF = b"GGUF"
DTYPES = ("BF16", "F16", "F32", "F64", "I32", "I64", "BOOL")  # narrower weights need scales, which are not read
LOGITS_APART = 1e-3  # most that logits may differ from transformers' own, relative to the largest
#: Sizes in a configuration, and the most each may be: more is not a model, and would only fill the memory.
SIZES = {
    "num_hidden_layers": 1 << 12,
    "num_attention_heads": 1 << 16,
    "num_key_value_heads": 1 << 16,
    "head_dim": 1 << 16,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "vocab_size": 1 << 26,
    "max_position_embeddings": 1 << 30,
    "num_local_experts": 1 << 16,
    "num_experts": 1 << 16,
}


class ModelError(Exception):
    """Not a model, or one that is not supported."""

    def __init__(self, path: Path, reason: str, number: int = errno.EBADMSG) -> None:
        super().__init__(f"{path}: {reason}")
        self.errno = number


def load(path: Path, dtype: str = "bf16", device: str = "cpu") -> Decoder:
    """The decoder of a model folder with safetensors, or of a GGUF file.

    Has torch multiply in full single precision in this process from here on. TF32 keeps ten bits of a factor: it would
    turn a rotary embedding by up to a radian at token 2048.
    """
    shape = check(path)
    torch.set_float32_matmul_precision("highest")
    module = _from(path, "cpu")
    for name, weight in module.named_parameters():
        if not weight.isfinite().all():
            raise ModelError(path, f"{name} holds values that are not numbers")
    module = module.to(device)
    config = module.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    scale = float(getattr(module, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1))
    cache = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    decoder = Decoder(shape, module, cache, device, scale, cap)
    _try(path, decoder)
    return decoder


def check(path: Path) -> Shape:
    """The shape of a model that load() accepts, judged without its weights' values."""
    if path.is_dir():
        _check_folder(path)
    else:
        _check_gguf(path)
    return _probe(path, _from(path, "meta"))


def tokenizer(path: Path, instead: str = "give token ids, .npy, instead") -> Callable[[str], list[int]]:
    """The tokenizer that lies beside the weights: text -> ids. `instead`: what to do where there is none."""
    place, named = _place(path)
    try:
        found = _transformers().AutoTokenizer.from_pretrained(place, trust_remote_code=False, **_LOCAL, **named)
    except Exception as exc:
        raise ModelError(path, f"has no tokenizer that transformers can load; {instead}") from exc
    return lambda text: list(found(text, verbose=False)["input_ids"])


_LOCAL: dict[str, Any] = {"local_files_only": True}


def _transformers() -> Any:
    """The package, told to stay silent and off the network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = os.environ["TQDM_DISABLE"] = "1"
    try:
        import transformers
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import eager_mask
    except ImportError as exc:
        raise UnsupportedError(
            "running a model needs transformers 5, which is not installed", "pip install '.[codec]' in the source tree"
        ) from exc
    log: Any = transformers.utils.logging
    log.set_verbosity_error()
    log.disable_progress_bar()
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    return transformers


def _place(path: Path) -> tuple[str, dict[str, str]]:
    return (str(path), {}) if path.is_dir() else (str(path.parent), {"gguf_file": path.name})


def _from(path: Path, device: str) -> Any:
    """transformers' model, in float32; on the device "meta" without memory for its weights."""
    transformers = _transformers()
    place, named = _place(path)
    on: dict[str, Any] = {"device_map": "meta"} if device == "meta" else {}
    try:
        if named:
            on["config"] = config = transformers.AutoConfig.from_pretrained(place, **_LOCAL, **named)
            _complete(path, config)
            _check_sizes(path, config.get_text_config().to_dict())
            if device == "meta":  # its tensors would be read
                with torch.device("meta"):
                    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=NAME).eval()
        module, report = transformers.AutoModelForCausalLM.from_pretrained(
            place,
            dtype=torch.float32,
            attn_implementation=NAME,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported, and refused below
            **_LOCAL,
            **named,
            **on,
        )
    except ModelError:
        raise
    except OSError as exc:
        if exc.filename is not None:
            raise
        raise ModelError(path, f"transformers cannot load it ({_said(exc)})") from exc
    except Exception as exc:
        raise ModelError(path, f"transformers cannot load it ({_said(exc)})", errno.EOPNOTSUPP) from exc
    if missing := sorted(report["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(path, f"has no tensor {missing[0]}{more}")
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise ModelError(path, f"{name} is {list(found)}; {list(wanted)} was expected")
    return module.eval()


def _complete(path: Path, config: Any) -> None:
    """Set the size of a head as the GGUF file tells it: transformers takes it from other sizes for some models."""
    from gguf import GGUFReader

    fields = GGUFReader(str(path)).fields
    kind = fields["general.architecture"].contents()
    length = fields.get(f"{kind}.attention.key_length")
    if length is not None and getattr(config, "head_dim", None):
        config.head_dim = int(length.contents())


def _said(exc: Exception) -> str:
    """The kind and the first sentence of another package's error, on one line."""
    text = re.sub(r"\s+", " ", str(exc)).strip()
    sentence = re.split(r"(?<=[.!?]) ", text, maxsplit=1)[0]
    return f"{type(exc).__name__}: {sentence[:160]}" if sentence else type(exc).__name__


# ---- checks ----------------------------------------------------------------------------------------------------------


def _json(path: Path) -> dict[str, Any]:
    try:
        return jsontext.read(path, MAX_JSON_BYTES)
    except jsontext.JsonError as exc:
        raise ModelError(path, f"cannot be read: {exc}") from exc


def _check_folder(folder: Path) -> None:
    path = folder / "config.json"
    if not path.exists() and (found := sorted(folder.glob("*.gguf"))):
        raise ModelError(folder, f"has no config.json; name its GGUF file instead: {found[0].name}", errno.ENOENT)
    config = _json(path)
    _check_config(path, config)
    for file in _files(folder):
        if not file.exists():
            raise ModelError(file, "is missing", errno.ENOENT)
        try:
            with tensorfiles.opened(file, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - not a mapping
                    if (dtype := str(weights.get_slice(name).get_dtype())) not in DTYPES:
                        raise ModelError(file, f"{name[:80]} is {dtype}; one of {', '.join(DTYPES)} was expected")
        except tensorfiles.UnsoundError as exc:
            raise ModelError(file, str(exc)) from exc


def _check_config(path: Path, config: dict[str, Any]) -> None:
    transformers = _transformers()
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        reason = f"a model of type {str(kind)[:40]}, which transformers {transformers.__version__} does not have"
        if config.get("auto_map"):
            reason += "; code that comes with a model is not run"
        raise ModelError(path, reason, errno.EOPNOTSUPP)
    if transformers.CONFIG_MAPPING[kind] not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING or config.get(
        "is_encoder_decoder"
    ):
        raise ModelError(path, f"a model of type {kind} is not a decoder", errno.EOPNOTSUPP)
    if config.get("quantization_config"):
        raise ModelError(path, "its weights need scales or tables, which are not read here", errno.EOPNOTSUPP)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        _check_sizes(path, part)
        if part.get("kv_lora_rank"):
            reason = "keeps latent vectors in place of K and V (MLA), which codecs that lose something do not take"
            raise ModelError(path, reason, errno.EOPNOTSUPP)


def _check_sizes(path: Path, config: dict[str, Any]) -> None:
    for name, most in SIZES.items():
        value = config.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= most):
            raise ModelError(path, f"{name}: a whole number from 1 to {most} is needed")


def _files(folder: Path) -> list[Path]:
    """The files of its weights."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if not index.exists() and (other := [*folder.glob("*.bin"), *folder.glob("*.pt*"), *folder.glob("*.gguf")]):
        raise ModelError(folder, f"has {other[0].name} but no model.safetensors", errno.ENOENT)
    table = _json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelError(index, "names no files")
    for name, place in table.items():
        if not isinstance(place, str) or "/" in place or place.startswith("."):
            raise ModelError(index, f"names no file of this folder for {name[:80]}")
    return [folder / place for place in sorted(set(table.values()))]


def _check_gguf(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(GGUF)) != GGUF:
            raise ModelError(path, "neither a model folder nor a GGUF file")
    for package in ("gguf", "accelerate"):
        try:
            __import__(package)
        except ImportError as exc:
            raise UnsupportedError(
                f"reading a GGUF file needs {package}, which is not installed",
                "pip install '.[codec]' in the source tree",
            ) from exc


def _probe(path: Path, module: Any) -> Shape:
    """Run two tokens, on no memory if the weights have none, and look at what the attention is given."""
    config = module.config.get_text_config()
    if not getattr(config, "num_attention_heads", None):
        raise ModelError(path, "has no attention, and so no K and V", errno.EOPNOTSUPP)
    seen: dict[int, tuple[int, ...]] = {}

    def note(layer: int, k: Any, v: Any) -> None:
        if layer in seen or k.shape != v.shape:
            raise ModelError(path, "its layers share K and V, or K and V differ in shape", errno.EOPNOTSUPP)
        seen[layer] = tuple(k.shape)

    ids = torch.zeros(1, 2, dtype=torch.int64, device=next(module.parameters()).device)
    trial = Decoder(Shape(layers=0, heads=0, kv_heads=0, head_dim=0, vocabulary=0, context=0), module)
    try:
        with torch.inference_mode():
            hidden = trial.hidden(ids, keep=note)
            words = module.get_output_embeddings()(hidden).shape[-1]
    except ModelError:
        raise
    except Exception as exc:
        raise ModelError(path, f"transformers cannot run it ({_said(exc)})", errno.EOPNOTSUPP) from exc
    layers = config.num_hidden_layers
    if not seen:
        raise ModelError(path, "has no attention whose K and V could be taken", errno.EOPNOTSUPP)
    if sorted(seen) != list(range(layers)) or len(set(seen.values())) > 1:
        reason = f"{len(seen)} of its {layers} layers have K and V, of {len(set(seen.values()))} shapes"
        raise ModelError(path, f"{reason}; all layers alike are needed", errno.EOPNOTSUPP)
    _, kv_heads, _, head_dim = seen[0]
    return Shape(
        layers=layers,
        heads=config.num_attention_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=min(words, config.vocab_size),
        context=getattr(config, "max_position_embeddings", None) or 1 << 30,
    )


def _try(path: Path, decoder: Decoder) -> None:
    """Its logits are those of transformers' own forward pass, and no token sees the tokens behind it."""
    ids = torch.arange(1, 9, device=decoder.device)[None] % decoder.shape.vocabulary
    other = ids.clone()
    other[0, -1] = 0
    with torch.inference_mode():
        found, own, moved = decoder.logits(decoder.hidden(ids)), decoder.own_logits(ids), decoder.own_logits(other)
    most = float(own.abs().max())
    if not math.isfinite(most):
        raise ModelError(path, "its logits are not numbers")
    if float((own - moved)[:, :-1].abs().max()) > LOGITS_APART * most:
        raise ModelError(path, "is not a decoder: a token sees the ones behind it", errno.EOPNOTSUPP)
    if float((found - own).abs().max()) > LOGITS_APART * most:
        raise ModelError(path, "makes its logits in a way that is not known here", errno.EOPNOTSUPP)
