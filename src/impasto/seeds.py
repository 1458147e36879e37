"""Seeds of random draws that follow from one another."""

import hashlib

__all__ = ["derive_seed"]


def derive_seed(*what: object) -> int:
    """A seed in [0, 2⁶³) that follows from these values, and looks unlike that of any others."""
    text = "/".join(map(str, what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
