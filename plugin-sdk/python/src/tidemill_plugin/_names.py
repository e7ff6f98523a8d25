"""Names that the plugin gave to fields, outputs and others, and the places that they stand for."""

import difflib
from typing import Iterable, Mapping, Optional


def place(of: Mapping[str, int], name: str, what: str) -> int:
    """The place of a name. Raises where it was not declared, and says what was."""
    try:
        return of[name]
    except KeyError:
        guess = nearest(str(name), of)
        hint = "" if guess is None else f", did you mean {guess!r}?"
        known = ", ".join(repr(one) for one in of) or "none is"
        raise LookupError(f"{name!r} is not declared in {what}{hint} (declared: {known})") from None


def nearest(name: str, known: Iterable[str]) -> Optional[str]:
    """The known name that was probably meant."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return found[0] if found else None
