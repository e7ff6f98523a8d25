"""Columns on their way out."""

from typing import List, Optional

from wit_world.imports import types


class Emitted:
    """The emissions of one call, collected as columns."""

    def __init__(self) -> None:
        self.payloads: List[types.Payload] = []
        self.origins: List[int] = []
        self.outputs: List[int] = []
        self.marks: List[str] = []

    def add(self, origin: int, output: int, payload: types.Payload, mark: str = "") -> None:
        self.payloads.append(payload)
        self.origins.append(origin)
        self.outputs.append(output)
        self.marks.append(mark)

    def columns(self) -> Optional[types.Emissions]:
        """As the contract wants them; `None` if there are none."""
        if not self.payloads:
            return None
        outputs = self.outputs if any(self.outputs) else []
        return types.Emissions(
            types.Payloads_Each(self.payloads), self.origins, outputs, marks(self.marks)
        )


def marks(given: List[str]) -> List[types.Writing]:
    """The metadata columns of emissions or forwarded messages of which some have a mark."""
    settings = [
        types.Setting(index, "" if mark == "-" else mark) for index, mark in enumerate(given) if mark
    ]
    if not settings:
        return []
    if len(settings) == len(given):
        return [types.Writing_Each([setting.value for setting in settings])]
    return [types.Writing_Sparse(settings)]
