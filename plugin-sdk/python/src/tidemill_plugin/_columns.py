"""Columns on their way out: the values that messages were given, one by one, as the contract wants them."""

import json
import math
import re
from decimal import Decimal
from typing import Any, List, Optional, Sequence

from tidemill_plugin._contract import types


_HALVES = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs, which have no UTF-8."""


def well_formed(text: str) -> str:
    """A text as it may cross: half a surrogate pair, which would be a trap, becomes U+FFFD."""
    return text if text.isascii() else _HALVES.sub("\ufffd", text)


class Column:
    """The values that some of the messages, or of the emissions, were given; each has at most one."""

    __slots__ = ("indices", "values")

    def __init__(self) -> None:
        self.indices: List[int] = []
        self.values: List[Any] = []

    def put(self, index: int, value: Any) -> None:
        indices = self.indices
        if indices and indices[-1] == index:
            self.values[-1] = value
        else:
            indices.append(index)
            self.values.append(value)

    def keep(self, index: int) -> None:
        """Forgets the values from this index on."""
        while self.indices and self.indices[-1] >= index:
            self.indices.pop()
            self.values.pop()

    def spread(self, indices: Sequence[int], absent: Any) -> List[Any]:
        """The values of all these indices, `absent` where there is none."""
        if self.indices == indices:
            return self.values
        given = dict(zip(self.indices, self.values))
        return [given.get(index, absent) for index in indices]


class EditColumn(Column):
    """What one place in the forwarded messages is changed to."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        super().__init__()
        self._texts = 0

    def set(self, index: int, value: Any) -> None:
        if type(value) is float:
            if math.isfinite(value):
                self.put(index, value)
            else:
                self.set_json(index, "null")
        elif isinstance(value, Decimal):
            self.set_json(index, str(value) if value.is_finite() else "null")
        else:
            self.set_json(index, dumps(value))

    def set_json(self, index: int, text: str) -> None:
        self._texts += 1
        self.put(index, well_formed(text))

    def lower(self, forwarded: List[int]) -> Any:
        if not self._texts:
            return types.Values_Numbers(self.spread(forwarded, math.nan))
        values = self.spread(forwarded, None)
        return types.Values_Each([repr(value) if type(value) is float else value for value in values])


class MetadataColumn(Column):
    """The values that one metadata key is given."""

    __slots__ = ()

    def set(self, index: int, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"metadata is text, and not a {type(value).__name__}")
        self.put(index, well_formed(value))

    def lower(self, indices: List[int]) -> Any:
        if self.indices == indices:
            if self.values.count(self.values[0]) == len(self.values):
                return types.Writing_Same(self.values[0])
            return types.Writing_Each(self.values)
        settings = [
            types.Setting(place, value)
            for place, value in enumerate(self.spread(indices, None))
            if value is not None
        ]
        return types.Writing_Sparse(settings) if settings else types.Writing_Inherit()


def lowered(columns: Optional[Sequence[Any]], indices: List[int]) -> List[Any]:
    """The columns of all keys or edits; none, if nothing was set."""
    if columns is None or not indices or not any(column.indices for column in columns):
        return []
    return [column.lower(indices) for column in columns]


def dumps(value: Any) -> str:
    """A value as JSON; raises where JSON does not have it. Only half a surrogate pair is written as an escape."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text if text.isascii() else _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
