"""The README of the archives. A package index shows it alone, so its links would lead nowhere."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ReadmeHook(MetadataHookInterface):
    """Gives hatchling the README, which pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the README."""
        text = Path(self.root, "README.md").read_text()
        metadata["readme"] = {"content-type": "text/markdown", "text": without_links(text)}


def without_links(text: str) -> str:
    """Write each link to a file of the source as its text and the name of the file.

    Pictures are left out. There is no address of the project that the links could begin with.
    """
    text = re.sub(r"!\[[^]]*\]\((?!https?:)[^)]*\)\n+", "", text)
    return re.sub(r"\[([^]]+)\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", r"\1 (`\2`)", text)
