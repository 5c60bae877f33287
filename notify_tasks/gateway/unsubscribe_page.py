"""The page behind a link to unsubscribe: plain HTML in three languages, light and dark, without scripts."""

from __future__ import annotations

from html import escape
from typing import Final

_WORDS: Final[dict[str, dict[str, tuple[str, str, str]]]] = {
    "en": {
        "on": ("Unsubscribe?", "You get our mails about “{}”. Do you want to stop them?", "Unsubscribe"),
        "off": (
            "You are unsubscribed",
            "You get no more mails about “{}”.",
            "That was a mistake: subscribe again",
        ),
        "unknown": (
            "This page does not exist",
            "The link may be incomplete. Open it from your mail again.",
            "",
        ),
        "later": ("Not right now", "Please try again in a minute.", ""),
    },
    "de": {
        "on": ("Abmelden?", "Sie erhalten unsere E-Mails zu „{}“. Möchten Sie sie abbestellen?", "Abmelden"),
        "off": (
            "Sie sind abgemeldet",
            "Sie erhalten keine E-Mails zu „{}“ mehr.",
            "Das war ein Versehen: wieder anmelden",
        ),
        "unknown": (
            "Diese Seite gibt es nicht",
            "Vielleicht ist der Link unvollständig. Öffnen Sie ihn noch einmal aus Ihrer E-Mail.",
            "",
        ),
        "later": ("Im Moment nicht möglich", "Bitte versuchen Sie es in einer Minute noch einmal.", ""),
    },
    "zh": {
        "on": ("要退订吗？", "您正在接收关于“{}”的邮件。要停止接收吗？", "退订"),  # noqa: RUF001 - Chinese punctuation
        "off": ("已退订", "您将不再收到关于“{}”的邮件。", "操作有误：重新订阅"),  # noqa: RUF001 - Chinese punctuation
        "unknown": ("此页面不存在", "链接可能不完整。请从邮件中重新打开。", ""),
        "later": ("暂时无法处理", "请在一分钟后重试。", ""),
    },
}
_PAGE: Final = """\
<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --page: #f4f4f1; --card: #fff; --text: #1c1c1a; --soft: #5b5b56; --line: #deded8;
  --ink: #fff; --button: #1f4fd8 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --page: #151614; --card: #20211f; --text: #efefea; --soft: #aaaaa3; --line: #383935; --ink: #10131c;
    --button: #9db7ff }}
}}
* {{ box-sizing: border-box }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem; background: var(--page);
  color: var(--text); font: 1.0625rem/1.55 system-ui, sans-serif }}
main {{ width: 100%; max-width: 27rem; padding: 2.25rem 2rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem }}
h1 {{ margin: 0 0 .6rem; font-size: 1.5rem; line-height: 1.25; text-wrap: balance }}
p {{ margin: 0; color: var(--soft); overflow-wrap: anywhere }}
button {{ margin-top: 1.6rem; padding: .7rem 1.3rem; border: 1px solid var(--button); border-radius: .5rem;
  background: var(--button); color: var(--ink); font: inherit; font-weight: 600; cursor: pointer }}
button.quiet {{ background: none; color: var(--button); font-weight: 400 }}
button:focus-visible {{ outline: 3px solid var(--text); outline-offset: 2px }}
</style>
<main>
<h1>{title}</h1>
<p>{text}</p>
{form}</main>
"""
_FORM: Final = '<form method="post"><button name="choice" value="{value}"{look}>{label}</button></form>\n'


def page(state: str, accepted: str, category: str = "") -> str:
    """The page.

    Args:
        state: `on` (they get it), `off`, `unknown` or `later`.
        accepted: the header Accept-Language.
        category: what it is about.
    """
    language = preferred(accepted)
    title, text, label = _WORDS[language][state]
    form = ""
    if label:
        value, look = ("off", "") if state == "on" else ("on", ' class="quiet"')
        form = _FORM.format(value=value, look=look, label=escape(label))
    return _PAGE.format(
        language=language, title=escape(title), text=escape(text.format(category), quote=False), form=form
    )


def preferred(accepted: str) -> str:
    """The language of ours that a browser prefers (RFC 9110, section 12.5.4); English where it wants none of them."""
    found: list[tuple[float, str]] = []
    for part in accepted[:500].split(","):
        tag, _, weight = part.partition(";")
        language = tag.strip().lower().partition("-")[0]
        if language in _WORDS:
            try:
                found.append((float(weight.strip().removeprefix("q=") or 1), language))
            except ValueError:
                continue
    best = max(found, key=lambda it: it[0], default=(0.0, "en"))
    return best[1] if best[0] > 0 else "en"
