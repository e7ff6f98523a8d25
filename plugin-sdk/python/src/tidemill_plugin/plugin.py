"""A plugin of a pipeline: the class that it derives from, and what the host calls."""

import sys
from datetime import timedelta
from io import TextIOWrapper
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Type, Union

from tidemill_plugin._columns import dumps
from tidemill_plugin._contract import types
from tidemill_plugin._failure import guarded, refuse_async, refusing
from tidemill_plugin.config import Pointer, no_config, read_config
from tidemill_plugin.duration import milliseconds
from tidemill_plugin.fields import Field
from tidemill_plugin.message import Batch, Message, message_with
from tidemill_plugin.outcome import Emissions, Out, Outcome, most_bytes
from tidemill_plugin.part import Part, Snapshot

_MOST_MS = 2**32 - 1


class Plugin:
    """A plugin: what it declares, and what it does with a message, and with time.

    Only `process` must be written. What is declared may also be set in `__init__`, where it depends on the
    configuration. Whatever a callback raises is a fault of the call, told with its file and line.
    """

    Config: Optional[type] = None
    """A dataclass that says what the configuration holds; see `tidemill_plugin.config`."""
    outputs: Sequence[str] = ()
    """Named ways out beside "default"."""
    reads: Sequence[str] = ()
    """Metadata keys of messages that the plugin looks at."""
    writes: Sequence[str] = ()
    """Metadata keys that the plugin may set."""
    fields: Mapping[str, Field] = {}
    """Fields of JSON messages that the host finds: `number`, `text` or `json` of a JSON pointer."""
    edits: Mapping[str, str] = {}
    """Members of JSON messages that the plugin may change in what it forwards, as JSON pointers."""
    only_json: bool = False
    """Whether the host rejects what is not JSON."""
    guards: bool = False
    """Whether the plugin is there to keep something from going on: the host warns of `on_error = "pass"`."""
    payloads: bool = True
    """Whether payloads cross; without, a message has its fields and metadata."""
    times: bool = False
    """Whether messages have `received_us`."""
    tick_every: Union[timedelta, str, float, None] = None
    """How often `tick` is called: a `timedelta`, a text such as "1m", or seconds."""

    def __init__(self, config: Any, facts: Mapping[str, str]) -> None:
        """Makes the plugin. A ValueError refuses the configuration with its text.

        `facts` says where it runs: `contract`, `host`, `pipeline`, `transform`, `instance`, `instances`, `shadow`; and its
        limits: `memory_bytes` and `output_bytes`.
        """
        self.config = config
        self.facts = facts

    def process(self, message: Message, out: Out) -> None:
        """Decides on one message. One that `out` is told nothing of is filtered."""
        raise NotImplementedError("the plugin has no process(self, message, out)")

    def process_batch(self, batch: Batch, outcome: Outcome) -> None:
        """Decides on a whole batch, for plugins that gain from seeing it at once."""
        process, of = self.process, outcome.of
        for message in batch:
            process(message, of(message.index))
            if outcome._retry is not None:
                break

    def tick(self, now_us: int, out: Emissions) -> None:
        """Called at the interval, also when no message comes. `now_us` is the host's time in microseconds."""

    def finish(self, out: Emissions) -> None:
        """Called once, last, when no message will follow. Not called at a swap."""

    def snapshot(self) -> Any:
        """The state that the next version goes on from: anything that JSON has, or bytes; None if there is none."""
        return None

    def restore(self, state: Any) -> None:
        """Goes on from what `snapshot` gave. A ValueError refuses it."""

    def restore_part(self, snapshots: List[Snapshot], part: Part) -> None:
        """Goes on from the snapshots of all instances there were, with what belongs to its part."""
        if len(snapshots) > 1 or not part.is_whole:
            raise ValueError("the plugin cannot share its state out between instances: it has no restore_part")
        if snapshots and type(self).restore is not Plugin.restore:
            self.restore(snapshots[0].json())


