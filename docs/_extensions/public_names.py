"""The directive `public`: every name that a module offers, a line each, and in full what no page before has.

```{public} xbm_jax.crossbar
```
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from docutils import nodes
from plain import as_rst, escaped
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

PACKAGE = "xbm_jax"
HOMES = ("crossbar", "masks", "models", "data", "tasks", "training", "banks", "serving", "hardware", "report", "errors")
"""Parts in the order in which a thing that several of them offer finds the page that has it in full."""


def home(thing: Any, name: str) -> str:
    """The module under whose name a thing is described."""
    if inspect.ismodule(thing):
        return ""
    parts = (importlib.import_module(f"{PACKAGE}.{part}") for part in HOMES)
    found = (part.__name__ for part in parts if name in part.__all__ and getattr(part, name) is thing)
    return next(found, PACKAGE)


def constant_lines(thing: Any, name: str) -> list[str]:
    """What stands under a constant in the source of the module that makes it."""
    for path, module in sorted(sys.modules.items(), key=lambda item: -len(item[0])):
        if path.startswith(f"{PACKAGE}.") and vars(module).get(name) is thing:
            found = ModuleAnalyzer.for_module(path).find_attr_docs().get(("", name))
            if found:
                return found
    return []


def described(module: ModuleType, name: str) -> Iterator[str]:
    """The lines that describe one thing in full."""
    thing, path = getattr(module, name), f"{module.__name__}.{name}"
    if inspect.isclass(thing):
        yield from (f".. autoclass:: {path}", "   :members:", "   :show-inheritance:")
    elif inspect.isroutine(thing):
        yield f".. autofunction:: {path}"
    else:
        yield from (f".. py:data:: {path}", "", *(f"   {line}" for line in as_rst(constant_lines(thing, name))))
    yield ""


def listed(module: ModuleType, name: str) -> Iterator[str]:
    """A row of the list at the head: the name, and one line of what it is."""
    thing = getattr(module, name)
    if inspect.ismodule(thing):
        page = f":doc:`{name} <{name}>`"
        first = (inspect.getdoc(thing) or "").split("\n\n")[0]
    else:
        first = constant_lines(thing, name) if not callable(thing) else (inspect.getdoc(thing) or "").splitlines()
        first = (first or [""])[0]
        page = f":py:obj:`{name} <{home(thing, name)}.{name}>`"
    yield f"   * - {page}"
    yield f"     - {escaped(' '.join(first.split()))}"


class Public(SphinxDirective):
    """See the module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        self.env.note_dependency(inspect.getsourcefile(module) or "")
        lines = [".. list-table::", "   :widths: 30 70", ""]
        lines += [line for name in module.__all__ for line in listed(module, name)]
        own = [name for name in module.__all__ if home(getattr(module, name), name) == module.__name__]
        lines += ["", *(line for name in own for line in described(module, name))]
        return self.parse_text_to_nodes("\n".join(("```{eval-rst}", *lines, "```")))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("public", Public)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
