"""How a name that hardware gives itself becomes part of a chip class."""

import re


def slug(text: str) -> str:
    """Return ``text`` in lower case with everything but letters, digits and inner dots as single hyphens."""
    plain = re.sub(r"\((?:r|tm|c)\)|[®™©]", " ", text.lower())
    return re.sub(r"(?:[^a-z0-9.]|\.(?![0-9a-z])|(?<![0-9a-z])\.)+", "-", plain).strip("-")
