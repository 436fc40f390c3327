"""A token for a Ray of our own.

Covers: the environment that Ray reads once, when it is imported; silence when a cluster does not
let us in.
Does not cover: starting Ray (embedded).
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TOKEN_BYTES = 32


def prepare_private_ray() -> None:
    """Give this process and its children a Ray token; call before ray is imported.

    Without one any local user could run code as us through Ray's ports. It is never written to
    a file, and Ray reads mode and token at its import only.
    """
    if "FOREBAY_RAY_PREPARED" in os.environ:
        return
    assert "ray" not in sys.modules, "Ray has read its environment already"
    os.environ["FOREBAY_RAY_PREPARED"] = "1"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(TOKEN_BYTES)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def prepare_site_ray(token: str | None) -> None:
    """Let this process use a site's Ray with its token; None: a Ray without tokens.

    Call before ray is imported. A token that is set already, as in a submission, is replaced: it
    is the same, or the file is wrong.
    """
    assert "ray" not in sys.modules, "Ray has read its environment already"
    os.environ["RAY_AUTH_MODE"] = "disabled" if token is None else "token"
    if token is not None:
        os.environ["RAY_AUTH_TOKEN"] = token
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@contextmanager
def native_silence() -> Iterator[None]:
    """Drop what is written to descriptor 2 in the block.

    Ray's native part has its own way there: many lines, with no option that silences them before
    it is connected. Python's own errors do not pass here: they are raised.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
