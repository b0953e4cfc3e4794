"""Names of files as tables have them and as the disk has them.

Tables come from other systems than images. A Mac stores `Müller.png` with a decomposed umlaut (NFD), most
programs type a composed one (NFC): on screen they are equal, to Linux they are two names. On Windows folders
are separated by backslashes.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from pathlib import Path
from typing import Optional

# Encodings in which archives from Windows and old Macs store names.
_ENCODINGS = ("cp1252", "cp437", "cp850", "mac_roman")


def composed(text: str) -> str:
    """The text in one Unicode form (NFC), for comparing names.

    >>> composed("Mu\\u0308ller") == "Müller"
    True
    """
    return unicodedata.normalize("NFC", text)


def comparable(name: str) -> str:
    """A file's name, or the key of a pair, in one Unicode form and with slashes, for comparing.

    >>> comparable("images\\\\a.png")
    'images/a.png'
    """
    return composed(name).replace("\\", "/")


def name_on_disk(root: Path, name: str) -> str:
    """The name that a file has on disk where a table writes it in another Unicode form, or with backslashes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     os.mkdir(f"{folder}/images")
    ...     _ = Path(folder, "images", "Mu\\u0308ller.nii").write_bytes(b"")
    ...     name = name_on_disk(Path(folder), "images\\\\Müller.nii#12")
    >>> name == "images/Mu\\u0308ller.nii#12"
    True

    Args:
        root: folder that the name is relative to.
        name: of a file or folder; of a slice of a volume, with its place behind `#`.

    Returns:
        The name as the disk has it; unchanged where there is such a file, or none.
    """
    if not name or os.path.lexists(root / name):
        return name
    file, mark, place = name.rpartition("#")
    for candidate, ending in ((name, ""), (file, mark + place)):
        for spelled in dict.fromkeys((candidate, candidate.replace("\\", "/"))):
            found = _spelled_as_on_disk(root, spelled) if spelled else None
            if found is not None:
                return found + ending
    return name


def _spelled_as_on_disk(root: Path, name: str) -> Optional[str]:
    """The name of an existing file, each of its parts as the disk has it; None where there is none."""
    found = Path()
    for part in Path(name).parts:
        if not os.path.lexists(root / found / part):
            same = _names_by_form(root / found).get(composed(part), [])
            if len(same) != 1:
                return None
            part = same[0]
        found = found / part
    return str(found)


def _names_by_form(folder: Path) -> dict[str, list[str]]:
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=8)  # A table names thousands of files in few folders.
def _listed(folder: Path, modified: int) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        names.setdefault(composed(name), []).append(name)
    return names


def why_missing(path: Path) -> str:
    """What to say of a file that is not there: names one whose name differs in what is easily overlooked.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "eye 1.PNG").write_bytes(b"")
    ...     why_missing(Path(folder, "eye1.png"))
    'no such file, but there is `eye 1.PNG`: case and spaces count; correct the name.'
    """
    for names in _names_by_form(path.parent).values():
        for name in names:
            if _loose(name) == _loose(path.name):
                other = composed(name) != composed(path.name)
                reason = "case and spaces count" if other else "the Unicode form of names counts"
                return f"no such file, but there is `{name}`: {reason}; correct the name."
            encoding = _foreign_encoding(name, path.name)
            if encoding:
                return (
                    f"no such file, but one whose name is in the encoding {encoding}; rename it, for "
                    f"instance with `convmv -f {encoding} -t utf-8 --notest`."
                )
    return "no such file; put it there, or correct its name."


def _loose(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _foreign_encoding(name: str, wanted: str) -> Optional[str]:
    """The encoding in which a name that is not UTF-8 reads as the one that is wanted."""
    raw = os.fsencode(name)
    try:
        raw.decode("utf-8")
        return None
    except UnicodeDecodeError:
        spelled = {encoding: raw.decode(encoding, "replace") for encoding in _ENCODINGS}
    return next((encoding for encoding, text in spelled.items() if _loose(text) == _loose(wanted)), None)
