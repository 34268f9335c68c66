"""Every error that `cascade` raises on purpose, drawn as a tree.

    CascadeError
    ├── InputError (ValueError)              a text, pair or list of texts that cannot be read
    ├── OptionError (ValueError)             an option or policy with an impossible value
    ├── DataError (ValueError)               a line or column of a file of examples
    ├── BundleError (ValueError)             a bundle that is incomplete, altered or of another format
    │   ├── BundleNotFoundError (FileNotFoundError)
    │   └── TaskError                        a bundle for another task than this class's
    └── MissingExtraError (ImportError)      a part of the package whose extra is not installed

and every warning:

    CascadeWarning (UserWarning)
    └── CertificateWarning                   a certificate is not about a bundle's models and policies, or is doubtful

Each message names the rule, the value that broke it and the remedy, on one line. The command line prints that line
and exits with status 2. What messages quote of bundles and inputs is `printable` in them.
"""

from __future__ import annotations

import re
from importlib.util import find_spec

_ACTED_UPON = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A text in which nothing acts upon a terminal.

    Control characters, line breaks, marks of direction and lone surrogates are written as in Python's source.

    Example: printable("\\x1b[2Jgone") -> "\\\\x1b[2Jgone"
    """
    return _ACTED_UPON.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class CascadeError(Exception):
    """The base of every error that this package raises on purpose."""

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().splitlines()))


class InputError(CascadeError, ValueError):
    """A text, a pair or a list of texts that cannot be read."""


class OptionError(CascadeError, ValueError):
    """An option or a policy with an impossible value."""


class DataError(CascadeError, ValueError):
    """A line or a column of a file of examples that cannot be used."""


class BundleError(CascadeError, ValueError):
    """A bundle that is incomplete, altered or of another format version."""


class BundleNotFoundError(BundleError, FileNotFoundError):
    """No bundle under this path or Hub id."""


class TaskError(BundleError):
    """A bundle for another task: a tagger's for a classifier, or the other way round."""


class MissingExtraError(CascadeError, ImportError):
    """A part of the package whose extra is not installed."""


def installed(name: str) -> bool:
    """Whether a module can be imported, as far as that can be told without it."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # its parent is missing, or it is switched off
        return False


def need(what: str, extras: str, *modules: str) -> None:
    """A `MissingExtraError` where a module of these extras is not installed. `what`: needs it."""
    missing = ", ".join(name for name in modules if not installed(name))
    if missing:
        remedy = f'pip install "cascade-encoder[{extras}]"'
        raise MissingExtraError(f"{what} needs the extra {extras}, but {missing} is missing; {remedy}")


class CascadeWarning(UserWarning):
    """The base of every warning that this package gives; commands show these, and no others, in one line each."""

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().splitlines()))


class CertificateWarning(CascadeWarning):
    """A certificate is about other models or policies than its bundle's, and is dropped; or what makes one doubtful.

    Doubtful are examples that come often, are all of one class, or labelled for another task; the certificate says so.
    """
