# SPDX-License-Identifier: MIT
"""The arithmetic of peers: casts and quantisers of K or V, float32 [document][head][token][channel] to the same.

Imported by peers.py alone. torch is imported on use.
"""

from __future__ import annotations

import functools
from typing import Any

Tensor = Any  # torch.Tensor

E4M3_MOST = 448.0
E2M1_MOST = 6.0

#: Levels above zero of the quantiser with the least squared error for a normal distribution of variance 1, of 8 and
#: 16 levels (Max, Quantizing for Minimum Distortion, 1960, table I).
_LLOYD_MAX = {
    3: (0.2451, 0.7560, 1.3440, 2.1520),
    4: (0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326),
}


def fp8(x: Tensor) -> Tensor:
    """A cast to e4m3 without a scale; beyond 448 it saturates."""
    import torch

    return x.clamp(-E4M3_MOST, E4M3_MOST).to(torch.float8_e4m3fn).float()


def fp8_scaled(x: Tensor) -> Tensor:
    """A cast to e4m3 under a scale of each head, so that its largest value is the largest of the format."""
    scale = x.abs().amax((-1, -2), keepdim=True).clamp_min(1e-30) / E4M3_MOST
    return fp8(x / scale) * scale


def _e2m1(x: Tensor) -> Tensor:
    """The nearest of 0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives."""
    import torch

    x = x.clamp(-E2M1_MOST, E2M1_MOST)
    size = x.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return (size / step).round() * step * x.sign()


def mxfp4(x: Tensor) -> Tensor:
    """OCP MX: 32 channels share a power of two, each is e2m1."""
    import torch

    groups = x.unflatten(-1, (-1, 32))
    most = groups.abs().amax(-1, keepdim=True)
    scale = torch.exp2(torch.floor(torch.log2(most.clamp_min(2.0**-120))) - 2)
    return (_e2m1(groups / scale) * scale).flatten(-2)


def nvfp4(x: Tensor) -> Tensor:
    """NVFP4: 16 channels share a scale in e4m3, under a binary32 scale of the whole tensor; each is e2m1."""
    groups = x.unflatten(-1, (-1, 16))
    most = groups.abs().amax(-1, keepdim=True)
    whole = most.amax().clamp_min(1e-30) / (E2M1_MOST * E4M3_MOST)
    scale = fp8(most / E2M1_MOST / whole) * whole
    return (_e2m1(groups / scale.clamp_min(1e-30)) * scale).flatten(-2)


def kivi_k(x: Tensor) -> Tensor:
    """KIVI: 4 bits, each channel of 64 successive tokens with its least value and step in fp16."""
    return _asymmetric(x.unflatten(-2, (-1, 64)), -2).flatten(-3, -2)


def kivi_v(x: Tensor) -> Tensor:
    """KIVI: 4 bits, 64 channels of each token with their least value and step in fp16."""
    return _asymmetric(x.unflatten(-1, (-1, 64)), -1).flatten(-2)


def _asymmetric(x: Tensor, axis: int) -> Tensor:
    least = x.amin(axis, keepdim=True).half().float()
    step = ((x.amax(axis, keepdim=True) - least) / 15).clamp_min(6e-8).half().float()
    return ((x - least) / step).round().clamp(0, 15) * step + least


def turboquant(x: Tensor, bits: int) -> Tensor:
    """After TurboQuant (Zandieh and others, 2025), its variant for squared error: each token divided by its norm, in
    fp16, rotated at random, and each coordinate rounded by the best quantiser for a normal distribution.
    """
    import torch

    rotation = _rotation(x.shape[-1]).to(x.device)
    levels = torch.tensor(_LLOYD_MAX[bits], device=x.device)
    norm = x.square().sum(-1, keepdim=True).sqrt().half().float()
    unit = x / norm.clamp_min(1e-30) @ rotation * x.shape[-1] ** 0.5
    nearest = torch.bucketize(unit.abs(), (levels[1:] + levels[:-1]) / 2)
    return (levels[nearest] * unit.sign()) @ rotation.T * (norm / x.shape[-1] ** 0.5)


@functools.cache
def _rotation(size: int) -> Tensor:
    """A random orthogonal matrix, always the same (Stewart 1980)."""
    import torch

    normal = torch.randn(size, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    return (q * r.diagonal().sign()).float()
