"""A collector of traces: OTLP over HTTP on loopback, as processes send it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True, slots=True)
class Collected:
    """One span."""

    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    """Ids of the traces that it is linked to."""
    failed: bool
    process: str
    attributes: dict[str, Any] = field(repr=False)


@dataclass(slots=True)
class Collector:
    """What came."""

    url: str
    raw: list[bytes] = field(repr=False)
    _read: list[Collected] = field(default_factory=list, repr=False)
    _done: int = 0

    @property
    def spans(self) -> list[Collected]:
        """All of them; what came is read when somebody asks."""
        new = self.raw[self._done :]
        self._done += len(new)
        for body in new:
            self._read.extend(_spans(ExportTraceServiceRequest.FromString(body)))
        return self._read

    def of(self, trace: str) -> list[Collected]:
        """The spans of one trace."""
        return [each for each in self.spans if each.trace == trace]


def _value(found: Any) -> Any:
    kind = found.WhichOneof("value")
    return None if kind is None else getattr(found, kind)


def _spans(request: ExportTraceServiceRequest) -> Iterator[Collected]:
    for resource in request.resource_spans:
        about = {each.key: _value(each.value) for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Collected(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    tuple(each.trace_id.hex() for each in span.links),
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    str(about.get("notify.process")),
                    {each.key: _value(each.value) for each in span.attributes},
                )


@contextmanager
def open_collector() -> Iterator[Collector]:
    """A collector on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.raw.append(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}", [])
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
