"""HTML that is escaped by its kind: text becomes markup in one place, and whatever is not markup is text."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from typing import Any

from xbm_jax.report.names import as_text

__all__ = ["Markup", "document", "element", "joined"]

_VOID = ("meta", "img", "input", "br")


class Markup(str):
    """Text that is HTML already; made by this module alone."""

    __slots__ = ()


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """An element; of its children those that are no :class:`Markup` are escaped.

    Attributes are named as in HTML but for ``_`` in place of ``-`` and a trailing ``_`` after Python's keywords; one
    that is ``None`` or ``False`` is left out, one that is ``True`` stands without a value.
    """
    pairs = [(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items()]
    shown = "".join(_attribute(name, value) for name, value in pairs if value is not None and value is not False)
    return Markup(f"<{tag}{shown}>" if tag in _VOID else f"<{tag}{shown}>{joined(*children)}</{tag}>")


def joined(*children: Any) -> Markup:
    """Pieces one behind the other, text escaped, ``None`` left out."""
    return Markup("".join(c if isinstance(c, Markup) else _text(str(c)) for c in children if c is not None))


def _text(text: str) -> str:
    """Text as HTML shows it; control characters, and those that turn the direction of text, as Python's escapes."""
    return escape("\n".join(map(as_text, text.split("\n"))))


def _attribute(name: str, value: Any) -> str:
    return f" {name}" if value is True else f' {name}="{_text(str(value))}"'


def document(title: str, *body: Any) -> Markup:
    """A whole page with its style and script, and a policy that lets nothing else run or be fetched.

    ``default-src 'none'``; style and script by their SHA-256 alone; images from the page itself.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = joined(
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    page = element("html", element("head", head), element("body", *body, element("script", script)), lang="en")
    return Markup(f"<!doctype html>\n{page}\n")


def _asset(name: str) -> Markup:
    """One of the package's own files, as it is."""
    return Markup((files("xbm_jax.report.web") / name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    """What a content-security policy calls an inline piece by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
