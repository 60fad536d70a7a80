"""Answers the requests of a worker by its actions: rights, arguments, outcomes, the access log.

Mirrors bfx-wrk-api (api/base.js ``handle`` and ``handleStream``) and bfx-facs-grc (index.js ``onRequest``).
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Awaitable
from typing import Any

from .access_log import AccessLog, access_line
from .acl import AclFile
from .actions import Actions, Space, action_name
from .errors import ArgumentError, GrenacheError, Refusal
from .transports.rpc_server import Handler, describe

log = logging.getLogger(__name__)

# How a stream that did not begin tells its caller so: raw bytes have no other place for it.
_STREAM_STATUS = {"ERR_API_AUTH": 403, "ERR_API_ACTION_NOTFOUND": 404, "ERR_API_READY": 503}


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

    def handle_stream(self, rid: Any, key: Any, stream: Any, handler: Handler) -> Awaitable[None] | None:
        """The listener of ``stream``; what it returns, if anything, is to be awaited."""
        call = _Call(key if isinstance(key, str) else "", handler.action, handler, self._access_log)
        try:
            result = self._run_stream(call, stream)
        except Exception as error:
            call.fail_stream(stream, error)
            return None
        if inspect.isawaitable(result):
            return self._finish_stream(call, stream, result)
        call.answer_stream(stream, result)
        return None

    def _run(self, call: _Call, payload: Any) -> Any:
        self._check_acl(call)
        action, args = self._actions.find(payload)
        return self._checked(action.function(Space(call.service, action.name, call.handler), *args))

    def _run_stream(self, call: _Call, stream: Any) -> Any:
        self._check_acl(call)
        action, args, named = self._actions.find_stream(call.name, call.handler.args)
        space = Space(call.service, action.name, call.handler)
        return self._checked(action.function(space, stream, *args, **named))

    def _check_acl(self, call: _Call) -> None:
        # Before anything else, so that who may not call does not learn what there is.
        if self._acl is not None and not self._acl.allows(call.handler.certificate, call.name or ""):
            raise Refusal("ERR_API_AUTH")

    def _checked(self, result: Any) -> Any:
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

    @staticmethod
    async def _finish_stream(call: _Call, stream: Any, result: Awaitable[Any]) -> None:
        try:
            answer = await result
        except Exception as error:
            call.fail_stream(stream, error)
        except BaseException:
            call.log("ERR_CLOSED" if stream.error is None else stream.error.code)
            raise
        else:
            call.answer_stream(stream, answer)


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

    def answer_stream(self, stream: Any, result: Any) -> None:
        """A stream's action has returned ``result``."""
        try:
            if result is not None:
                if self.handler.replied:
                    raise TypeError("a stream that was written to cannot return a result as well")
                self.handler.reply(None, result)
        except Exception as error:
            self.fail_stream(stream, error)
        else:
            self.log("ok" if stream.error is None else stream.error.code)

    def fail_stream(self, stream: Any, error: Exception) -> None:
        """A stream's action has raised ``error``. What was begun can only be cut: that is raised for."""
        lost: GrenacheError | None = stream.error
        if lost is error:  # the caller has gone, or its time was over
            self.log(lost.code)
            raise lost
        if isinstance(error, Refusal):
            refusal, code, status = error, error.code, _STREAM_STATUS.get(error.code, 400)
        else:
            log.error("the action %r raised %s", self.name, type(error).__name__, exc_info=error)
            refusal, code, status = Refusal(f"ERR_API_ACTION: {describe(error)}"), "ERR_API_ACTION", 500
        self.log(code)
        if self.handler.replied:
            raise refusal
        self.handler.refuse(status, refusal.message, refusal.result)

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
