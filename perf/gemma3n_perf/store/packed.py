"""Long records are compressed with xz; older releases wrote some of them as they are."""

import lzma
from pathlib import Path
from typing import Any

from gemma3n_perf.store.codec import Codec, Flaw

SUFFIX = ".xz"
_MAGIC, _MOST_BYTES = b"\xfd7zXZ\x00", 1 << 28


def unpack(codec: Codec[Any], path: Path) -> bytes:
    """Return what a record's file holds, decompressed where it must be. Raises MalformedRecordError, as ``codec``."""
    data = codec.bytes_of(path)
    if not data.startswith(_MAGIC):
        return data
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_BYTES)
    try:
        found = unpacker.decompress(data, max_length=_MOST_BYTES)
    except lzma.LZMAError as error:
        raise codec.malformed(str(path), Flaw(f"not xz: {error}")) from error
    if not unpacker.eof or unpacker.unused_data:
        raise codec.malformed(str(path), Flaw("cut off, larger than a record gets, or more than one file of xz"))
    return found


def pack(path: Path, data: bytes) -> bytes:
    """Return ``data`` as the name of its file says: compressed, or as it is."""
    return lzma.compress(data) if path.suffix == SUFFIX else data
