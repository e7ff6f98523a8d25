"""Write Tidemill plugins in Python. README.md shows a whole one.

`log`, `state`, `metrics`, `clock`, `random`, `http`, `windows` and `connector` are modules of this package, imported by
name: a component asks the host for what its plugin imports, and no more.
"""

# A component has no files: what the standard library would import late is imported while it is built.
import _strptime as _strptime  # type: ignore[import-not-found]
import encodings.ascii as _ascii
import encodings.idna as _idna
import encodings.latin_1 as _latin_1

from tidemill_plugin.config import ConfigError, Pointer
from tidemill_plugin.fields import Field, json, number, text
from tidemill_plugin.message import Batch, Message
from tidemill_plugin.outcome import Emissions, Out, Outcome
from tidemill_plugin.part import Part, Snapshot, key_hash
from tidemill_plugin.plugin import Plugin, export

__all__ = [
    "Batch",
    "ConfigError",
    "Emissions",
    "Field",
    "Message",
    "Out",
    "Outcome",
    "Part",
    "Plugin",
    "Pointer",
    "Snapshot",
    "export",
    "json",
    "key_hash",
    "number",
    "text",
]
