"""Secrets stay out of what a run writes down: passwords and tokens in arguments, settings and URLs are masked."""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"

_WORDS = r"(?:pass(?:word|wd|phrase)?|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?|auth)"
_NAME = re.compile(rf"(?:^|[-_.]){_WORDS}$", re.IGNORECASE)
_SETTING = re.compile(rf"""(?P<name>(?:^|(?<=[-_.?&;:\s,{{"'])){_WORDS}["']?\s*[=:]\s*)[^\s&;,}}]+""", re.IGNORECASE)
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.\-]*)://(?P<rest>[^\s\"'<>)\]}]+)", re.IGNORECASE)
_USER = re.compile(r"^[^/@]*(?:@[^/@]*)*@(?=[^/@])")
_RANDOM = re.compile(r"(?<=/)(?=[\w\-]*\d)(?=[\w\-]*[A-Za-z])[\w\-]{18,}(?=/|$|\?)")

# Schemes whose path names a place. Notification services (slack://, tgram://, …) carry their tokens in it.
_PLACES = {"http", "https", "ftp", "sftp", "ssh", "git", "file", "s3", "gs", "az", "hdfs", "env", "tcp"}
_PLACES |= {"sqlite", "postgres", "postgresql", "mysql", "mariadb", "redis", "duckdb"}


def mask(text: str) -> str:
    """Replace what looks like a secret in `text` by `***`.

    Masked are user and password in URLs, URLs of services that carry tokens in their path, and the values of settings
    named like password, token, secret or key (`--token=…`, `password: …`, `?api_key=…`).
    """
    return _SETTING.sub(lambda match: match["name"] + MASK, _URL.sub(_mask_url, text))


def mask_arguments(arguments: Sequence[str]) -> list[str]:
    """Mask the arguments of a command, also the value that follows an option such as `--password`."""
    masked: list[str] = []
    for index, argument in enumerate(arguments):
        previous = arguments[index - 1] if index else ""
        follows_secret = previous.startswith("-") and "=" not in previous and is_secret_name(previous)
        masked.append(MASK if follows_secret else mask(argument))
    return masked


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name holds a secret."""
    return bool(_NAME.search(name))


def _mask_url(match: re.Match[str]) -> str:
    scheme, rest = match["scheme"], match["rest"]
    if scheme.lower().split("+")[0] not in _PLACES:
        return f"{scheme}://{MASK}"
    rest = _USER.sub(f"{MASK}@", rest)
    if scheme.lower() in ("http", "https"):  # web hooks: a random part of the path is the secret
        rest = _RANDOM.sub(MASK, rest)
    return f"{scheme}://{rest}"
