"""Named parts of the program that decides decode speed, and what differs between two programs, in short sentences.

A part has a SHA-256, with a version or a value in front where there is one. The standard library alone.
"""

import hashlib
import json
from collections.abc import Mapping

Parts = Mapping[str, str]
"""``source decode/decoder.py``, ``package mlx``, ``file mlx-vlm mlx_vlm/utils.py``, ``variable MLX_X``, ..."""

_SHOWN = 3


def digest(text: str) -> str:
    """The SHA-256 of a text, whatever line ends git checked it out with."""
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()


def labelled(label: str, content: str | None = None) -> str:
    """The value of a part that has a version or a value: that in front of the digest, of itself unless given."""
    return f"{label} {digest(label if content is None else content)}"


def whole(parts: Parts) -> str:
    """One SHA-256 over all parts."""
    return digest(json.dumps(sorted(parts.items())))


def differences(before: Parts, after: Parts) -> list[str]:
    """Say in short sentences what differs: ``mlx 0.32.3 -> 0.32.4``, ``decode/decoder.py changed``."""
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    sentences, files = list[str](), dict[tuple[str, str], list[str]]()
    for name in changed:
        kind, _, named = name.partition(" ")
        how = "is new" if name not in before else "is gone" if name not in after else "changed"
        if kind == "source":
            files.setdefault(("", how), []).append(named)
        elif kind == "file":
            owner, _, path = named.partition(" ")
            # Another version of a package has other files, so naming the version is enough.
            if owner not in changed and f"package {owner}" not in changed:
                files.setdefault((_titled(owner, after), how), []).append(path)
        else:
            title = named if kind in ("package", "variable") else name
            sentences.append(_changed(title, how, _label(before.get(name)), _label(after.get(name))))
    for (owner, how), paths in sorted(files.items()):
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        verb = "are" if len(paths) > 1 else "is"
        sentences.append(f"{owner}{', '.join(paths[:_SHOWN])}{more} {how.replace('is', verb)}")
    return sentences


def _changed(name: str, how: str, old: str, new: str) -> str:
    if how == "changed" and old != new:
        return f"{name} {old} -> {new}"
    label = old or new
    return f"{name} {label} {how}" if label else f"{name} {how}"


def _titled(owner: str, parts: Parts) -> str:
    label = _label(parts.get(f"package {owner}") or parts.get(owner))
    return f"{owner} {label}: " if label else f"{owner}: "


def _label(value: str | None) -> str:
    return (value or "").rpartition(" ")[0]
