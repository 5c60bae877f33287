"""Exposes what a worker counts, where NOTIFY_METRICS_PORT asks for it: on every pool, by one port of each worker.

On threads and solo all is in one process. On prefork the children write files, which the parent reads and clears up
(`metering_files`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from celery import concurrency, signals
from celery.worker import state
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from notify_tasks import metering, metrics, settings
from notify_tasks.consuming import Consumption
from notify_tasks.errors import NotConfigured
from notify_tasks.exposing import Exposed, Page
from notify_tasks.metering_files import Files, gather_from_now_on
from notify_tasks.metrics import Metric

logger = logging.getLogger(__name__)

PREFORK: Final = "celery.concurrency.prefork"


class WorkerMetrics:
    """The metrics of one worker tree.

    Args:
        consumption: knows whether it fetches messages.
    """

    def __init__(self, consumption: Consumption) -> None:
        self._consumption = consumption
        self._exposed: Exposed | None = None
        self._files: Files | None = None
        self._slots = 1
        signals.worker_init.connect(self._on_init)
        signals.worker_ready.connect(self._on_ready)
        signals.worker_process_init.connect(self._on_child)
        signals.worker_shutdown.connect(self._on_shutdown)

    def _on_init(self, sender: Any, **_: Any) -> None:
        current = settings.get()
        if current.metrics_port is None:
            return
        try:
            # Taken before anything is forked or fetched: a port that is not free ends the worker here.
            self._exposed = Exposed(current.metrics_host, current.metrics_port, {"/metrics": self._page})
            pool = concurrency.get_implementation(sender.pool_cls)
            if pool.__module__ == PREFORK:
                self._files = Files()
        except NotConfigured as error:
            raise SystemExit(f"notify_tasks: NOTIFY_METRICS_PORT: {error}") from None
        self._registry = self._begin()

    def _begin(self) -> CollectorRegistry:
        if self._files is None:
            registry = metering.start().registry
        else:
            metering.start(self._files.value())
            registry = CollectorRegistry()
            registry.register(self._files)
        registry.register(metering.Looked(self._look))
        ProcessCollector(registry=registry)
        return registry

    def _on_ready(self, sender: Any, **_: Any) -> None:
        if self._exposed is None:
            return
        self._slots = int(getattr(sender.controller, "concurrency", 0) or 1)
        if self._files is not None:
            gather_from_now_on(self._files)
        self._exposed.start()
        logger.info("metrics on port %d of %s", self._exposed.port, self._exposed.host)

    def _on_child(self, **_: Any) -> None:
        if self._exposed is not None:
            self._exposed.abandon()
        if self._files is not None:
            metering.start(self._files.value())

    def _on_shutdown(self, **_: Any) -> None:
        if self._exposed is not None:
            self._exposed.close()
        if self._files is not None:
            self._files.close()

    def _look(self) -> Mapping[Metric, float]:
        return {
            metrics.THREADS: self._slots,
            metrics.THREADS_BUSY: len(state.active_requests),
            metrics.CONSUMING: float(not self._consumption.reasons),
        }

    def _page(self) -> Page:
        return Page(generate_latest(self._registry), CONTENT_TYPE_LATEST)
