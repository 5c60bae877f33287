"""The HTTP far end: it finds whose a request is, plays the mode, logs, and keeps what arrived.

What a wire takes is that provider's (`wires`); `/control/` is the control API's (`control`); the rest is that of the
sandbox providers (`http_own`). One server answers on three ports: plain, with TLS, and for control alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from notify_tasks.sandbox.control import Control
from notify_tasks.sandbox.http_answers import code_of, say_no, say_yes, to_bytes
from notify_tasks.sandbox.http_own import OwnEnd, arrival, refuses
from notify_tasks.sandbox.http_reading import BadRequestError, Talk, read_talk
from notify_tasks.sandbox.kept import Kept
from notify_tasks.sandbox.log import Effects, Incoming, LoggedRequest
from notify_tasks.sandbox.modes import Mode, Modes
from notify_tasks.sandbox.reporting import Reporter
from notify_tasks.sandbox.wires.finding import wire_for
from notify_tasks.sandbox.wires.wire import Reading, Reply, Wire

_REDIRECT: Final = "307"
_REFUSED: Final = 400


class HttpEnd:
    """Serves the connections of all HTTP listeners.

    Args:
        effects: takes and logs.
        modes: how to behave.
        control: answers the control API.
        reporter: sends receipts.
        kept: takes what arrives; None keeps no contents.
    """

    def __init__(
        self, effects: Effects, modes: Modes, control: Control, reporter: Reporter, kept: Kept | None
    ) -> None:
        self._effects = effects
        self._modes = modes
        self._control = control
        self._reporter = reporter
        self._kept = kept
        self._own = OwnEnd(effects, modes, kept)
        self._open: dict[asyncio.StreamWriter, bool] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until its end."""
        connection = self._effects.next_connection()
        self._open[writer] = False
        try:
            while talk := await read_talk(reader, writer, connection):
                keep = await self._answer(talk)
                await writer.drain()
                if not (keep and talk.keep_alive):
                    break
        except BadRequestError as error:
            invalid = Incoming(protocol="http", action="invalid", connection=connection)
            self._effects.record(invalid, accept=False, code="400", mode="ok")
            writer.write(to_bytes(Reply(_REFUSED, {"error": str(error)})))
        except ConnectionError:
            pass  # the client has left, which is its right
        finally:
            del self._open[writer]
            writer.close()

    async def drop(self, *, control: bool) -> None:
        """Cut the open connections; those that asked for control only if `control`. Returns when they are cut."""
        dropped = [writer for writer, controls in self._open.items() if control or not controls]
        for writer in dropped:
            writer.transport.abort()
        for writer in dropped:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, talk: Talk) -> bool:
        """Answer a request. False where the connection must end."""
        controls = self._open[talk.writer] = talk.request.path.startswith("/control/")
        if controls:
            talk.writer.write(to_bytes(await self._control.answer(talk.request)))
            return True
        wire = None if self._own.takes(talk.request) else wire_for(talk.request)
        return await (self._own.answer(talk) if wire is None else self._speak(wire, talk))

    # --- providers' APIs ------------------------------------------------------------------------------

    async def _speak(self, wire: Wire, talk: Talk) -> bool:
        found = wire.reading(talk.request)
        if isinstance(found, Reply):
            side = found.status < _REFUSED and not found.invalid
            self._effects.record(
                _incoming(wire, talk, "side" if side else "invalid"),
                accept=False,
                code=str(found.status),
                mode="ok",
            )
            talk.writer.write(to_bytes(found))
            return True
        mode = self._modes.of_address(wire.name, found.to, wire.words) or self._modes.draw(wire.name)
        if refuses(mode):
            return await self._refuse(wire, talk, found, mode)
        return await self._accept(wire, talk, found, mode)

    async def _refuse(self, wire: Wire, talk: Talk, found: Reading, mode: Mode) -> bool:
        no = None
        if mode.name != "hang_before_accept":
            no = wire.refused(talk.request, _REDIRECT if mode.name == "redirect" else mode.name)
        self._effects.record(
            _incoming(wire, talk, "send", found),
            accept=False,
            code=None if no is None else str(no.status),
            mode=mode.name,
        )
        return await say_no(talk, mode, no)

    async def _accept(self, wire: Wire, talk: Talk, found: Reading, mode: Mode) -> bool:
        yes = Reply(0)

        def answering(taken: LoggedRequest) -> str | None:
            nonlocal yes
            yes = wire.accepted(talk.request, taken)
            return code_of(mode, yes.status)

        incoming = _incoming(wire, talk, "send", found)
        taken = self._effects.record(incoming, accept=True, code=answering, mode=mode.name)
        if self._kept is not None and taken.accepted:
            self._kept.add(arrival(talk, taken, found.opened))
        await self._reporter.took(wire, talk.request, found, taken)
        return await say_yes(talk, mode, yes)


def _incoming(wire: Wire, talk: Talk, action: str, found: Reading | None = None) -> Incoming:
    return Incoming(
        protocol=wire.name,
        action=action,
        connection=talk.connection,
        channel=wire.channel,
        kind=wire.kind,
        delivery_id=None if found is None else found.delivery_id,
        idempotency_key=None if found is None else found.idempotency_key,
        to=None if found is None else found.to,
        size=len(talk.request.body),
    )
