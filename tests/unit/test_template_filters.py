"""Money, numbers, dates, times and quotations, as people in three languages read them."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import TextContent
from notify_tasks.rendering import BrokenType, Catalog, LoadedType, RenderError
from notify_tasks.templating import manner

NAME = "order.shipped"
CANARY = "canary-4711-secret"
MOMENT = "2026-11-23T14:30:00+01:00"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("templates"))


class Shop:
    """Types whose one file is the expression under test, in English, German and Chinese."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._loaded: dict[str, LoadedType] = {}

    def _load(self, expression: str, language: str) -> LoadedType:
        key = f"t{len(self._loaded)}"
        home = self._root / key
        for folder in ("", "de", "zh-Hans", "de-CH"):
            (home / folder).mkdir(parents=True, exist_ok=True)
            (home / folder / "sms.txt").write_text("{{ " + expression + " }}", encoding="utf-8")
        (home / "notification.toml").write_text(f'channels = ["sms"]\nlanguage = "{language}"\n')
        loaded = Catalog(self._root).get(key)
        assert loaded is not None
        return loaded

    def write(
        self,
        expression: str,
        locale: str | None = None,
        zone: str | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        language: str = "en",
    ) -> str:
        """What a person with a locale and a zone reads."""
        key = f"{expression}|{language}"
        if key not in self._loaded:
            self._loaded[key] = self._load(expression, language)
        recipient = {"id": "user-42", "locale": locale, "timezone": zone}
        content = self._loaded[key].render("sms", payload or {}, locale, recipient=recipient).content
        assert isinstance(content, TextContent)
        return content.text

    def refused(self, expression: str, payload: Mapping[str, Any] | None = None) -> RenderError:
        """The refusal: it has a remedy, and no value in it."""
        with pytest.raises(RenderError) as caught:
            self.write(expression, payload=payload)
        assert caught.value.problem.line == 1
        assert caught.value.problem.remedy
        assert CANARY not in "".join(traceback.format_exception(caught.value))
        return caught.value


# --- money ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "currency", "english", "german", "chinese"),
    [
        ("1234.5", "EUR", "€1,234.50", "1.234,50 €", "€1,234.50"),
        ("119", "EUR", "€119.00", "119,00 €", "€119.00"),
        ("-5.00", "EUR", "-€5.00", "-5,00 €", "-€5.00"),
        ("0", "USD", "$0.00", "0,00 $", "US$0.00"),
        ("-0.00", "USD", "$0.00", "0,00 $", "US$0.00"),
        ("100", "JPY", "¥100", "100 ¥", "JP¥100"),
        ("100.00", "JPY", "¥100", "100 ¥", "JP¥100"),
        ("100.5", "JPY", "¥100.5", "100,5 ¥", "JP¥100.5"),
        ("1.5", "KWD", "KWD 1.500", "1,500 KWD", "KWD 1.500"),
        ("1.859", "EUR", "€1.859", "1,859 €", "€1.859"),
        ("0.1", "CNY", "CN¥0.10", "0,10 CN¥", "¥0.10"),
        (
            "999999999999999999999.99",
            "EUR",
            "€999,999,999,999,999,999,999.99",
            "999.999.999.999.999.999.999,99 €",
            "€999,999,999,999,999,999,999.99",
        ),
    ],
)
def test_money_in_three_languages(
    shop: Shop, amount: str, currency: str, english: str, german: str, chinese: str
) -> None:
    payload = {"amount": amount, "currency": currency}
    expression = "payload.amount | money(payload.currency)"
    assert shop.write(expression, None, payload=payload) == english
    assert shop.write(expression, "de", payload=payload) == german
    assert shop.write(expression, "zh-CN", payload=payload) == chinese


