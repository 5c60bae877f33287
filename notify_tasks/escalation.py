"""Steps, in planning: which channels go first, and what waits for what. Pure.

A type's steps are data, not a workflow engine: `push`, then `sms` ten minutes after it was sent, or at once if it
could not be sent, unless it was read. For each recipient they become a chain of deliveries. Its first step goes through
the gates as any delivery does; each later one is held until the one before it has gone, and is judged then
(`escalating`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from notify_tasks.choices import Choices
from notify_tasks.event_type import EventType, Step


@dataclass(frozen=True, slots=True)
class Place:
    """A delivery's place in its recipient's chain.

    Args:
        number: counts the steps that the recipient can be reached by, from 0.
        leads: another step waits for this one.
        waits: it waits for the step before.
        after: seconds from that one's being sent to this one's turn, where it waits.
        unless: what makes it needless then.
        behind: the channels that it waits for.
        delay: what it and those before it wait, in seconds: so much later than the first it becomes worthless.
    """

    number: int
    leads: bool = False
    waits: bool = False
    after: float = 0.0
    unless: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    delay: float = 0.0

    def explained(self) -> dict[str, Any]:
        """As it is stored with the plan."""
        if not self.waits:
            return {"step": self.number}
        return {
            "step": self.number,
            "after": self.after,
            "behind": list(self.behind),
            **({"unless": list(self.unless)} if self.unless else {}),
        }


def steps_for(event_type: EventType, named: Sequence[str] | None, choices: Choices) -> tuple[Step, ...]:
    """The steps of one recipient's deliveries; a single one where the channels go together.

    Args:
        event_type: the type.
        named: the channels that the call names, which go before the type's steps.
        choices: the recipient's. The order of their channels moves a step's channels together; when a step has its turn
            and what makes it needless stay with its place. Types that are `required` ask nobody.
    """
    if named or not event_type.steps:
        return (Step(tuple(named or event_type.channels)),)
    order = () if event_type.required else choices.order_for(event_type.category)
    if not order:
        return event_type.steps
    rank = {channel: place for place, channel in enumerate(order)}

    def wish(step: Step) -> int:
        return min(rank.get(channel, len(rank)) for channel in step.channels)

    wanted = sorted(event_type.steps, key=wish)  # steady: what the person does not name keeps its order
    return tuple(
        Step(first.channels, place.after, place.unless)
        for first, place in zip(wanted, event_type.steps, strict=True)
    )


def in_turn(
    event_type: EventType, named: Sequence[str] | None, choices: Choices
) -> Iterator[tuple[Step, str]]:
    """Each channel with its step, in the order in which they go. Arguments as `steps_for`."""
    for step in steps_for(event_type, named, choices):
        for channel in step.channels:
            yield step, channel


def places(chain: Sequence[tuple[Step, bool]]) -> list[Place]:
    """The places of a recipient's steps, one behind another.

    Args:
        chain: each step that has a delivery, and whether all of it has ended already: nothing waits for such a one, and
            the next goes at once.
    """
    found: list[Place] = []
    led, delay = False, 0.0
    for number, (step, ended) in enumerate(chain):
        leads = (led or not ended) and number + 1 < len(chain)
        if led:
            delay += step.after
            found.append(
                Place(
                    number,
                    leads,
                    waits=True,
                    after=step.after,
                    unless=step.unless,
                    behind=chain[number - 1][0].channels,
                    delay=delay,
                )
            )
        else:
            found.append(Place(number, leads))
        led = led or not ended
    return found
