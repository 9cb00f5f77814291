"""Java's objects in the worker of an ordinary Fiji: called there, through Appose.

The names are those of JPype that this package uses, and behave alike, so that one code drives
ImageJ from inside of its process and from outside.  An object is a number, under which Fiji keeps
it until Python has let go of it.  Small values travel as JSON, pixels through shared memory.

What a command's own thread asks for is done by the thread of Java that waits for the command, for
ImageJ tells by it which macro runs; what other threads ask for is done by others of Java.

This module must never hold pixels of Fiji's longer than a call, never wait for a Fiji that has
ended, and imports neither JPype nor PyImageJ.

Source: the protocol of ``fiji_scripts/ordinary``, whose other end is ``nrrn/Calls.groovy``.
"""

from __future__ import annotations

import base64
import functools
import itertools
import numbers
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "JArray",
    "JByte",
    "JClass",
    "JDouble",
    "JException",
    "JFloat",
    "JInt",
    "JLong",
    "JProxy",
    "JShort",
    "JString",
    "copy_from_java",
    "copy_to_java",
    "here",
    "undone_at_death",
]

SECONDS_BETWEEN_LOOKS = 0.5
FIJI_ENDED = "Fiji has ended."
ARRAY_TYPES = {"[B": "i1", "[S": "i2", "[I": "i4", "[J": "i8", "[F": "f4", "[D": "f8"}
NAMES_IN_ARRAYS = {"byte": "B", "short": "S", "int": "I", "long": "J", "float": "F", "double": "D"}


# --- asking ------------------------------------------------------------------------------------


class _Answer:
    def __init__(self) -> None:
        self.came = threading.Event()
        self.reply: dict[str, Any] = {}


class Link:
    """What Python asks of Fiji, and what came of it; one for the process."""

    def __init__(self) -> None:
        self.channel: Any = None
        """The task by which threads ask that no command waits for."""
        self.ended = threading.Event()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Answer] = {}
        self._own = threading.local()
        self._contexts: dict[str, SimpleNamespace] = {}
        self._gone: deque[int] = deque()

    @contextmanager
    def task(self, task: Any, context: str, outermost: bool) -> Iterator[None]:
        """Let this thread ask by a task of its own, which a thread of Java waits for."""
        self._own.task, self._own.context = task, context
        self._contexts.setdefault(context, SimpleNamespace())
        try:
            yield
        finally:
            del self._own.task, self._own.context
            if outermost:
                self._contexts.pop(context, None)

    @property
    def context(self) -> str:
        """What names the thread of Java that waits, or this thread where none does."""
        return getattr(self._own, "context", None) or f"thread {threading.get_ident()}"

    def here(self) -> Any:
        """Return what may hold attributes for the thread of Java that waits."""
        context = getattr(self._own, "context", None)
        return self._own if context is None else self._contexts[context]

    @property
    def stopped(self) -> bool:
        """Whether the user has pressed Esc since the command began."""
        task = getattr(self._own, "task", None)
        return self.ended.is_set() or bool(task is not None and task.cancel_requested)

    def ask(self, what: str, on: Any = None, name: str = "", given: Any = None, **more: Any) -> Any:
        """Ask Fiji to do one thing, and return what came of it.

        Raises
        ------
        JException
            If Java threw something.
        EOFError
            If Fiji has ended.
        """
        number, answer = next(self._numbers), _Answer()
        self._waiting[number] = answer
        wish = {"number": number, "what": what, "context": self.context, **more}
        if on is not None:
            wish["on"] = encode(on)
        if name:
            wish["name"] = name
        if given is not None:
            wish["given"] = encode(given)
        wish["drop"] = self.dropped()
        task = getattr(self._own, "task", None) or self.channel
        try:
            task.update(info=wish)
            if more.get("quiet"):
                return None
            while not answer.came.wait(SECONDS_BETWEEN_LOOKS):
                if self.ended.is_set():
                    raise EOFError(FIJI_ENDED)
        finally:
            del self._waiting[number]
        if "error" in answer.reply:
            raise JException(decode(answer.reply["error"]))
        return decode(answer.reply.get("value"))

    def answer(self, number: int, reply: dict[str, Any]) -> None:
        """Hand over what came of a wish; one that nobody waits for any more is let go."""
        waiting = self._waiting.get(number)
        if waiting is None:
            decode(reply.get("value"))
            return
        waiting.reply = reply
        waiting.came.set()

    def end(self) -> None:
        """Give up all that was asked, and the memory that Fiji would have given back."""
        self.ended.set()
        for memory in list(_memories):
            with suppress(OSError):  # Fiji has given it back itself, or will
                memory.unlink()

    def drop(self, number: int) -> None:
        """Let go of an object, when something is asked next."""
        self._gone.append(number)

    def dropped(self) -> list[int]:
        """Return the objects to let go of; once each."""
        gone = []
        while self._gone:
            try:
                gone.append(self._gone.popleft())
            except IndexError:  # another thread has sent it
                break
        return gone


