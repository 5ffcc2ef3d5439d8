"""The config file: private, replaced in one piece, and otherwise as its owner wrote it.

This is a TOML file that several processes change; `manager` knows the accounts in it.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from mixpanel_assets.errors import ConfigError, DatabaseLockedError, StorageError
from mixpanel_assets.rules.locks import Wait, locked, log_wait

Edit = Callable[[MutableMapping[str, Any]], None]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_LOCK_SECONDS = 30.0
_QUOTE = "Look for a missing quote."
_TWICE = "A table or key of that name stands in the file twice."
_LINE = re.compile(r"at line (\d+)")


class ConfigFile:
    """A TOML file with secrets in it.

    Args:
        path: The file; a symbolic link is followed and kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """Return the content; empty without a file.

        Raises:
            ConfigError: Other users may read it, it cannot be read, or it is not TOML.
        """
        return self._parse(self._text())

    def change(self, edit: Edit, *, removes: str | None = None) -> None:
        """Apply `edit` and replace the file, while no other process changes it.

        Comments, order and unknown keys are kept. If `edit` raises, nothing is written.

        Args:
            edit: Changes the content in place. It is called for the plain content and for the
                editable document, which may lack the table of `removes` already.
            removes: The account whose table is deleted; comments after it are kept.

        Raises:
            ConfigError: See `read`.
            StorageError: The file cannot be written, or not without a loss.
        """
        with self._locked() as target:
            text = self._text()
            wanted = self._parse(text)
            edit(wanted)
            _replace(target, _apply_edit(text, edit, removes, wanted, self.path))

    def back_up(self) -> Path:
        """Copy the file beside itself, readable by its owner only, and return the copy's path.

        Raises:
            StorageError: The copy cannot be written.
        """
        with self._locked() as target:
            number = 1
            while (copy := target.with_name(f"{target.name}.backup-{number}")).exists():
                number += 1
            _replace(copy, self._text())
        return copy

    def _text(self) -> str:
        try:
            if os.name == "posix" and self.path.stat().st_mode & _OTHERS:
                raise ConfigError(
                    f"{self.path} holds secrets and other users may read it. "
                    f"Repair it with: chmod 600 {self.path}"
                )
            content = self.path.read_bytes()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}.") from error
        try:
            return content.decode("utf-8-sig")  # some editors put a mark at the beginning
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise self._syntax_error(line, "It is not UTF-8 text.") from None

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also of a number that is too long
            place = _LINE.search(str(error))
            line = int(place[1]) if place else len(text.splitlines())
            twice = re.search(r"declare|overwrite|mutate", str(error))
            raise self._syntax_error(line, _TWICE if twice else _QUOTE) from None

    def _syntax_error(self, line: int, advice: str) -> ConfigError:
        # The parser's own message may quote the line, which may hold the secret.
        return ConfigError(
            f"{self.path} is not valid TOML; see line {line}. {advice}",
            {"path": str(self.path), "line": line},
        )

    @contextmanager
    def _locked(self) -> Iterator[Path]:
        """Yield the file that links lead to, locked by the kernel until the block ends."""
        if self.path.parts[:1] == ("~",):
            raise StorageError(
                "This user has no home directory for the config file. Set MP_CONFIG_PATH or HOME."
            )
        try:
            target = self.path.resolve()
            for folder in reversed([target.parent, *target.parent.parents]):
                if not folder.exists():
                    folder.mkdir(_PRIVATE_FOLDER, exist_ok=True)
            lock = FileLock(f"{target}.lock", mode=_PRIVATE_FILE)
            what = f"the config file {self.path}"
            with locked(
                lock, Wait(what, self.path, _LOCK_SECONDS, log_wait, advice="Try again later.")
            ):
                yield target
        except DatabaseLockedError as error:
            raise StorageError(error.message) from None
        except (OSError, RuntimeError) as error:  # a circle of links is a RuntimeError before 3.13
            reason = getattr(error, "strerror", None) or error
            raise StorageError(
                f"{self.path} cannot be written: {reason}. "
                "Set MP_CONFIG_PATH to a file that you may write."
            ) from error


def _replace(target: Path, text: str) -> None:
    # A file of mkstemp is readable by its owner only, from its first moment on.
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _apply_edit(
    text: str, edit: Edit, removes: str | None, wanted: dict[str, Any], path: Path
) -> str:
    """Return the text after the edit, checked to have the content `wanted`."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    for cut in (removes, None):
        with suppress(TOMLKitError, ValueError):
            document = tomlkit.parse(_without_account(text, cut) if cut else text)
            edit(document)
            changed = tomlkit.dumps(document)
            if _meaning(tomllib.loads(changed)) == _meaning(wanted):
                return changed
    raise StorageError(
        f"{path} is written in a way that cannot be changed here without losing something. "
        "Change it with an editor."
    )


def _meaning(config: dict[str, Any]) -> dict[str, Any]:
    # An empty `accounts` table means the same as none.
    return {key: value for key, value in config.items() if (key, value) != ("accounts", {})}


def _without_account(text: str, name: str) -> str:
    """Return the text without the account's table, but with the comments after its last key.

    The parser counts them to the table; people write them for the next one.
    """
    import tomlkit
    from tomlkit.items import Comment, Table, Whitespace

    table = tomlkit.parse(text).get("accounts", {}).get(name)
    if not isinstance(table, Table):
        return text
    body = table.as_string()
    at = text.find(body)
    if not body or at < 0:
        return text
    header = text.rfind("\n", 0, max(at - 1, 0)) + 1
    kept: list[str] = []
    for key, item in reversed(table.value.body):
        if key is not None or not isinstance(item, Comment | Whitespace):
            break
        kept.insert(0, item.as_string())
    return text[:header] + "".join(kept) + text[at + len(body) :]
