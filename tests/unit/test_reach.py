"""A pool of providers with addresses of their own: chat rooms of several services."""

from __future__ import annotations

from notify_tasks.providers import Pools

HOOKS = {
    "slack": "https://hooks.slack.com/services/T000/B000/secret",
    "wecom": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=secret",
}


def pools(**rooms: list[str]) -> Pools:
    providers = {
        name: {"use": f"chat.{name}", "rooms": dict.fromkeys(own, HOOKS[name])} for name, own in rooms.items()
    }
    return Pools({"providers": providers, "channels": {"chat": {"pool": list(rooms)}}})


def chosen(found: Pools, address: str) -> set[tuple[str, ...]]:
    """The candidates of many deliveries to one address."""
    return {tuple(it.name for it in found.candidates("chat", f"d-{n}", address=address)) for n in range(50)}


def test_a_room_is_served_by_the_providers_that_have_it() -> None:
    found = pools(slack=["ops", "both"], wecom=["sales", "both"])

    assert chosen(found, "ops") == {("slack",)}
    assert chosen(found, "sales") == {("wecom",)}
    assert chosen(found, "both") == {("slack", "wecom"), ("wecom", "slack")}


def test_a_room_that_nobody_has_is_still_asked_for_so_that_its_delivery_says_why_it_failed() -> None:
    assert chosen(pools(slack=["ops"], wecom=["sales"]), "nowhere") == {
        ("slack", "wecom"),
        ("wecom", "slack"),
    }