LINK = Link()


def here() -> Any:
    """Return what may hold attributes for the thread of Java that waits for this Python."""
    return LINK.here()


def encode(value: Any) -> Any:
    """Return a value as it travels to Fiji.

    Raises
    ------
    TypeError
        If Java has nothing like it.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, _Typed):
        return {"t": value.type, "v": value.value}
    if isinstance(value, JClass):
        return {"c": value.name}
    if isinstance(value, JObject):
        return {"o": value._number}
    if isinstance(value, JException):
        return {"o": value.thrown._number}
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return {"t": "double", "v": _java_text(float(value))}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [encode(part) for part in value]
    raise TypeError(f"Java has nothing like a {type(value).__name__}.")


def _java_text(number: float) -> str:
    return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(repr(number), repr(number))


def decode(sent: Any) -> Any:
    """Return what came from Fiji: a value, or an object that is there."""
    if isinstance(sent, list):
        return [decode(part) for part in sent]
    if not isinstance(sent, Mapping):
        return sent
    if "d" in sent:
        return float(sent["d"])
    kind = JSequence if sent.get("many") else JObject
    return kind(sent["o"], sent["c"], sent.get("message"))


# --- values and classes ------------------------------------------------------------------------

JString = str


class _Typed:
    """A number of a certain type of Java."""

    def __init__(self, name: str, value: Any):
        self.type, self.value = name, value


class _Primitive:
    def __init__(self, name: str, convert: Callable[[Any], Any]):
        self.name, self._convert = name, convert

    def __call__(self, value: Any) -> _Typed:
        return _Typed(self.name, self._convert(value))


JByte = _Primitive("byte", int)
JShort = _Primitive("short", int)
JInt = _Primitive("int", int)
JLong = _Primitive("long", int)
JFloat = _Primitive("float", lambda value: _java_text(float(value)))
JDouble = _Primitive("double", lambda value: _java_text(float(value)))


class JClass:
    """A class of Java: called it makes an object, its attributes are static.

    Parameters
    ----------
    name
        With its package, as in "ij.IJ".
    """

    def __init__(self, name: str):
        self.__dict__["name"] = name

    @property
    def class_(self) -> Any:
        """The object that describes the class."""
        given = [self.name, True, _loader()]
        return LINK.ask("call", JClass("java.lang.Class"), "forName", given, isStatic=True)

    def __call__(self, *given: Any) -> Any:
        return LINK.ask("new", self, given=given)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _fields(self.name):
            return LINK.ask("get", self, name)
        return functools.partial(_call, self, name, isStatic=True)

    def __setattr__(self, name: str, value: Any) -> None:
        LINK.ask("set", self, name, [value])

    def __instancecheck__(self, value: Any) -> bool:
        if isinstance(value, JException):
            value = value.thrown
        return isinstance(value, JObject) and _is(value._class, self.name, value)

    def __repr__(self) -> str:
        return f"<java class {self.name}>"


@functools.cache
def _loader() -> Any:
    """Return what finds the classes of ImageJ and of its plugins."""
    return JClass("ij.IJ").getClassLoader()


def _call(on: Any, name: str, *given: Any, **more: Any) -> Any:
    return LINK.ask("call", on, name, given, **more)


@functools.cache
def _fields(name: str) -> frozenset[str]:
    """Return the names of a class's public fields."""
    return frozenset(LINK.ask("fields", JClass(name)))


_known: dict[tuple[str, str], bool] = {}


