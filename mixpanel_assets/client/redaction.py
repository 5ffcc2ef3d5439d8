"""Removes secrets from texts of a server, a proxy or the HTTP library.

Such texts may quote the request: as it is, quoted for an address, escaped in JSON or HTML, or as
base64 inside a longer text.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from html.entities import codepoint2name
from urllib.parse import unquote

HIDDEN = "[secret]"

# A shorter secret is part of ordinary words: hiding `sec` would leave "[secret]onds".
SHORTEST_HIDDEN = 8

_PROXY_URL = re.compile(r"(?:[^:/]*://)?(?P<user>[^:]*):(?P<password>.*)@")
_VALUE = r"[^\s\"'\\<>,;&}\]]"
_SECRET_IN_TEXT = re.compile(
    rf"""
    (?P<before>
        ://[^\s/@:"']*:                                     # the password of an address
      | (?:authorization|cookie)["'\\]*\s*[:=]\s*["'\\b]*   # a header as text, JSON or a dict
        (?:(?:basic|bearer|digest|token)\s+)?
      | (?:secret|password|api_key)["'\\]*\s*[:=]\s*["'\\]*
    )
    (?: (?<=:)(?P<password>[^\s/@"']+)(?=@) | (?={_VALUE}*[0-9=]){_VALUE}{{8,}} )
    """,
    re.IGNORECASE | re.VERBOSE,
)


def redact(text: str, *accounts: tuple[str, str]) -> str:
    """Return `text` with `[secret]` in place of secrets.

    The secrets of the accounts (pairs of user name and secret) and the passwords of the
    environment's proxies are replaced if they have at least 8 characters: plain, base64, quoted or
    escaped. Values of `Authorization` and `secret`, and passwords inside addresses, are always
    replaced.

    Example:
        >>> redact("no access for 5f1c9a7b2d", ("name", "5f1c9a7b2d"))
        'no access for [secret]'
    """
    secret_pattern = _secret_pattern((*accounts, *_proxy_accounts()))
    text = secret_pattern.sub(HIDDEN, text) if secret_pattern else text
    return _SECRET_IN_TEXT.sub(lambda secret: secret["before"] + HIDDEN, text)


def _proxy_accounts() -> Iterator[tuple[str, str]]:
    for name, proxy_url in sorted(os.environ.items()):
        if name.lower().endswith("_proxy") and (proxy := _PROXY_URL.match(proxy_url)):
            yield unquote(proxy["user"]), unquote(proxy["password"])


@lru_cache(maxsize=16)
def _secret_pattern(accounts: tuple[tuple[str, str], ...]) -> re.Pattern[str] | None:
    secret_forms = [secret_form for account in accounts for secret_form in _secret_forms(*account)]
    return re.compile("|".join(secret_forms)) if secret_forms else None


def _secret_forms(username: str, secret: str) -> Iterator[str]:
    """Yield patterns for the forms in which an account is sent, the longest first."""
    header = base64.b64encode(f"{username}:{secret}".encode()).decode()
    if len(header) >= SHORTEST_HIDDEN:
        yield _base64_spellings(header)
    if len(secret) >= SHORTEST_HIDDEN:
        yield "".join(map(_letter_spellings, secret))
        yield f"(?i:{secret.encode().hex()})"
        for place in range(3):
            yield _base64_inside(secret.encode(), place)


def _base64_inside(secret: bytes, place: int) -> str:
    """Return a pattern for the secret in a longer base64 text, `place` bytes into a group."""
    encoded_secret = base64.b64encode(bytes(place) + secret).decode()
    # The letters at both ends also hold bits of the bytes before and after the secret.
    inner_letters = encoded_secret[-(-place * 8 // 6) : (place + len(secret)) * 8 // 6]
    return f"[A-Za-z0-9+/_-]?{_base64_spellings(inner_letters)}[A-Za-z0-9+/_-]?(?:=|%3[Dd]){{0,2}}"


def _base64_spellings(encoded: str) -> str:
    spelled = {"+": f"(?:{_letter_spellings('+')}|-)", "/": f"(?:{_letter_spellings('/')}|_)"}
    return r"\s*".join(spelled.get(letter) or _letter_spellings(letter) for letter in encoded)


def _letter_spellings(letter: str) -> str:
    """Return a pattern for a character as it is, quoted, or escaped once or more often."""
    letter_code = ord(letter)
    utf16_units = letter.encode("utf-16-be").hex(" ", 2).split()
    escaped_letters = [
        "".join(f"%(?:25)*{byte:02x}" for byte in letter.encode()),
        "".join(rf"\\+u{unit}" for unit in utf16_units),
        rf"\\+x{letter_code:02x}",
        f"&(?:amp;)*#(?:0*{letter_code}|x0*{letter_code:x});",
    ]
    if letter_code in codepoint2name:
        escaped_letters.append(f"&(?:amp;)*{codepoint2name[letter_code]};")
    if not letter.isalnum():
        escaped_letters.append(rf"\\+{re.escape(letter)}")
    if letter == " ":
        escaped_letters.append(r"\+")
    return f"(?:{re.escape(letter)}|(?i:{'|'.join(escaped_letters)}))"
