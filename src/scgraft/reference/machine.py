"""The machine of a pickle: reads one operation after the other, and makes plain values of them.

Python's own is not used, because it cannot be bounded: a few bytes can make it build, hash or nest without an end. This one
pays for every operation out of a budget, hashes nothing but texts and numbers, and calls nothing but our own stand-ins.
Source: the documentation of the module ``pickletools``, whose table describes every operation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from scgraft.files.budget import Budget
from scgraft.reference.stand_ins import STORAGE_FILE, Array, Dtype, Function, Inert, as_key, finish, stand_in

LONGEST_NUMBER = 255  # bytes, of a whole number; a hundred thousand times what a model has
BETWEEN_LOOKS = 10_000  # steps from one look at the clock to the next: some milliseconds


class Machine:
    """State of a pickle that is being read: where it is, its stack with marks, and what it remembers.

    `storage` gives the storage of a persistent id, `nested` that of a file within the file; None where there is none.
    """

    def __init__(
        self,
        data: bytes,
        name: str,
        budget: Budget,
        storage: Callable[[Any], Any] | None,
        nested: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data, self.at, self.name = data, 0, name
        self.budget, self.storage, self.nested = budget, storage, nested
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        found = self.data[self.at : self.at + n]
        if len(found) < n:
            raise EOFError("it ends in the middle of a value")
        self.at += n
        return found

    def number(self, n: int, *, signed: bool = False) -> int:
        """The next `n` bytes as a whole number."""
        return int.from_bytes(self.take(n), "little", signed=signed)

    def line(self) -> str:
        """The next bytes up to the end of the line."""
        end = self.data.index(b"\n", self.at)
        found, self.at = self.data[self.at : end], end + 1
        return found.decode("utf-8")

    def to_mark(self) -> list[Any]:
        """What was put onto the stack since the last mark, taken off with it."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def call(self, function: Any, args: Any) -> Any:
        """The result of a stand-in."""
        if isinstance(function, Inert):
            return function
        if function is STORAGE_FILE and self.nested is not None:
            return self.nested(*args)
        if not isinstance(function, Function) or not isinstance(args, tuple):
            raise ValueError("a call of what is no function")
        return function.call(self.budget, *args)

    def named(self, module: Any, name: Any) -> Any:
        """The stand-in of a global."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a global without a name")
        return stand_in(module, name, self.name)


def load(machine: Machine) -> Any:
    """Plain values of the pickle that begins where the machine is; it ends behind it.

    Raises
    ------
    UnsafeFile, UnsupportedModel, CorruptFile
        A global that is not on the list, or a budget that is used up.
    ValueError, KeyError, IndexError, TypeError, EOFError, OverflowError, AttributeError, struct.error
        It is no pickle that scvi-tools or torch write.
    """
    until_look = BETWEEN_LOOKS
    while True:
        operation = machine.data[machine.at : machine.at + 1]
        machine.at += 1
        until_look -= 1
        if not until_look:
            machine.budget.go_on(BETWEEN_LOOKS)
            until_look = BETWEEN_LOOKS
        if operation == STOP:
            return finish(machine.stack.pop(), {})
        OPERATIONS.get(operation, _unknown)(machine)


def _mark(m: Machine) -> None:
    m.marked.append(m.stack)
    m.stack = []


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.to_mark()


def _pop_mark(m: Machine) -> None:
    m.to_mark()


def _duplicate(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def _constant(m: Machine) -> None:
    m.stack.append(CONSTANTS[m.data[m.at - 1 : m.at]])


def _empty_list(m: Machine) -> None:
    m.stack.append([])


def _empty_dict(m: Machine) -> None:
    m.stack.append({})


def _empty_set(m: Machine) -> None:
    m.stack.append(set())


def _int_text(m: Machine) -> None:
    text = m.line()
    if len(text) > LONGEST_NUMBER:
        raise ValueError("a number of too many digits")
    m.stack.append({"00": False, "01": True}[text] if text in ("00", "01") else int(text.rstrip("L")))


def _float_text(m: Machine) -> None:
    m.stack.append(float(m.line()))


def _int1(m: Machine) -> None:
    m.stack.append(m.number(1))


def _int2(m: Machine) -> None:
    m.stack.append(m.number(2))


def _int4(m: Machine) -> None:
    m.stack.append(m.number(4, signed=True))


def _long1(m: Machine) -> None:
    m.stack.append(m.number(m.number(1), signed=True))


def _long4(m: Machine) -> None:
    n = m.number(4)
    if n > LONGEST_NUMBER:
        raise ValueError("a number of too many digits")
    m.stack.append(m.number(n, signed=True))


def _float8(m: Machine) -> None:
    m.stack.append(struct.unpack(">d", m.take(8))[0])


def _unicode_line(m: Machine) -> None:
    end = m.data.index(b"\n", m.at)
    m.stack.append(m.data[m.at : end].decode("raw-unicode-escape"))
    m.at = end + 1


def _unicode1(m: Machine) -> None:
    m.stack.append(m.take(m.number(1)).decode("utf-8", "surrogatepass"))


def _unicode4(m: Machine) -> None:
    m.stack.append(m.take(m.number(4)).decode("utf-8", "surrogatepass"))


def _unicode8(m: Machine) -> None:
    m.stack.append(m.take(m.number(8)).decode("utf-8", "surrogatepass"))


def _bytes1(m: Machine) -> None:
    m.stack.append(m.take(m.number(1)))


def _bytes4(m: Machine) -> None:
    m.stack.append(m.take(m.number(4)))


def _bytes8(m: Machine) -> None:
    m.stack.append(m.take(m.number(8)))


def _tuple(m: Machine) -> None:
    items = m.to_mark()
    m.stack.append(tuple(items))


def _tuple1(m: Machine) -> None:
    m.stack[-1:] = [(m.stack[-1],)]


def _tuple2(m: Machine) -> None:
    m.stack[-2:] = [(m.stack[-2], m.stack[-1])]


def _tuple3(m: Machine) -> None:
    m.stack[-3:] = [(m.stack[-3], m.stack[-2], m.stack[-1])]


def _list(m: Machine) -> None:
    items = m.to_mark()
    m.stack.append(items)


def _dict(m: Machine) -> None:
    items = m.to_mark()
    m.stack.append({})
    _fill(m.stack[-1], items)


def _frozenset(m: Machine) -> None:
    items = m.to_mark()
    m.stack.append({as_key(item) for item in items})


def _append(m: Machine) -> None:
    _extend(m.stack, [m.stack.pop()])


def _appends(m: Machine) -> None:
    items = m.to_mark()
    _extend(m.stack, items)


def _extend(stack: list[Any], items: list[Any]) -> None:
    target = stack[-1]
    if not isinstance(target, (list, Inert)):
        raise ValueError("items for what is no list")
    if isinstance(target, list):
        target.extend(items)


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _fill(m.stack[-1], [key, value])


def _set_items(m: Machine) -> None:
    items = m.to_mark()
    _fill(m.stack[-1], items)


def _fill(target: Any, items: list[Any]) -> None:
    if not isinstance(target, (dict, Inert)):
        raise ValueError("keys for what is no dictionary")
    if isinstance(target, dict):
        for i in range(0, len(items), 2):
            target[as_key(items[i])] = items[i + 1]


def _add_items(m: Machine) -> None:
    items = m.to_mark()
    if not isinstance(m.stack[-1], set):
        raise ValueError("members for what is no set")
    m.stack[-1].update(as_key(item) for item in items)


def _get_line(m: Machine) -> None:
    m.stack.append(m.memo[int(m.line()[:20])])


def _get1(m: Machine) -> None:
    m.stack.append(m.memo[m.number(1)])


def _get4(m: Machine) -> None:
    m.stack.append(m.memo[m.number(4)])


def _put_line(m: Machine) -> None:
    m.memo[int(m.line()[:20])] = m.stack[-1]


def _put1(m: Machine) -> None:
    m.memo[m.number(1)] = m.stack[-1]


def _put4(m: Machine) -> None:
    m.memo[m.number(4)] = m.stack[-1]


def _memoize(m: Machine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _global_lines(m: Machine) -> None:
    module, name = m.line(), m.line()
    m.stack.append(m.named(module, name))


def _global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.stack.append(m.named(module, name))


def _instance_lines(m: Machine) -> None:
    module, name = m.line(), m.line()
    args = tuple(m.to_mark())
    m.stack.append(m.call(m.named(module, name), args))


def _instance(m: Machine) -> None:
    kind, *args = m.to_mark()
    m.stack.append(m.call(kind, tuple(args)))


def _reduce(m: Machine) -> None:
    args, function = m.stack.pop(), m.stack.pop()
    m.stack.append(m.call(function, args))


def _new_with_names(m: Machine) -> None:
    m.stack.pop()  # arguments by name: no stand-in has any
    _reduce(m)


def _build(m: Machine) -> None:
    state, target = m.stack.pop(), m.stack[-1]
    if isinstance(target, Array):
        target.build(state, m.budget)
    elif isinstance(target, Dtype):
        target.build(state)
    elif not isinstance(target, (dict, Inert)):  # an OrderedDict carries attributes that nobody needs
        raise ValueError(f"a pickle must not change a {type(target).__name__.lower()}")


def _persistent(m: Machine) -> None:
    if m.storage is None:
        raise ValueError("a storage outside of a model file")
    m.stack.append(m.storage(m.stack.pop()))


def _protocol(m: Machine) -> None:
    m.take(1)


def _frame(m: Machine) -> None:
    m.take(8)


def _buffer(m: Machine) -> None:
    raise ValueError("buffers outside of the file (pickle protocol 5), which torch.save never writes")


def _unknown(m: Machine) -> None:
    raise ValueError("an operation that torch.save never writes")


STOP = b"."
CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}
OPERATIONS: dict[bytes, Callable[[Machine], None]] = {
    b"(": _mark, b"0": _pop, b"1": _pop_mark, b"2": _duplicate, b"N": _constant, b"\x88": _constant, b"\x89": _constant,
    b"I": _int_text, b"L": _int_text, b"F": _float_text, b"J": _int4, b"K": _int1, b"M": _int2, b"\x8a": _long1,
    b"\x8b": _long4, b"G": _float8, b"V": _unicode_line, b"X": _unicode4, b"\x8c": _unicode1, b"\x8d": _unicode8,
    b"U": _unicode1, b"T": _unicode4, b"C": _bytes1, b"B": _bytes4, b"\x8e": _bytes8, b"\x96": _bytes8,
    b")": _constant, b"t": _tuple, b"\x85": _tuple1, b"\x86": _tuple2, b"\x87": _tuple3, b"]": _empty_list,
    b"l": _list, b"a": _append, b"e": _appends, b"}": _empty_dict, b"d": _dict, b"s": _set_item, b"u": _set_items,
    b"\x8f": _empty_set, b"\x90": _add_items, b"\x91": _frozenset, b"g": _get_line, b"h": _get1, b"j": _get4,
    b"p": _put_line, b"q": _put1, b"r": _put4, b"\x94": _memoize, b"c": _global_lines, b"\x93": _global,
    b"i": _instance_lines, b"o": _instance, b"R": _reduce, b"\x81": _reduce, b"\x92": _new_with_names, b"b": _build,
    b"Q": _persistent, b"\x80": _protocol, b"\x95": _frame, b"\x97": _buffer, b"\x98": _buffer,
}  # fmt: skip
