"""The errors of impasto.

Every error that a user can put right is an `ImpastoError`. Its message is one line: what is
wrong, with which file or value, and what to do about it. The command line prints that line and
exits with code 2; anything else that is raised is a bug.
"""

__all__ = ["ImageError", "ImpastoError", "RunError", "SettingsError", "WeightsError", "one_line"]


class ImpastoError(Exception):
    """The base of all errors that impasto raises on purpose."""


class ImageError(ImpastoError):
    """A picture cannot be read or written."""


class SettingsError(ImpastoError):
    """An option is unknown, out of range or at odds with another."""


class WeightsError(ImpastoError):
    """A weight file is missing, broken, or not the one that was asked for."""


class RunError(ImpastoError):
    """A job that was set up rightly cannot go on (out of memory, no such device, ...)."""


def one_line(message: object) -> str:
    """A message in one line without control characters, whatever a file had put into it."""
    text = " ".join(str(message).split())
    return "".join(letter if letter.isprintable() else "�" for letter in text)
