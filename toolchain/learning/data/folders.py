"""Files below a folder, none of them left out without a word."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePosixPath

from toolchain.errors import DataError


def files_below(folder: Path, node: str) -> list[Path]:
    """All files below `folder`, sorted; links to folders are followed.

    Raises
    ------
    DataError
        If a folder cannot be read, a link leads nowhere, or a folder lies in itself by a link.
    """

    def refuse(error: OSError) -> None:
        raise DataError(
            "a folder or file cannot be read", node=node, found=error.filename
        ) from error

    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        parents = {p.resolve() for p in (Path(place), *Path(place).parents)}
        for name in folders:
            path = Path(place, name)
            if path.is_symlink() and path.resolve() in parents:
                raise DataError("a folder lies in itself by a link", node=node, found=path)
        for name in names:
            path = Path(place, name)
            if not path.exists():
                raise DataError("a link leads nowhere", node=node, found=path)
            files.append(path)
    return sorted(files)


def alternating(files: list[PurePosixPath]) -> list[PurePosixPath]:
    """Files `<class>/<file>`, which come sorted, by place within the class, then by class."""
    seen: Counter[str] = Counter()
    places = []
    for file in files:
        places.append((seen[file.parts[-2]], file.parts[-2], file))
        seen[file.parts[-2]] += 1
    return [file for _, _, file in sorted(places)]