def _is(made: str, wanted: str, value: JObject) -> bool:
    """Whether an object of class ``made`` is a ``wanted``; asked once for two names."""
    if (made, wanted) not in _known:
        _known[made, wanted] = bool(LINK.ask("is", JClass(wanted), given=[value]))
    return _known[made, wanted]


class JObject:
    """An object of Java: its attributes are its fields and methods."""

    def __init__(self, number: int, name: str, message: str | None = None):
        self.__dict__.update(_number=number, _class=name, _message=message)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _fields(self._class):
            return LINK.ask("get", self, name)
        return functools.partial(_call, self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        LINK.ask("set", self, name, [value])

    def __del__(self) -> None:
        LINK.drop(self._number)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, JObject) and other._number == self._number

    def __hash__(self) -> int:
        return hash(self._number)

    def __str__(self) -> str:
        return str(LINK.ask("call", self, "toString", []))

    def __repr__(self) -> str:
        return f"<java object {self._class}>"


class JSequence(JObject):
    """An array or a collection of Java."""

    def __len__(self) -> int:
        return int(LINK.ask("length", self))

    def __iter__(self) -> Iterator[Any]:
        return iter(LINK.ask("items", self))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        return LINK.ask("item", self, given=[index if index >= 0 else len(self) + index])

    def __setitem__(self, index: int, value: Any) -> None:
        LINK.ask("put", self, given=[index, value])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        kind = ARRAY_TYPES.get(self._class)
        if kind is None:
            return np.asarray(list(self), dtype)
        values = np.frombuffer(base64.b64decode(LINK.ask("bytes", self)), kind).copy()
        return values if dtype is None else values.astype(dtype)


class JArray:
    """A type of arrays: called with a number it makes an empty one, with values a full one.

    Parameters
    ----------
    of
        The type of what is in them.
    """

    def __init__(self, of: Any):
        self._of = "java.lang.String" if of is JString else of.name
        code = NAMES_IN_ARRAYS.get(self._of, f"L{self._of};")
        self._class = f"[{code}"
        self.__name__ = f"{self._of}[]"

    def __call__(self, given: int | Iterable[Any]) -> Any:
        what = int(given) if isinstance(given, numbers.Integral) else list(given)  # type: ignore[arg-type]
        return LINK.ask("array", JClass(self._of), given=[what])

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, JSequence) and value._class == self._class


class JException(Exception):
    """Something that Java threw."""

    def __init__(self, thrown: JObject):
        super().__init__(thrown._message or thrown._class)
        self.thrown = thrown

    def message(self) -> str | None:
        """Return its message, if it has one."""
        message: str | None = self.thrown._message
        return message

    def getCause(self) -> JException | None:
        """Return what was the cause, if that is known."""
        cause = self.thrown.getCause()
        return None if cause is None else JException(cause)


# --- what Java calls ---------------------------------------------------------------------------

_proxies: dict[str, Mapping[str, Callable[..., Any]]] = {}


def JProxy(interface: Any, dict: Mapping[str, Callable[..., Any]]) -> Any:
    """Return an object of Java whose methods are functions of Python; for good.

    Parameters
    ----------
    interface
        The interface, or its name.
    dict
        The function of each method.
    """
    key = str(len(_proxies))
    _proxies[key] = dict
    return LINK.ask("proxy", interface if isinstance(interface, JClass) else JClass(interface), key)


def called(key: str, method: str, given: Sequence[Any]) -> Any:
    """Call the function that Java has called, with what travelled."""
    return _proxies[key][method](*map(decode, given))


# --- pixels ------------------------------------------------------------------------------------


_memories: set[Any] = set()
"""What is shared with Fiji at the moment."""


def give_back_memory() -> None:
    """Give back the memory that this thread's command has kept for its next plane."""
    _let_go(here())


@contextmanager
def _shared(size: int) -> Iterator[tuple[str, memoryview]]:
    """Share memory with Fiji for as long as a copy takes.

    A thread that a command waits for keeps its own, for the next plane has the same size; Fiji
    gives that back when the command has ended.
    """
    from appose import SharedMemory

    kept = here()
    if getattr(kept, "memory", None) is not None and kept.memory.rsize >= size:
        yield kept.memory.name, kept.memory.buf
        return
    _let_go(kept)
    name = LINK.ask("share", given=[_Typed("long", size)])
    memory = SharedMemory(name=name, rsize=size)
    _memories.add(memory)
    keep = kept is not LINK._own
    if keep:
        kept.memory = memory
    try:
        yield name, memory.buf
    finally:
        if not keep:
            _give_back(memory)


