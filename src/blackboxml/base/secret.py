"""Hiding secrets in what is recorded besides numbers: consoles, differences, sources, settings.

Hidden are

- the values of environment variables and hyper-parameters whose names look like secrets, where they
  are at least eight characters long, wherever they stand in a text;
- literals that are assigned to such a name, in code, JSON, YAML, shell and on command lines;
- user and password in URLs, bearer tokens, private keys in PEM;
- tokens that show by their form whose they are: AWS, GitHub, GitLab, Google, Hugging Face, npm,
  OpenAI and Anthropic, PyPI, Slack, and JSON Web Tokens.

Anything else passes: a password in a plain sentence, a secret that is computed, personal data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN: Final = "<hidden>"

_SHORTEST: Final = 8
"""Shorter values of secret variables are not looked for: they are found in every text."""

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET: Final = {
    *("password", "passwd", "passphrase", "pwd", "secret", "secrets"),
    *("credential", "credentials", "apikey"),
}
_QUALIFIES: Final = {
    *("access", "account", "api", "auth", "encryption", "master"),
    *("private", "secret", "service", "signing", "ssh"),
}
"""What makes a key a secret, where `sort_key` is none."""

_NO_SECRET: Final = {
    *("bos", "cls", "eos", "image", "mask", "next", "no", "pad", "per"),
    *("sep", "special", "start", "stop", "unk"),
}
"""What a token of text is called by."""

_HINT: Final = re.compile(r"pass|pwd|secret|credential|key|token", re.IGNORECASE)
"""What every name that looks like a secret has in it."""

_NAME: Final = r"(?<![\w.])(?P<name>[A-Za-z_][\w.-]{0,80})"
_ASSIGNMENTS: Final = (
    # code and JSON: text in quotes, also behind an annotation or a subscript
    re.compile(
        rf"""{_NAME}(?P<between>["'\]]{{0,2}}\s{{0,40}}(?::\s{{0,9}}\w{{1,60}}\s{{0,9}})?[=:]"""
        r"""\s{0,40}[rbfu]?(?P<quote>["']))(?P<value>(?:(?!(?P=quote)).){4,4000}?)(?=(?P=quote))"""
    ),
    # shells: the name in capitals, no space around the sign of equality
    re.compile(r"(?<![\w.])(?P<name>[A-Z][A-Z0-9_]{1,80})(?P<between>=)[\w+/=.-]{8,999}+(?![(\[])"),
    # command lines: the name behind two dashes
    re.compile(r"(?<!\S)--(?P<name>[\w-]{1,80})(?P<between>[= ])[^\s-]\S{0,999}"),
    # YAML: a name, a colon, and a word that ends the line
    re.compile(rf"{_NAME}(?P<between>:[ ]{{1,40}})[\w+/=.-]{{8,999}}+(?=\s*$)"),
)
_URL: Final = re.compile(
    r"(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]{0,20}://)[^\s/@\"'<>]{1,999}@"
)
_KEY: Final = re.compile(
    r"-----BEGIN ([A-Z ]{0,40})PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)", re.DOTALL
)
_BEARER: Final = re.compile(r"(\b(?:bearer|basic)\s{1,9})[\w.~+/=-]{16,}", re.IGNORECASE)
_TOKEN: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[\w-]{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}|sk-(?=[\w-]*[0-9])[\w-]{20,}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|xox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*"
    r")"
)


def is_secret(name: str) -> bool:
    """Tell whether what goes by a name is likely to be a secret.

    `WANDB_API_KEY`, `hub_token` and `db.password` are, `tokenizer`, `max_tokens` and `sort_key` are
    not. A variable in capitals that ends with `KEY` is one.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if not _SECRET.isdisjoint(words):
        return True
    *before, last = words or [""]
    qualifier = before[-1] if before else ""
    if last == "key":
        return qualifier in _QUALIFIES or name.isupper()
    return last == "token" and qualifier not in _NO_SECRET


def hide(settings: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return settings with `<hidden>` for each text whose name looks like a secret."""
    return {
        key: hide(value)
        if isinstance(value, Mapping)
        else HIDDEN
        if isinstance(value, str) and value and isinstance(key, str) and is_secret(key)
        else value
        for key, value in settings.items()
    }


def secrets_in(settings: Mapping[Any, Any]) -> set[str]:
    """Return the texts in settings whose names look like secrets."""
    found: set[str] = set()
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= secrets_in(value)
        elif isinstance(value, str) and isinstance(key, str) and is_secret(key):
            found.add(value)
    return found


class Mask:
    """Hides secrets in texts: those known by value, and those that show by name or form."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        """Learn the secrets of the environment variables, and more of them."""
        known = {*values, *secrets_in(os.environ)}
        longest_first = sorted((each for each in known if len(each) >= _SHORTEST), key=len)[::-1]
        self._known = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, text: str) -> str:
        """Return a text without the secrets that are found in it."""
        # Line by line: a search through all of it would hold up the other threads.
        return "\n".join(map(self._hide, _KEY.sub(HIDDEN, text).split("\n")))

    def _hide(self, line: str) -> str:
        """Return a line without the secrets that are found in it."""
        line = self._known.sub(HIDDEN, line)
        line = _URL.sub(rf"\1{HIDDEN}@", line)
        line = _BEARER.sub(rf"\1{HIDDEN}", line)
        line = _TOKEN.sub(HIDDEN, line)
        if _HINT.search(line):
            for pattern in _ASSIGNMENTS:
                line = pattern.sub(_hide_value, line)
        return line


def _hide_value(found: re.Match[str]) -> str:
    """Return an assignment, without its value where the name looks like a secret."""
    if not is_secret(found["name"]):
        return found[0]
    return found.string[found.start() : found.end("between")] + HIDDEN