@settings(deadline=None, max_examples=200)
@given(st.decimals(min_value=-(10**12), max_value=10**12, places=3))
def test_no_amount_is_rounded(amount: Any) -> None:
    before = manner.manner.set(manner.manner_for("en", {}))
    token = manner.budget.set(_budget())
    try:
        written = manner.money(format(amount, "f"), "KWD")
    finally:
        manner.budget.reset(token)
        manner.manner.reset(before)
    digits = written.replace("KWD", "").replace("\xa0", "").replace(",", "")
    assert digits == format(amount + 0 if amount else abs(amount), ".3f")


def _budget() -> Any:
    from notify_tasks.templating.values import Budget  # noqa: PLC0415 - for the one test that calls a filter itself

    return Budget()


@pytest.mark.parametrize(
    "amount",
    [
        119,
        119.5,
        -1,
        0,
        True,
        None,
        "",
        "12,50",
        "1e9",
        "NaN",
        "Infinity",
        "0x10",
        " 1",
        "1.",
        ".5",
        "١٢",
        CANARY,
        "9" * 25,
        "1." + "0" * 30,
        ["1"],
        {"a": 1},
    ],
)
def test_what_is_no_amount_is_refused(shop: Shop, amount: object) -> None:
    error = shop.refused('payload.amount | money("EUR")', {"amount": amount})
    assert error.code == "template"


@pytest.mark.parametrize("amount", [119, 119.5])
def test_a_number_as_money_is_refused_because_it_does_not_say_its_unit(shop: Shop, amount: float) -> None:
    error = shop.refused('payload.amount | money("EUR")', {"amount": amount})
    assert 'as text in whole units: "119.00"' in error.detail


@pytest.mark.parametrize("currency", ["eur", "EURO", "XQQ", "", 978, None, CANARY])
def test_what_is_no_currency_is_refused(shop: Shop, currency: object) -> None:
    shop.refused('"1" | money(payload.currency)', {"currency": currency})


def test_a_missing_amount_says_its_name(shop: Shop) -> None:
    assert "payload.amount is missing" in shop.refused('payload.amount | money("EUR")').detail
    assert "payload.currency is missing" in shop.refused('"1" | money(payload.currency)').detail


# --- numbers, counts, sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "english", "german"),
    [
        (0, "0", "0"),
        (-1234, "-1,234", "-1.234"),
        (1234567.891, "1,234,567.891", "1.234.567,891"),
        (0.1, "0.1", "0,1"),
        ("0.30", "0.3", "0,3"),
        ("123456789012345678901234", "123,456,789,012,345,678,901,234", "123.456.789.012.345.678.901.234"),
    ],
)
def test_numbers(shop: Shop, value: object, english: str, german: str) -> None:
    assert shop.write("payload.n | number", None, payload={"n": value}) == english
    assert shop.write("payload.n | number", "de", payload={"n": value}) == german
    assert shop.write("payload.n | number", "zh-Hans", payload={"n": value}) == english


@pytest.mark.parametrize("value", [True, None, "a", "1,5", float("inf"), float("nan"), 1e300, 10**30, [1]])
def test_what_is_no_number_is_refused(shop: Shop, value: object) -> None:
    shop.refused("payload.n | number", {"n": value})


@pytest.mark.parametrize(
    ("count", "english", "german", "chinese"),
    [
        (0, "0 items", "0 Artikel", "0 件"),
        (1, "1 item", "1 Artikel", "1 件"),
        (2, "2 items", "2 Artikel", "2 件"),
    ],
)
def test_words_that_go_with_a_count(shop: Shop, count: int, english: str, german: str, chinese: str) -> None:
    payload = {"n": count}
    expression = 'payload.n ~ " " ~ (payload.n | plural(one="item", other="items"))'
    assert shop.write(expression, None, payload=payload) == english
    expression = 'payload.n ~ " " ~ (payload.n | plural(other="Artikel"))'
    assert shop.write(expression, "de", payload=payload) == german
    expression = 'payload.n ~ " " ~ (payload.n | plural(one="never", other="件"))'
    assert shop.write(expression, "zh-CN", payload=payload) == chinese


