"""The sha256 of a file, read in pieces."""

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """Return the digest in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
