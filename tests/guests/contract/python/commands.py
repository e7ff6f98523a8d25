"""What the text of a message says is to become of it."""

from typing import Dict, Optional

from tidemill_plugin import Batch, Message, Out, state


def obey(message: Message, out: Out, count: int, loaded: Dict[str, str]) -> None:
    """Does with a message what its text says; `count` is how many there were, and `loaded` what the state has."""
    payload = message.payload
    if isinstance(payload, bytes):
        out.emit(payload[::-1])
        return
    # Half a character stands for half a surrogate pair, which no message has.
    command, _, rest = payload.replace("½", "\ud800").partition(":")
    if command in ("drop", "save"):
        pass
    elif command == "emit":
        output, mark, text = rest.split(":", 2)
        out.emit(text, output=output, metadata={"mark": mark_of(mark)} if mark else None)
    elif command == "both":
        out.forward()
        out.emit(rest)
    elif command == "mark":
        out.forward()
        out.set_metadata("mark", mark_of(rest))
    elif command == "room":
        out.emit(message.metadata("room"))
    elif command == "time":
        out.emit(message.received_us or 0)
    elif command == "count":
        out.emit(count)
    elif command == "load":
        out.emit(loaded[rest])
    elif command == "later":
        after_ms, _, why = rest.partition(":")
        out.retry(why, after=f"{after_ms}ms")
    elif command == "reject":
        out.reject(rest)
    elif command in ("fail", "throw"):
        raise RuntimeError(rest)
    else:
        out.forward("side" if payload == "forward:side" else "default")


def mark_of(mark: str) -> str:
    return "" if mark == "-" else mark


def save_and_load(batch: Batch) -> Dict[str, str]:
    """Does what a batch says of the host's state, in one call each; gives what was loaded."""
    changes = []
    keys = []
    for message in batch:
        command, _, rest = str(message.payload).partition(":")
        if command == "save":
            key, ttl, value = rest.split(":", 2)
            kept: Optional[str] = None if value == "-" else value
            changes.append(state.Change(key, kept, None if ttl == "0" else f"{ttl}ms"))
        elif command == "load":
            keys.append(rest)
    state.set_many(changes)
    return {key: "-" if value is None else value.decode() for key, value in zip(keys, state.get_many(keys))}