def test_a_language_with_more_plurals_has_them(shop: Shop) -> None:
    expression = 'payload.n | plural(one="plik", few="pliki", many="plików", other="pliku")'
    written = [shop.write(expression, "pl", payload={"n": n}, language="pl") for n in (1, 3, 5, "1.5")]
    assert written == ["plik", "pliki", "plików", "pliku"]


@pytest.mark.parametrize("forms", ['one="a"', 'single="a", other="b"', ""])
def test_plural_needs_its_forms(shop: Shop, forms: str) -> None:
    assert "zero, one, two, few, many, other" in shop.refused(f"1 | plural({forms})").detail


def test_sizes(shop: Shop) -> None:
    written = [shop.write("payload.n | filesize", "de", payload={"n": n}) for n in (0, 1, 84_213, 1_234_567)]
    assert written == ["0 kB", "1 kB", "84 kB", "1,2 MB"]
    shop.refused("payload.n | filesize", {"n": -1})
    shop.refused("payload.n | filesize", {"n": "84"})


# --- dates and times -----------------------------------------------------------------------------------


def test_a_day(shop: Shop) -> None:
    payload = {"day": "2026-11-05"}
    assert shop.write("payload.day | date", None, payload=payload) == "November 5, 2026"
    assert shop.write("payload.day | date", "en-GB", payload=payload) == "5 November 2026"
    assert shop.write("payload.day | date", "de", payload=payload) == "5. November 2026"
    assert shop.write("payload.day | date", "zh-CN", payload=payload) == "2026年11月5日"
    assert shop.write('payload.day | date("full")', "de", payload=payload) == "Donnerstag, 5. November 2026"
    assert shop.write('payload.day | date("short")', None, payload=payload) == "11/5/26"
    assert shop.write('payload.day | date("medium")', "zh-CN", payload=payload) == "2026年11月5日"


@pytest.mark.parametrize(
    ("zone", "english", "german", "chinese"),
    [
        ("Europe/Berlin", "2:30 PM GMT+1", "14:30 MEZ", "14:30\uff08GMT+1\uff09"),
        ("America/New_York", "8:30 AM EST", "08:30 GMT-5", "08:30\uff08GMT-5\uff09"),
        ("Asia/Shanghai", "9:30 PM GMT+8", "21:30 GMT+8", "21:30\uff08GMT+8\uff09"),
        ("Asia/Kolkata", "7:00 PM GMT+5:30", "19:00 GMT+5:30", "19:00\uff08GMT+5:30\uff09"),
        ("UTC", "1:30 PM UTC", "13:30 UTC", "13:30\uff08UTC\uff09"),
        (None, "2:30 PM GMT+1", "14:30 GMT+1", "14:30\uff08GMT+1\uff09"),
        ("Nowhere/Atlantis", "2:30 PM GMT+1", "14:30 GMT+1", "14:30\uff08GMT+1\uff09"),
        ("../../etc/passwd", "2:30 PM GMT+1", "14:30 GMT+1", "14:30\uff08GMT+1\uff09"),
    ],
)
def test_a_time_is_the_persons_own_and_says_its_zone(
    shop: Shop, zone: str | None, english: str, german: str, chinese: str
) -> None:
    payload = {"at": MOMENT}
    assert shop.write("payload.at | time", None, zone, payload) == english
    assert shop.write("payload.at | time", "de", zone, payload) == german
    assert shop.write("payload.at | time", "zh-Hans", zone, payload) == chinese


def test_a_time_may_leave_its_zone_out(shop: Shop) -> None:
    assert shop.write("payload.at | time(zone=false)", "de", "Asia/Shanghai", {"at": MOMENT}) == "21:30"


