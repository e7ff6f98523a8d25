"""What is raised becomes a text that names the plugin's own file and line."""

import os
import sys
import traceback
from typing import Any, Callable, Iterable, TypeVar

from tidemill_plugin._columns import well_formed
from tidemill_plugin._contract import Err

R = TypeVar("R")

_OWN = os.path.dirname(__file__)
_MOST_FRAMES = 8
# A coroutine, or an async generator: as `inspect` has them, which a component need not carry.
_ASYNC = 0x80 | 0x200
_LATE_IMPORT = "a plugin's modules are imported when it is built, so the import belongs to the top of a file"


def guarded(call: Callable[..., R], *arguments: Any) -> R:
    """Runs a callback; what it raises is raised as the text of a fault, with where it was raised."""
    try:
        return call(*arguments)
    except BaseException as error:
        raise Err(well_formed(fault_text(error))) from None


def refusing(call: Callable[..., R], *arguments: Any) -> R:
    """The same, where a `ValueError` is how the plugin refuses something: its text alone says why."""
    try:
        return call(*arguments)
    except ValueError as error:
        raise Err(well_formed(str(error))) from None
    except BaseException as error:
        raise Err(well_formed(fault_text(error))) from None


def refuse_async(of: type, names: Iterable[str]) -> None:
    """Nothing awaits a method of a plugin: one that is async would do nothing, in silence."""
    for name in names:
        code = getattr(getattr(of, name, None), "__code__", None)
        if code is not None and code.co_flags & _ASYNC:
            raise TypeError(f"{of.__name__}.{name} is async, and nothing waits for it: write `def {name}`")


def fault_text(error: BaseException) -> str:
    """The text of whatever was raised."""
    said = "".join(traceback.format_exception_only(type(error), error)).strip()
    if isinstance(error, ImportError):
        said = f"{said}: {_LATE_IMPORT}"
    frames = [
        f"at {frame.name} {_shown(frame.filename)}:{frame.lineno}"
        for frame in reversed(traceback.extract_tb(error.__traceback__))
        if not frame.filename.startswith(_OWN)
    ]
    return f"{said} ({', '.join(frames[:_MOST_FRAMES])})" if frames else said


def _shown(file: str) -> str:
    """A file as it is called from the folder that it was imported from."""
    folders = [folder for folder in sys.path if folder and file.startswith(folder + os.sep)]
    return os.path.relpath(file, max(folders, key=len)) if folders else file
