# SPDX-License-Identifier: MIT
"""speckvctl codec: eval, compare, encode, decode, extract, calibrate, vectors."""

from __future__ import annotations

from speckvctl.commands.codec import frames, models
from speckvctl.commands.options import App

app = App(no_args_is_help=True)


@app.callback()
def codec() -> None:
    """Evaluate codecs on real K and V, and turn tensors into frames and back.

    Ratios are against what the cache holds (16 bits a value in bf16 and fp16) and count every header, table and
    checksum of what codec encode writes.

    \b
    Examples:
      speckvctl codec eval kv.safetensors
      speckvctl codec compare kv.safetensors --no-peers
    """


app.verb("eval")(models.eval_codec)
app.verb("compare")(models.compare_codecs)
app.verb("encode")(frames.encode_file)
app.verb("decode")(frames.decode_file)
app.verb("extract")(models.extract)
app.verb("calibrate")(models.calibrate)
app.verb("vectors")(frames.golden_vectors)