def _let_go(kept: Any) -> None:
    memory, kept.memory = getattr(kept, "memory", None), None
    if memory is not None:
        _give_back(memory)


def _give_back(memory: Any) -> None:
    _memories.discard(memory)
    memory.close()
    LINK.ask("unshare", name=memory.name)


def copy_from_java(out: NDArray[Any], pixels: JObject, offset: int) -> None:
    """Copy pixels out of a Java array, bit by bit, into a contiguous array."""
    with _shared(out.nbytes) as (name, memory):
        LINK.ask("read", pixels, name, [offset, out.size])
        out.reshape(-1).view(np.uint8)[:] = np.frombuffer(memory, np.uint8, out.nbytes)


def copy_to_java(plane: NDArray[Any], pixels: JObject, offset: int) -> None:
    """Copy a contiguous array into a Java array, bit by bit."""
    with _shared(plane.nbytes) as (name, memory):
        np.frombuffer(memory, np.uint8, plane.nbytes)[:] = plane.reshape(-1).view(np.uint8)
        LINK.ask("write", pixels, name, [offset, plane.size])


PIECE_BYTES = 64 << 20
"""Of pixels that travel at once."""


def copy_planes_from_java(out: NDArray[Any], stack: JObject, places: Sequence[int]) -> int:
    """Copy planes of an ``ij.ImageStack``, bit by bit, into a contiguous array.

    Parameters
    ----------
    out
        (n, Y, X).
    places
        The number of each plane, from 1.

    Returns
    -------
    int
        0; or the number of the first plane that is of another type or size, or, negative, that
        there is no more.
    """
    size = out[0].nbytes
    at_once = max(1, PIECE_BYTES // size)
    for start in range(0, len(places), at_once):
        part = out[start : start + at_once]
        with _shared(part.nbytes) as (name, memory):
            numbers_of = list(places[start : start + at_once])
            wrong = LINK.ask("planes", stack, name, [numbers_of, size, out.dtype.itemsize])
            if wrong:
                return int(wrong)
            part.reshape(-1).view(np.uint8)[:] = np.frombuffer(memory, np.uint8, part.nbytes)
    return 0


def copy_planes_to_java(planes: NDArray[Any], arrays: Sequence[JObject]) -> None:
    """Copy planes of a contiguous array (n, Y, X), bit by bit, into one Java array each."""
    size = planes[0].nbytes
    at_once = max(1, PIECE_BYTES // size)
    for start in range(0, len(arrays), at_once):
        part = planes[start : start + at_once]
        with _shared(part.nbytes) as (name, memory):
            np.frombuffer(memory, np.uint8, part.nbytes)[:] = part.reshape(-1).view(np.uint8)
            LINK.ask("fill", name=name, given=list(arrays[start : start + at_once]))


def arrays(count: int, of: Any, size: int) -> list[Any]:
    """Return new arrays of Java of one size."""
    made: list[Any] = LINK.ask("arrays", JClass(of.name), given=[count, size])
    return made


def calls(wanted: Sequence[tuple[Any, str, Sequence[Any]]]) -> list[Any]:
    """Call many methods in one trip; see :func:`nrrn_fiji.fiji.java.calls`."""
    rows = [[on, name, list(given)] for on, name, given in wanted]
    found: list[Any] = LINK.ask("calls", given=rows) if rows else []
    return found


def set_each(objects: Sequence[Any], name: str, values: Sequence[Any]) -> None:
    """Set a field of many objects in one trip."""
    LINK.ask("setEach", name=name, given=[list(pair) for pair in zip(objects, values, strict=True)])


def tell(method: Any, *given: Any) -> None:
    """Have a method called, and do not wait for it."""
    method(*given, quiet=True)


def undone_at_death(on: JObject, method: str) -> None:
    """Have Fiji call a method of an object, should this Python end before its command."""
    LINK.ask("remember", on, method)
