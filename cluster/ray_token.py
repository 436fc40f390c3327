"""A token for a Ray of our own.

Covers: the environment that Ray reads once, when it is imported.
Does not cover: starting Ray (embedded).
"""

from __future__ import annotations

import os
import secrets
import sys

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
    # A cluster that lets us not in is one sentence of ours, not twenty lines of Ray's.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