def test_a_day_and_a_time(shop: Shop) -> None:
    payload = {"at": MOMENT}
    written = [shop.write("payload.at | datetime", it, "Europe/Berlin", payload) for it in (None, "de", "zh")]
    assert written == [
        "November 23, 2026, 2:30 PM GMT+1",
        "23. November 2026, 14:30 MEZ",
        "2026年11月23日 14:30\uff08GMT+1\uff09",
    ]
    assert (
        shop.write('payload.at | datetime("short", zone=false)', "de", "Europe/Berlin", payload)
        == "23.11.26, 14:30"
    )


def test_midnight_is_the_persons_midnight(shop: Shop) -> None:
    payload = {"at": "2026-12-31T23:30:00Z"}
    assert shop.write("payload.at | date", None, "America/New_York", payload) == "December 31, 2026"
    assert shop.write("payload.at | date", None, "Asia/Shanghai", payload) == "January 1, 2027"
    assert shop.write("payload.at | date", None, None, payload) == "December 31, 2026"


def test_summer_time_is_known(shop: Shop) -> None:
    payload = {"at": "2026-07-01T12:00:00Z"}
    assert shop.write("payload.at | time", "de", "Europe/Berlin", payload) == "14:00 MESZ"


@pytest.mark.parametrize("name", ["time", "datetime", "date"])
@pytest.mark.parametrize(
    "value",
    [
        *(
            "2026-11-23T14:30:00",
            "2026-11-23 14:30:00+01:00",
            "14:30",
            "",
            "tomorrow",
            "20261123T143000Z",
            CANARY,
        ),
        *("2026-13-01T00:00:00Z", "2026-02-30", "0000-01-01", "2026-11-23T25:00:00Z", "2026-W48-1"),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", 1764000000, True, None, ["2026-11-23"]),
    ],
)
def test_what_is_no_time_is_refused(shop: Shop, name: str, value: object) -> None:
    with pytest.raises(RenderError) as caught:
        shop.write(f"payload.at | {name}", None, "Pacific/Kiritimati", {"at": value})
    assert caught.value.code == "template"
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    if value is not None and value is not True and not isinstance(value, list):
        assert "2026-11-23T14:30:00+01:00" in caught.value.detail


def test_an_unknown_style_is_refused(shop: Shop) -> None:
    assert "short, medium, long, full" in shop.refused('payload.at | date("tiny")', {"at": MOMENT}).detail
    shop.refused('payload.at | datetime("yyyy")', {"at": MOMENT})


# --- whose manner --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("locale", "written"),
    [
        (None, "€1,234.50"),
        ("en", "€1,234.50"),
        ("fr", "€1,234.50"),  # English words, so English amounts
        ("de", "1.234,50 €"),
        ("de_AT.UTF-8", "€ 1.234,50"),
        ("de-AT", "€ 1.234,50"),
        ("DE-at", "€ 1.234,50"),
        ("de-CH", "EUR 1\u2019234.50"),
        ("de-XX", "1.234,50 €"),
        ("zh-Hant-TW", "€1,234.50"),
        ("en-IN", "€1,234.50"),
        ("not a tag", "€1,234.50"),
    ],
)
def test_words_and_amounts_fit(shop: Shop, locale: str | None, written: str) -> None:
    assert shop.write('"1234.5" | money("EUR")', locale) == written


def test_a_folder_for_a_region_stays_with_its_region(shop: Shop) -> None:
    assert str(manner.locale_for("de-CH", "de")) == "de_CH"
    assert str(manner.locale_for("de-CH", "de-AT")) == "de_AT"
    assert str(manner.locale_for("zh-Hans", "zh-TW")) == "zh_Hans"
    assert str(manner.locale_for("zh", "zh-CN")) == "zh_Hans_CN"


def test_a_type_may_be_written_in_another_language(shop: Shop) -> None:
    assert shop.write('"2026-11-05" | date', None, language="fr") == "5 novembre 2026"
    assert shop.write('"2026-11-05" | date', "fr-CA", language="fr") == "5 novembre 2026"
    assert shop.write('"1.5" | number', "fr-CH", language="fr") == "1,5"