class _Shape:
    """The places of all names that a plugin declares, and what the host is told of them."""

    def __init__(self, plugin: Plugin) -> None:
        for name, field in plugin.fields.items():
            if not isinstance(field, Field):
                raise TypeError(f"the field {name!r} is not made by number, text or json")
        for sequence in ("outputs", "reads", "writes"):
            if isinstance(getattr(plugin, sequence), str):
                raise TypeError(f"{sequence} is a text, and must be a list of texts")
        tick_ms = 0 if plugin.tick_every is None else milliseconds(plugin.tick_every)
        self.outputs = {"default": 0, **_places(plugin.outputs, 1)}
        self.reads = _places(plugin.reads)
        self.writes = _places(plugin.writes)
        self.fields = _places(plugin.fields)
        self.edits = _places(plugin.edits)
        self.message = message_with(plugin.fields)
        self.description = types.Description(
            outputs=list(plugin.outputs),
            reads=list(plugin.reads),
            writes=list(plugin.writes),
            fields=[types.Field(field.pointer, types.Kind[field.kind]) for field in plugin.fields.values()],
            edits=[str(Pointer(pointer)) for pointer in plugin.edits.values()],
            json=plugin.only_json,
            form=types.Form.EACH,
            payloads=plugin.payloads,
            times=plugin.times,
            tick_ms=min(max(round(tick_ms), 1), _MOST_MS) if tick_ms else 0,
            options=[("guards", "true")] if plugin.guards else [],
        )


def _places(names: Any, first: int = 0) -> Dict[str, int]:
    return {name: number for number, name in enumerate(names, first)}


def make(of: Type[Any], config: str, facts: Mapping[str, str]) -> Any:
    """Makes a plugin or a connector of a configuration."""
    if "random" in sys.modules:
        # Its seed is of the time when the component was built, the same for every instance.
        sys.modules["random"].seed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Half a surrogate pair has no UTF-8, and printing it is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    if of.Config is not None:
        return of(read_config(of.Config, config), facts)
    no_config(config)
    return of(None, facts)


def export(plugin: Type[Plugin]) -> type:
    """Makes the component's class of a plugin: `Transformer = export(MyPlugin)` in the main module."""
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
        raise TypeError("export takes a class that derives from Plugin")
    if plugin.process is Plugin.process and plugin.process_batch is Plugin.process_batch:
        raise TypeError(f"{plugin.__name__} has no process(self, message, out), which every plugin has")
    refuse_async(plugin, ("process", "process_batch", "tick", "finish", "snapshot", "restore", "restore_part"))

    class Transformer:
        """What the host calls. componentize-py makes an object of it for each call."""

        plugin: Plugin
        shape: _Shape
        most_bytes: int

        def init(self, config: str, facts: List[Tuple[str, str]]) -> Any:
            def start() -> Any:
                Transformer.plugin = make(plugin, config, dict(facts))
                Transformer.shape = _Shape(Transformer.plugin)
                Transformer.most_bytes = most_bytes(dict(facts))
                return Transformer.shape.description

            return refusing(start)

        def process(self, batch: Any) -> Any:
            def decide() -> Any:
                shape = Transformer.shape
                outcome = Outcome(shape)
                Transformer.plugin.process_batch(Batch(shape, batch), outcome)
                return outcome._lower(batch.count)

            return guarded(decide)

        def tick(self, now_us: int) -> Any:
            out = Emissions(Transformer.shape)
            guarded(Transformer.plugin.tick, now_us, out)
            return out._lower([])

        def finish(self) -> Any:
            out = Emissions(Transformer.shape, Transformer.most_bytes)
            guarded(Transformer.plugin.finish, out)
            return out._lower([])

        def snapshot(self) -> Optional[bytes]:
            def save() -> Optional[bytes]:
                state = Transformer.plugin.snapshot()
                if state is None or isinstance(state, bytes):
                    return state
                return _lossless(state)

            return refusing(save)

        def restore(self, snapshots: List[bytes], part: int, parts: int) -> None:
            kept = [Snapshot(bytes(snapshot)) for snapshot in snapshots]
            refusing(Transformer.plugin.restore_part, kept, Part(part, parts))

    return Transformer


def _lossless(state: Any) -> bytes:
    """A state as JSON. Keys that are no texts would come back as texts."""
    found = [state]
    while found:
        value = found.pop()
        if isinstance(value, dict):
            wrong = next((key for key in value if not isinstance(key, str)), None)
            if wrong is not None:
                raise TypeError(f"the key {wrong!r} of the state is no text, as JSON has them")
            found.extend(value.values())
        elif isinstance(value, (list, tuple)):
            found.extend(value)
    return dumps(state).encode()


