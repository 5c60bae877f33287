"""The states and their moves, and that the database knows the same ones."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from notify_tasks.states import (
    CLAIMABLE,
    FINAL,
    MOVES,
    UNKNOWN_ENDS,
    WAITING,
    NotificationState,
    State,
    end,
    may_move,
)
from notify_tasks.store import migrate, receipts

ACTIVE = WAITING | {State.SENDING}


def test_every_state_has_its_moves_and_only_known_ones() -> None:
    assert set(MOVES) == set(State)
    for old, new in product(State, State):
        assert may_move(old, new) == (new in MOVES[old])


def test_a_state_is_either_active_or_final() -> None:
    assert ACTIVE.isdisjoint(FINAL)
    assert set(State) == ACTIVE | FINAL
    assert CLAIMABLE < WAITING


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_state_never_moves_back(state: State) -> None:
    assert MOVES[state].isdisjoint(ACTIVE)


def test_final_states_move_forward_only() -> None:
    # Following moves from a final state never comes round to it again: late and repeated events fold in by rank.
    for state in FINAL:
        reached: set[State] = set()
        open_ = set(MOVES[state])
        while open_:
            it = open_.pop()
            reached.add(it)
            open_ |= MOVES[it] - reached
        assert state not in reached, f"{state} can come back to itself over {reached}"


def test_sending_is_entered_from_claimable_states_alone() -> None:
    assert {state for state in State if may_move(state, State.SENDING)} == CLAIMABLE


def test_nothing_is_stopped_while_it_is_being_sent_except_by_its_own_result() -> None:
    assert State.CANCELLED not in MOVES[State.SENDING]
    assert State.SUPERSEDED not in MOVES[State.SENDING]


def test_every_state_can_be_reached_from_where_deliveries_begin() -> None:
    reached: set[State] = {State.QUEUED, State.HELD}
    while more := {new for old in reached for new in MOVES[old]} - reached:
        reached |= more
    assert reached == set(State)


@pytest.mark.parametrize("wanted", sorted(FINAL))
def test_an_unknown_attempt_leaves_four_ends(wanted: State) -> None:
    assert end(wanted, unknown=False) is wanted
    assert end(wanted, unknown=True) in UNKNOWN_ENDS
    assert end(wanted, unknown=True) is (wanted if wanted in UNKNOWN_ENDS else State.IN_DOUBT)


def test_every_end_of_a_waiting_delivery_can_also_be_in_doubt() -> None:
    # Cancel, expiry and suppression of a row with an unknown attempt end in doubt: the move must be legal.
    assert all(may_move(state, State.IN_DOUBT) for state in ACTIVE)


def _checked(column: str) -> list[set[str]]:
    text = "".join(it.sql for it in migrate.available())
    lists = re.findall(rf"{column}\s+text\s+NOT NULL CHECK \({column} IN \(([^)]*)\)\)", text)
    return [set(re.findall(r"'(\w+)'", found)) for found in lists]


def test_the_database_accepts_exactly_these_states() -> None:
    assert _checked("state") == [
        {str(it) for it in NotificationState},
        {str(it) for it in State} - {State.DIGESTED},
        set(receipts.STATES),
    ]
    # Deliveries were given one more since.
    text = "".join(it.sql for it in migrate.available())
    (found,) = re.findall(r"ADD CONSTRAINT delivery_state_check CHECK \(state IN \(([^)]*)\)\)", text)
    assert set(re.findall(r"'(\w+)'", found)) == {str(it) for it in State}


def test_statements_name_no_state_that_does_not_exist() -> None:
    known = {str(it) for it in State} | {str(it) for it in NotificationState} | set(receipts.STATES)
    for path in Path(migrate.__file__).parent.glob("*.py"):
        for found in re.findall(r"\bstate (?:NOT )?IN \(([^)]*)\)", path.read_text(encoding="utf-8")):
            names = set(re.findall(r"'(\w+)'", found))
            assert names <= known, f"{path.name}: {names - known}"
