"""Actions: the ``{action, args}`` requests of Bitfinex's workers, dispatched to functions.

Mirrors bfx-wrk-api (api/base.js ``handle``) and bfx-facs-grc (index.js ``onRequest``). Ours: only what was
exported can be called. There, an action is any attribute of the API object, such as ``init`` or ``loadAcl``.
"""

from __future__ import annotations

import inspect
import logging
import time
import typing
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from . import limits
from .access_log import AccessLog, access_line
from .acl import AclFile
from .checks import check_listen_port, check_name
from .codec import convert
from .errors import ArgumentError, Refusal
from .tls import Certificate
from .transports.rpc_server import Handler, describe

log = logging.getLogger(__name__)

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

    While ``ready`` is false, callers are answered ``ERR_API_READY``.
    """

    def __init__(self) -> None:
        self.ready = True
        self._exported: dict[str, _Action] = {}

    @property
    def names(self) -> list[str]:
        """The names of what was exported."""
        return list(self._exported)

    @overload
    def export(self, function: Function) -> Function: ...

    @overload
    def export(self, function: str) -> Callable[[Function], Function]: ...

    def export(self, function: Any) -> Any:
        """Decorator: callers may call this function by its name, or by another: ``@export("getIpInfo")``.

        Raises ``ArgumentError`` for a name that begins with an underscore or is taken already, and for a
        function that cannot be called with a ``Space`` and further arguments.
        """
        if isinstance(function, str):
            name = function
            return lambda function: self._add(name, function)
        return self._add(getattr(function, "__name__", ""), function)

    def _add(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        check_name(name, "action")
        if name.startswith("_"):
            raise ArgumentError("action", f"must not begin with an underscore: {name!r}")
        if name in self._exported:
            raise ArgumentError("action", f"{name!r} is exported already")
        self._exported[name] = _Action(name, function)
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


def action_name(payload: Any) -> str | None:
    """The action that a payload names, exported or not; ``None`` when it names none."""
    name = payload.get("action") if isinstance(payload, dict) else None
    return name if isinstance(name, str) and name else None


class _Action:
    """One exported function, and which arguments it takes."""

    def __init__(self, name: str, function: Callable[..., Any]):
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
        if not self._names and not self._takes_rest:
            raise ArgumentError("action", f"{name!r} must take a Space first")
        # The Space is no argument of the caller.
        del self._names[:1], self._hints[:1]
        self._required = max(0, self._required - 1)

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
            if hint is not None:
                name = self._names[index] if index < count else f"argument {index + 1}"
                try:
                    value = convert(value, hint)
                except ValueError as error:
                    raise Refusal(f"ERR_API_ARGS: {name}: {error}") from None
            taken.append(value)
        return taken


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


class Dispatcher:
    """Answers the requests of one port by ``actions``; with ``acl`` only to those who may call them.

    ``awaits``: actions may be coroutine functions.
    """

    def __init__(self, actions: Actions, acl: AclFile | None, access_log: AccessLog, awaits: bool):
        self._actions = actions
        self._acl = acl
        self._access_log = access_log
        self._awaits = awaits

    def handle(self, rid: Any, key: Any, payload: Any, handler: Handler) -> Awaitable[None] | None:
        """The listener of ``request``; what it returns, if anything, is to be awaited."""
        call = _Call(key if isinstance(key, str) else "", action_name(payload), handler, self._access_log)
        try:
            result = self._run(call, payload)
        except Exception as error:
            call.fail(error)
            return None
        if inspect.isawaitable(result):
            return self._finish(call, result)
        call.answer(result)
        return None

    def _run(self, call: _Call, payload: Any) -> Any:
        # Before anything else, so that who may not call does not learn what there is.
        if self._acl is not None and not self._acl.allows(call.handler.certificate, call.name or ""):
            raise Refusal("ERR_API_AUTH")
        action, args = self._actions.find(payload)
        result = action.function(Space(call.service, action.name, call.handler), *args)
        if not self._awaits and inspect.iscoroutine(result):
            result.close()
            raise TypeError("a coroutine function needs grenache_py.aio")
        return result

    @staticmethod
    async def _finish(call: _Call, result: Awaitable[Any]) -> None:
        try:
            answer = await result
        except Exception as error:
            call.fail(error)
        except BaseException:
            # Its time was over, of which the caller has been told, or the service stopped.
            call.log("ERR_TIMEOUT" if call.handler.replied else "ERR_CLOSED")
            raise
        else:
            call.answer(answer)


class _Call:
    """One call, from its request to its answer."""

    __slots__ = ("_access_log", "_started", "handler", "name", "service")

    def __init__(self, service: str, name: str | None, handler: Handler, access_log: AccessLog):
        self.service = service
        self.name = name
        self.handler = handler
        self._access_log = access_log
        self._started = time.monotonic()

    def answer(self, result: Any) -> None:
        """The action has returned ``result``."""
        outcome = "ERR_TIMEOUT" if self.handler.replied else "ok"
        try:
            self.handler.reply(None, result)
        except ArgumentError as error:  # it has no JSON form
            self.fail(error)
        else:
            self.log(outcome)

    def fail(self, error: Exception) -> None:
        """The action has raised ``error``."""
        if isinstance(error, Refusal):
            self.handler.reply(error.message, error.result)
            self.log(error.code)
            return
        log.error("the action %r raised %s", self.name, type(error).__name__, exc_info=error)
        self.handler.reply(f"ERR_API_ACTION: {describe(error)}")
        self.log("ERR_API_ACTION")

    def log(self, outcome: str) -> None:
        """Write it to the access log."""
        if not self._access_log.wanted:
            return
        certificate = self.handler.certificate
        self._access_log.write(
            access_line(
                time.time(),
                self.service,
                self.name,
                None if certificate is None else certificate.fingerprint,
                self.handler.peer[0],
                outcome,
                time.monotonic() - self._started,
            )
        )
