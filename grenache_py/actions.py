"""Actions: the ``{action, args}`` requests of Bitfinex's workers, and the functions that answer them.

Mirrors bfx-wrk-api (api/base.js ``handle``) and bfx-facs-grc (index.js ``onRequest``). Ours: only what was
exported can be called. There, an action is any attribute of the API object, such as ``init`` or ``loadAcl``.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from . import limits
from .checks import check_listen_port, check_name
from .codec import convert
from .errors import ArgumentError, Refusal
from .tls import Certificate
from .transports.rpc_server import Handler

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Space:
    """What an action is told of its call: Node's ``space``, and the request's ``handler``.

    ``service`` is the name that was called, as the caller gave it. The action does not reply by ``handler``:
    it returns, or raises.
    """

    service: str
    action: str
    handler: Handler

    @property
    def svp(self) -> list[str]:
        """The parts of ``service``: ``["rest", "util", "net"]``."""
        return self.service.split(":")

    @property
    def certificate(self) -> Certificate | None:
        """The certificate that the caller has shown; ``None`` without TLS or without certificate."""
        return self.handler.certificate


class Actions:
    """The functions that callers may name. Those of a service are exported one by one:

        actions = Actions()

        @actions.export
        def getIpInfo(space, ip):
            return [ip, {"country": "US"}]

    An exported function is called with a ``Space`` and the ``args`` of the request, and its result is the
    answer. Parameters with a type hint get arguments of that type (as ``type=`` of ``request``), or the
    caller is answered ``ERR_API_ARGS``. It may be a coroutine function with ``grenache_py.aio``.

    A stream is exported by :meth:`stream`, and its name ends in ``Stream``:

        @actions.stream
        async def echoStream(space, stream):
            async for piece in stream:
                await stream.write(piece)

    It is called as soon as the head of the request has come, with the ``Stream`` before the arguments. Those
    may also be named (``_ar: {"name": …}``). What it returns, unless ``None``, is answered in place of a
    stream; one that is refused, or raises, before it has written is answered with an HTTP status too: 400,
    403 ``ERR_API_AUTH``, 404 ``ERR_API_ACTION_NOTFOUND``, 500 ``ERR_API_ACTION``, 503 ``ERR_API_READY``.

    While ``ready`` is false, callers are answered ``ERR_API_READY``.
    """

    def __init__(self) -> None:
        self.ready = True
        self._exported: dict[str, _Action] = {}
        self._streams: dict[str, _Action] = {}

    @property
    def names(self) -> list[str]:
        """The names of what was exported."""
        return [*self._exported, *self._streams]

    @property
    def has_streams(self) -> bool:
        """Whether streams are among them."""
        return bool(self._streams)

    @overload
    def export(self, function: Function) -> Function: ...

    @overload
    def export(self, function: str) -> Callable[[Function], Function]: ...

    def export(self, function: Any) -> Any:
        """Decorator: callers may call this function by its name, or by another: ``@export("getIpInfo")``.

        Raises ``ArgumentError`` for a name that begins with an underscore or is taken already, and for a
        function that cannot be called with a ``Space`` and further arguments.
        """
        return self._add(function, self._exported, ("a Space",))

    @overload
    def stream(self, function: Function) -> Function: ...

    @overload
    def stream(self, function: str) -> Callable[[Function], Function]: ...

    def stream(self, function: Any) -> Any:
        """Decorator: callers may open this function as a stream. Raises as ``export``, and for a name that
        does not end in ``Stream``.
        """
        return self._add(function, self._streams, ("a Space", "a Stream"))

    def _add(self, function: Any, exported: dict[str, _Action], given: tuple[str, ...]) -> Any:
        if isinstance(function, str):
            name = function
            return lambda function: self._add_as(name, function, exported, given)
        return self._add_as(getattr(function, "__name__", ""), function, exported, given)

    def _add_as(self, name: str, function: Any, exported: dict[str, _Action], given: tuple[str, ...]) -> Any:
        check_name(name, "action")
        if name.startswith("_"):
            raise ArgumentError("action", f"must not begin with an underscore: {name!r}")
        if name in self.names:
            raise ArgumentError("action", f"{name!r} is exported already")
        if exported is self._streams:
            check_stream(name)
        exported[name] = _Action(name, function, given)
        return function

    def find(self, payload: Any) -> tuple[_Action, list[Any]]:
        """The action that a payload asks for, and its arguments. Raises ``Refusal``."""
        if not self.ready:
            raise Refusal("ERR_API_READY")
        name = action_name(payload)
        action = None if name is None else self._exported.get(name)
        if action is None:
            raise Refusal("ERR_API_ACTION_NOTFOUND")
        return action, action.take(payload.get("args"))

    def find_stream(self, name: str | None, args: Any) -> tuple[_Action, list[Any], dict[str, Any]]:
        """The stream of that name, and its arguments by position and by name. Raises ``Refusal``."""
        if not self.ready:
            raise Refusal("ERR_API_READY")
        action = None if name is None else self._streams.get(name)
        if action is None:
            raise Refusal("ERR_API_ACTION_NOTFOUND")
        if isinstance(args, dict):
            return action, [], action.take_named(args)
        return action, action.take(args), {}


def is_stream(action: str) -> bool:
    """Whether the action of that name is a stream: its name says so, as with bfx-wrk-api."""
    return action.endswith("Stream")


def check_stream(action: str) -> str:
    """The name of a stream. Raises ``ArgumentError``."""
    if not isinstance(action, str) or not is_stream(action):
        raise ArgumentError("action", f"the name of a stream must end in Stream: {action!r}")
    return action


def action_name(payload: Any) -> str | None:
    """The action that a payload names, exported or not; ``None`` when it names none."""
    name = payload.get("action") if isinstance(payload, dict) else None
    return name if isinstance(name, str) and name else None


class _Action:
    """One exported function, and which arguments it takes."""

    def __init__(self, name: str, function: Callable[..., Any], given: tuple[str, ...]):
        if not callable(function):
            raise ArgumentError("action", f"{name!r} must be a function")
        self.name = name
        self.function = function
        self._hints: list[Any] = []
        self._names: list[str] = []
        self._rest: Any = None
        self._takes_rest = False
        self._required = 0
        kinds = inspect.Parameter
        try:
            hints = typing.get_type_hints(function)
        except NameError as error:
            raise ArgumentError("action", f"{name!r} has a type hint that is not known: {error}") from error
        except TypeError:
            hints = {}  # not a function, but an object that can be called
        for parameter in inspect.signature(function).parameters.values():
            hint = hints.get(parameter.name)
            if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
                self._names.append(parameter.name)
                self._hints.append(hint)
                self._required += parameter.default is kinds.empty
            elif parameter.kind is kinds.VAR_POSITIONAL:
                self._takes_rest, self._rest = True, hint
            elif parameter.kind is kinds.KEYWORD_ONLY and parameter.default is kinds.empty:
                raise ArgumentError("action", f"{name!r}: nobody could give its argument {parameter.name!r}")
        if len(self._names) < len(given) and not self._takes_rest:
            raise ArgumentError("action", f"{name!r} must take {' and '.join(given)} first")
        # Those are no arguments of the caller.
        del self._names[: len(given)], self._hints[: len(given)]
        self._required = max(0, self._required - len(given))

    def take(self, args: Any) -> list[Any]:
        """The arguments of a caller, each as the type that is asked for. Raises ``Refusal``."""
        if args is None:
            args = []
        if not isinstance(args, list):
            raise Refusal("ERR_API_ARGS: args must be an array")
        count = len(self._names)
        if len(args) < self._required:
            raise Refusal(f"ERR_API_ARGS: {self._names[len(args)]} is missing")
        if len(args) > count and not self._takes_rest:
            raise Refusal(f"ERR_API_ARGS: at most {count} arguments, not {len(args)}")
        taken = []
        for index, value in enumerate(args):
            hint = self._hints[index] if index < count else self._rest
            name = self._names[index] if index < count else f"argument {index + 1}"
            taken.append(_converted(name, value, hint))
        return taken

    def take_named(self, args: dict[str, Any]) -> dict[str, Any]:
        """Those of a caller who names them, likewise."""
        for name in self._names[: self._required]:
            if name not in args:
                raise Refusal(f"ERR_API_ARGS: {name} is missing")
        hints = dict(zip(self._names, self._hints, strict=True))
        for name in args:
            if name not in hints:
                raise Refusal(f"ERR_API_ARGS: there is no {name[: limits.ACCESS_TEXT_MAX]}")
        return {name: _converted(name, value, hints[name]) for name, value in args.items()}


def _converted(name: str, value: Any, hint: Any) -> Any:
    if hint is None:
        return value
    try:
        return convert(value, hint)
    except ValueError as error:
        raise Refusal(f"ERR_API_ARGS: {name}: {error}") from None


def check_names(names: str | Sequence[str]) -> list[str]:
    """The names of a worker, each once. Raises ``ArgumentError``."""
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if check_name(name, "names").startswith("sec:"):
            raise ArgumentError("names", f"sec: is for twins, which bear the other names: {name!r}")
    if not names:
        raise ArgumentError("names", "must be at least one")
    return list(dict.fromkeys(names))


def sec_port_of(port: int, sec_port: int | None) -> int:
    """The port that a ``sec:`` twin listens on, by that of its worker. Raises ``ArgumentError``."""
    if sec_port is not None:
        return check_listen_port(sec_port)
    if port + limits.SEC_PORT_OFFSET > 65535:
        raise ArgumentError("sec_port", f"must be given, as {port} + {limits.SEC_PORT_OFFSET} is no port")
    return port + limits.SEC_PORT_OFFSET if port else 0


def check_request(name: str, action: str, args: Sequence[Any]) -> dict[str, Any]:
    """The payload that calls an action. Raises ``ArgumentError`` with the codes of bfx-facs-grc."""
    check_name(name)
    if not isinstance(action, str) or not action:
        error = ArgumentError("action", f"must be a text that is not empty, not {action!r}")
        error.code = "ERR_GRC_REQ_ACTION_INVALID"
        raise error
    if not isinstance(args, (list, tuple)):
        error = ArgumentError("args", f"must be a list, not {type(args).__name__}")
        error.code = "ERR_GRC_REQ_ARGS_INVALID"
        raise error
    return {"action": action, "args": args}
