# SPDX-License-Identifier: MIT
"""The rotary embedding of a decoder, where it is one that can be undone. Needs torch.

For calibration/ and comparison/.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speckvctl.reference.decoder import Decoder

PLACES = 8  # positions at which the angles are compared
APART = 1e-4  # most that an angle's sine or cosine may differ
FIXED = ("default", "linear", "llama3", "yarn")  # kinds whose angles do not depend on the document's length


def turns(decoder: Decoder) -> npt.NDArray[np.float64] | None:
    """Radians a token, [head_dim / 2]: of channels c and c + head_dim / 2 as real and imaginary part.

    None where the layers do not all turn all channels in this way: then K is taken as it is stored.
    """
    made = [part for part in decoder.module.modules() if isinstance(getattr(part, "inv_freq", None), torch.Tensor)]
    half = decoder.shape.head_dim // 2
    kinds = getattr(decoder.module.config.get_text_config(), "rope_parameters", None)
    if len(made) != 1 or not isinstance(kinds, dict) or kinds.get("rope_type", "default") not in FIXED:
        return None
    if getattr(decoder.module.config.get_text_config(), "no_rope_layers", None) is not None:
        return None
    found = made[0].inv_freq.double().cpu()
    if found.shape != (half,):
        return None
    places = torch.arange(PLACES, device=decoder.device)[None]
    try:
        cos, sin = (x.double().cpu()[0] for x in made[0](torch.zeros(1, PLACES, 1, device=decoder.device), places))
    except (TypeError, ValueError, AttributeError):  # called in a way of its own
        return None
    angles: Any = torch.outer(torch.arange(PLACES, dtype=torch.float64), found).repeat(1, 2)
    if cos.shape != angles.shape:
        return None
    size = (cos[0] ** 2 + sin[0] ** 2).sqrt()  # a scale for long contexts, which stays in K
    apart = max(float((cos - size * angles.cos()).abs().max()), float((sin - size * angles.sin()).abs().max()))
    return None if apart > APART * float(size.max()) else np.asarray(found.numpy())


def unrotated(turns: npt.NDArray[np.float64] | None, x: Any, first: int = 0) -> Any:
    """Undo the embedding; float32 [...][token from `first` on][channel]. `turns` as turns() gives them."""
    if turns is None:
        return x
    half = x.shape[-1] // 2
    places = torch.arange(first, first + x.shape[-2], dtype=torch.float64, device=x.device)
    angles = torch.outer(places, torch.from_numpy(turns).to(x.device)).repeat(1, 2)
    return x * angles.cos().float() + torch.cat((x[..., half:], -x[..., :half]), -1) * angles.sin().float()


def rotated(turns: npt.NDArray[np.float64], x: Any, first: int = 0) -> Any:
    """The inverse of unrotated()."""
    return unrotated(-turns, x, first)
