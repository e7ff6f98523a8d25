"""The contract's bindings: those of the component, or natively what stands in for them."""

import importlib
from typing import Any

try:
    import wit_world

    IS_COMPONENT = True
except ImportError:
    IS_COMPONENT = False


def interface(name: str) -> Any:
    """An interface that is imported."""
    if not IS_COMPONENT:
        return importlib.import_module(f"tidemill_plugin._native.{name}")
    try:
        return importlib.import_module(f"wit_world.imports.{name}")
    except ImportError:
        raise ImportError(f"the world that the component is built for has no {name}") from None


def dialler() -> Any:
    """The types of connectors, which a component exports."""
    return importlib.import_module("wit_world.exports.dialler" if IS_COMPONENT else "tidemill_plugin._native.dialler")


types: Any = interface("types")
Err: Any = importlib.import_module("componentize_py_types" if IS_COMPONENT else "tidemill_plugin._native.err").Err
