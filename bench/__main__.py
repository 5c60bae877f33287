"""`python -m bench`: measure and print one table. It takes about two minutes."""

from __future__ import annotations

import argparse
import sys

from bench import carrying, costing, dispatching, flushing, machine, producing, sending
from bench.report import progress, table
from bench.rig import running_rig


def main() -> int:
    """Run every benchmark. The exit status tells whether it ran, not whether the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each variant (default 3)")
    parser.add_argument("--messages", type=int, default=600, help="messages in each run of P2 (default 600)")
    parser.add_argument("--calls", type=int, default=500, help="calls of each kind in P3 (default 500)")
    parser.add_argument(
        "--mails",
        type=int,
        default=200,
        help="messages of each kind in P13, and by each provider (default 200)",
    )
    parser.add_argument(
        "--processes", type=int, default=2, help="worker processes of each variant (default 2)"
    )
    parser.add_argument("--threads", type=int, default=8, help="threads of each process (default 8)")
    parser.add_argument(
        "--due", type=int, default=100_000, help="rows that are due in the same second (default 100,000)"
    )
    parser.add_argument(
        "--events", type=int, default=100_000, help="events that digests gather in P6 (default 100,000)"
    )
    parser.add_argument("--seed", type=int, default=20_261_123, help="of the far end")
    parser.add_argument(
        "--count", action="store_true", help="count commands and statements even if no goal is missed"
    )
    asked = parser.parse_args()
    load_before = machine.load()
    costs = costing.measure(messages=asked.mails)
    carried = carrying.measure(messages=asked.mails, repeats=asked.repeats)
    progress("start of Redis, PostgreSQL and the far end")
    with running_rig(asked.seed) as rig:
        about = machine.describe(rig.redis.url, rig.postgres.url)
        lines = producing.measure(rig, calls=asked.calls)
        variants = sending.start(rig, processes=asked.processes, threads=asked.threads)
        lines = (
            sending.measure(rig, variants, messages=asked.messages, repeats=asked.repeats) + lines + carried
        )
        counted = ""
        if asked.count or not all(line.met for line in lines):
            progress(
                "a goal is missed: one more run counts commands and statements"
                if not asked.count
                else "counting"
            )
            counted = sending.count(rig, variants, messages=min(asked.messages, 200))
        p6, flushed = flushing.measure(rig, events=asked.events)
        due, late = dispatching.measure(rig, rows=asked.due)
        progress("stop")
    print("\n".join(about))
    print(
        f"load before {load_before}, after {machine.load()}; seed {asked.seed}; {asked.repeats} repeats, medians"
    )
    print(
        f"each variant: {asked.processes} worker processes of {asked.threads} threads, {asked.messages} messages\n"
    )
    print(table(lines + p6 + due))
    print(f"\n{sending.breakdown(variants)}")
    print(f"\n{flushed}\n{late}")
    print(f"\n{costs}")
    if counted:
        print(f"\n{counted}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
