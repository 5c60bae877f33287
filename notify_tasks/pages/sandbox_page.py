"""The page of the sandbox: what arrived, live, and how the providers behave.

GET    /                              the page, with the newest messages in it
GET    /list?q=&channel=&before=      a part of the list: {"rows", "filters", "found", ...}
GET    /message/{id}                  one message, as HTML for the page
GET    /message/{id}/story            its delivery and timeline, as HTML for the page
GET    /message/{id}/html             the mail's HTML, for a frame that nothing gets out of
GET    /message/{id}/raw              as it came, to save
GET    /message/{id}/attachment/{n}   a file of a mail, to save
GET    /events                        what changes, as server-sent events
PUT    /modes/{target}                {"mode": "slow", "once": false}
DELETE /modes                         all well
DELETE /messages                      empty the list; the log of requests stays as it is
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from notify_tasks.pages import fleet as fleets
from notify_tasks.pages.arrivals import NAMES, Row, Rows, Shelf, Story
from notify_tasks.pages.behaviour import Behaviour, mode_of
from notify_tasks.pages.fleet import Changes, Fleet
from notify_tasks.pages.mails import framed
from notify_tasks.pages.markup import render
from notify_tasks.pages.serving import Hub, ServerSent, application, event_stream, framed_policy
from notify_tasks.sandbox.kept import Arrival, Kept
from notify_tasks.sandbox.log import LoggedRequest
from notify_tasks.sandbox.modes import ModeError
from notify_tasks.sandbox.ready import Ready
from notify_tasks.sandbox.server import SandboxServer
from notify_tasks.store.database import DatabaseError

COALESCE_SECONDS: Final = 0.08
"""What happens within it goes into one event."""
LIVE_ROWS: Final = 40
"""More at once are a burst: the browser then reads the list anew, and hears of the rest more seldom."""
BURST_SECONDS: Final = 0.5
"""So a flood of messages costs the far end little, though somebody looks."""
MOVES_KEPT: Final = 400
_NO_FILE: Final = "default-src 'none'; sandbox"


@dataclass(frozen=True, slots=True)
class _Move:
    """Something that a stream must tell besides arrivals."""

    version: int
    event: str
    ids: tuple[str, ...] = ()


class SandboxPage:
    """The page of one far end, on its loop.

    Args:
        server: the far end, started, with `kept`.
        ready: where it listens.
    """

    def __init__(self, server: SandboxServer, ready: Ready) -> None:
        assert server.kept is not None
        self._server = server
        self._ready = replace(ready, ca_file=str(Path(ready.ca_file).absolute()))  # for a command to copy
        self._boot = secrets.token_hex(6)
        self._kept: Kept = server.kept
        self._fleet = Fleet(self._kept)
        self._shelf = Shelf(self._kept, self._fleet)
        self._behaviour = Behaviour(server)
        self._hub = Hub()
        self._moves: deque[_Move] = deque(maxlen=MOVES_KEPT)
        self._arrived = asyncio.Event()
        self._streams = 0
        self._kept.watch = self._on_arrival
        server.modes.watch = self._hub.changed
        server.effects.watch = self._on_request

    def application(self, hosts: tuple[str, ...] = ()) -> Starlette:
        """The page's application; `hosts` as `serving.Guard`'s."""
        routes = [
            Route("/", self._page),
            Route("/list", self._list),
            Route("/message/{id}", self._message),
            Route("/message/{id}/story", self._story),
            Route("/message/{id}/html", self._html),
            Route("/message/{id}/raw", self._raw),
            Route("/message/{id}/attachment/{number:int}", self._attachment),
            Route("/events", self._events),
            Route("/modes/{target}", self._set_mode, methods=["PUT"]),
            Route("/modes", self._all_well, methods=["DELETE"]),
            Route("/messages", self._clear, methods=["DELETE"]),
        ]
        return application(routes, hosts=hosts)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Inside, the fleet's database is asked while somebody has the page open."""
        task = asyncio.create_task(
            fleets.watch(self._fleet, self._arrived, lambda: self._streams > 0, self._tell)
        )
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self._fleet.close()

    def _on_request(self, request: LoggedRequest) -> None:
        self._behaviour.count(request)
        self._hub.changed()

    def _on_arrival(self) -> None:
        self._arrived.set()
        self._hub.changed()

    async def _look(self) -> None:
        """Ask the fleet's database now. What is found is told to every page that is open."""
        self._tell(await self._fleet.look())

    def _tell(self, changes: Changes) -> None:
        if changes.states:
            self._moves.append(_Move(self._hub.version + 1, "rows", tuple(changes.states)))
        if changes.timelines:
            self._moves.append(_Move(self._hub.version + 1, "timelines", tuple(changes.timelines)))
        self._hub.changed()

    # --- reading --------------------------------------------------------------------------------------

    async def _page(self, _: Request) -> Response:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._look()
        last = self._kept.last
        found = self._shelf.rows(self._shelf.newest())
        return HTMLResponse(
            render(
                "sandbox/page.html",
                boot=self._boot,
                last=last,
                found=found,
                channel="",
                most=f"{self._kept.most:,}",
                once=False,
                **self._surroundings(),
            )
        )

    def _surroundings(self) -> dict[str, Any]:
        return {
            "names": NAMES,
            "ready": self._ready,
            "fleet": self._fleet,
            "targets": self._behaviour.targets(),
            "total": len(self._kept),
            "dropped": self._kept.dropped,
        }

    async def _list(self, request: Request) -> Response:
        asked = request.query_params
        channel = asked.get("channel", "")
        found = await asyncio.to_thread(
            self._shelf.rows,
            self._shelf.newest(),
            query=asked.get("q", ""),
            channel=channel,
            before=asked.get("before") or None,
        )
        return JSONResponse(
            {"rows": render("sandbox/rows.html", found=found), **self._totals(found, channel)}
        )

    def _totals(self, found: Rows, channel: str) -> dict[str, Any]:
        return {
            "filters": render("sandbox/filters.html", found=found, channel=channel, names=NAMES),
            "found": found.found,
            "total": len(self._kept),
            "total_text": render("sandbox/total.html", total=len(self._kept), dropped=self._kept.dropped),
        }

    def _asked(self, request: Request) -> Arrival:
        arrival = self._kept.get(request.path_params["id"])
        if arrival is None:
            raise HTTPException(404, "this message is not here any more; go back to the list")
        return arrival

    async def _message(self, request: Request) -> Response:
        arrival = self._asked(request)
        self._shelf.open(arrival)
        story = await self._told(arrival)
        local = arrival.at.astimezone()
        view = self._shelf.view(arrival)
        return HTMLResponse(
            render(
                "sandbox/message.html",
                story=story,
                clock=f"{local:%H:%M}",
                day=f"{local:%A}, {local.day} {local:%B}",
                source=arrival.raw.decode("utf-8", "replace")
                if arrival.protocol == "smtp"
                else view["request"],
                pretty_size=len(view["pretty"].encode()),
                **view,
            )
        )

    async def _story(self, request: Request) -> Response:
        return HTMLResponse(await self._told(self._asked(request)))

    async def _told(self, arrival: Arrival) -> Any:
        story: Story | None = None
        if arrival.delivery_id and self._fleet.of(arrival) is None:
            await self._look()
        before = self._fleet.of(arrival)
        with suppress(DatabaseError):  # the fleet's state says so
            story = await self._shelf.story(arrival)
        if before != self._fleet.of(arrival):
            self._tell(Changes(states=[arrival.id]))
        return Markup(  # noqa: S704 - a template of ours made it
            render(
                "sandbox/story.html",
                arrival=arrival,
                row=self._shelf.row(0, arrival),
                story=story,
                fleet=self._fleet,
            )
        )

    async def _html(self, request: Request) -> Response:
        mail = self._shelf.reading(self._asked(request)).mail
        if mail is None:
            raise HTTPException(404, "this is no mail")
        asked = request.query_params
        pictures = asked.get("pictures") != "off"
        html = framed(mail, scheme="dark" if asked.get("scheme") == "dark" else "light", pictures=pictures)
        policy = framed_policy("img-src data:") if pictures else framed_policy()
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    async def _raw(self, request: Request) -> Response:
        arrival = self._asked(request)
        kind = "eml" if arrival.protocol == "smtp" else "json"
        return _file(arrival.raw, f"{arrival.id}.{kind}")

    async def _attachment(self, request: Request) -> Response:
        mail = self._shelf.reading(self._asked(request)).mail
        files = mail.attachments if mail else ()
        number = request.path_params["number"]
        if number >= len(files):
            raise HTTPException(404, "the mail has no such attachment")
        return _file(files[number].data, files[number].name)

    # --- writing --------------------------------------------------------------------------------------

    async def _set_mode(self, request: Request) -> Response:
        try:
            asked = await request.json()
            mode, once = str(asked["mode"]), bool(asked.get("once"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return JSONResponse({"error": 'send {"mode": "slow"}'}, 400)
        try:
            await self._server.set_mode(request.path_params["target"], mode_of(mode, once=once))
        except ModeError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(self._behaves())

    async def _all_well(self, _: Request) -> Response:
        await self._server.clear_modes()
        return JSONResponse(self._behaves())

    async def _clear(self, _: Request) -> Response:
        self._moves.append(_Move(self._hub.version + 1, "cleared"))
        self._shelf.clear()
        return JSONResponse({"total": 0})

    # --- live -----------------------------------------------------------------------------------------

    async def _events(self, request: Request) -> Response:
        after = request.query_params.get("after", "")
        boot = request.query_params.get("boot")
        begun = int(after) if after.isdecimal() and boot == self._boot else self._kept.last
        return event_stream(request, self._changes(begun, same=boot == self._boot))

    async def _changes(self, last: int, *, same: bool) -> AsyncIterator[ServerSent]:
        self._streams += 1
        self._arrived.set()  # look at once
        try:
            yield ServerSent("hello", {"boot": self._boot, "same": same})
            version, said = -1, None
            told = self._hub.version
            while True:
                version = await self._hub.wait(version)
                await asyncio.sleep(COALESCE_SECONDS)
                version = self._hub.version
                for event in self._moved(told):
                    yield event
                told = version
                count, last = self._kept.last - last, self._kept.last
                if count:
                    yield self._news(last - count)
                if count > LIVE_ROWS:
                    await asyncio.sleep(BURST_SECONDS)
                status = self._behaves()
                if status != said:
                    said = status
                    yield ServerSent("status", status)
        finally:
            self._streams -= 1

    def _news(self, last: int) -> ServerSent:
        newest = list(self._kept.newest(last))
        whole = len(newest) <= LIVE_ROWS
        rows = [self._shelf.row(n, arrival) for n, arrival in newest] if whole else []
        everything = Rows((), more=False, found=len(self._kept), counts=self._shelf.counts())
        return ServerSent(
            "arrived", {"rows": _drawn(rows), "whole": whole, "totals": self._totals(everything, "")}
        )

    def _moved(self, told: int) -> list[ServerSent]:
        moves = [move for move in self._moves if move.version > told]
        if len(moves) == MOVES_KEPT:
            return [ServerSent("refresh")]  # some may have been forgotten
        events = []
        if any(move.event == "cleared" for move in moves):
            events.append(ServerSent("cleared"))
        states = dict.fromkeys(id_ for move in moves if move.event == "rows" for id_ in move.ids)
        found = [(id_, self._kept.get(id_)) for id_ in states]
        rows = [self._shelf.row(0, arrival) for _, arrival in found if arrival is not None]
        if rows:
            events.append(ServerSent("rows", _drawn(rows)))
        timelines = list(
            dict.fromkeys(id_ for move in moves if move.event == "timelines" for id_ in move.ids)
        )
        if timelines:
            events.append(ServerSent("timelines", timelines))
        return events

    def _behaves(self) -> dict[str, str]:
        around = self._surroundings()
        return {
            "trouble": render("sandbox/trouble.html", **around),
            "behaviour": render("sandbox/targets.html", **around),
            "ends": render("sandbox/ends.html", **around),
        }


def _drawn(rows: list[Row]) -> list[dict[str, str]]:
    return [
        {
            "id": row.id,
            "channel": row.channel,
            "html": render("sandbox/rows.html", found=Rows((row,), more=False, found=1, counts={})),
        }
        for row in rows
    ]


def _file(data: bytes, name: str) -> Response:
    """To be saved, never to be shown: what a mail carries must not run under our origin."""
    return Response(
        data,
        media_type="application/octet-stream",
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            "Content-Security-Policy": _NO_FILE,
        },
    )