@pytest.mark.parametrize("language", ["english", "xx", "", "de/at"])
def test_a_language_that_does_not_exist_is_refused(tmp_path: Path, language: str) -> None:
    home = tmp_path / NAME
    home.mkdir()
    (home / "sms.txt").write_text("a")
    (home / "notification.toml").write_text(f'channels = ["sms"]\nlanguage = "{language}"\n')
    with pytest.raises(BrokenType, match=r"language is no language tag.*zh-Hans"):
        Catalog(tmp_path).get(NAME)


def test_a_text_message_has_no_space_that_would_halve_its_segments(shop: Shop) -> None:
    # Given amounts and times, which the CLDR writes with spaces outside GSM 03.38
    written = shop.write(
        '("1234.5" | money("EUR")) ~ " " ~ (payload.at | time)', "de", "Asia/Shanghai", {"at": MOMENT}
    )
    assert written == "1.234,50 € 21:30 GMT+8"


def test_a_loop_of_formats_has_a_bound(shop: Shop) -> None:
    many = {"list": list(range(130))}
    inner = "{% for a in payload.list %}{% for b in payload.list %}{{ b | number }}{% endfor %}{% endfor %}"
    error = shop.refused('"" }}' + inner + '{{ ""', many)
    assert error.code == "too-long"


# --- what strangers wrote ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "length", "written"),
    [
        ("short", 20, "short"),
        ("  two\n lines\t here ", 40, "two lines here"),
        ("The quick brown fox jumps", 18, "The quick brown…"),
        ("Rindfleischetikettierungsueberwachung", 12, "Rindfleisch…"),
        ("one, two, three", 11, "one, two…"),
        ("供应商说一月起涨价\uff0c我们应该提前告知顾客\u3002", 10, "供应商说一月起涨价…"),
        ("abc", 1, "…"),
        ("a" * 10, 10, "a" * 10),
        # A family is one character to its reader, and so is e with its accent.
        ("Hi \U0001f468\u200d\U0001f469\u200d\U0001f467 there", 7, "Hi…"),
        ("cafe\u0301s and more", 5, "caf…"),
        ("\u202eevil\u202c text\u2066", 20, "evil text"),
        ("a\x00b\x07c\x1b", 20, "abc"),
    ],
)
def test_an_excerpt_is_one_line_cut_where_readers_would(
    shop: Shop, text: str, length: int, written: str
) -> None:
    assert shop.write(f"payload.text | excerpt({length})", payload={"text": text}) == written


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=80), st.integers(min_value=1, max_value=60))
def test_an_excerpt_is_never_longer_than_it_may(text: str, length: int) -> None:
    from notify_tasks.templating import quoting  # noqa: PLC0415 - for this test alone

    token = manner.budget.set(_budget())
    try:
        short = quoting.excerpt(text, length)
        several = quoting.lines(text, length, 3)
    finally:
        manner.budget.reset(token)
    assert len(short) <= length
    assert "\n" not in short
    assert len(several) <= 3
    assert not any("\n" in line for line in several)


def test_a_quotation_keeps_its_lines_and_says_where_it_was_cut(shop: Shop) -> None:
    expression = 'payload.text | lines(40, 3) | join("|")'
    assert shop.write(expression, payload={"text": "one\r\n\r\n\r\n\r\ntwo"}) == "one||two"
    assert shop.write(expression, payload={"text": "\n\n one\n\n"}) == "one"
    assert shop.write(expression, payload={"text": "a\nb\nc\nd"}) == "a|b|c…"
    assert shop.write(expression, payload={"text": "word " * 30}).endswith("word…")


@pytest.mark.parametrize("value", [None, True, ["a"], {"a": 1}])
def test_only_text_is_quoted(shop: Shop, value: object) -> None:
    shop.refused("payload.text | excerpt", {"text": value})
    shop.refused("payload.text | lines | join", {"text": value})
