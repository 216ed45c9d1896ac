"""What there is: components, presets and the sweeps of a home."""

from __future__ import annotations

import inspect

from orchestrator.errors import UsageError
from orchestrator.home import Home
from search_spaces.loader import preset_names, preset_path
from trainables import catalog
from trainables.errors import ComponentError

NO_SOURCE = "-"


def list_everything(home: Home, what: str | None) -> dict[str, list[dict[str, str]]]:
    """Return names with one line each, by kind; imports no component.

    Args:
        home: Whose sweeps are listed.
        what: ``components``, ``presets``, ``sweeps``, a kind of component, None for all, or
            ``package.module:Class`` for a component of one's own.

    Returns:
        ``name`` and ``summary`` of each; of components also the ``source`` in full.

    Raises:
        UsageError: There is no such thing to list.
    """
    if what is not None and ":" in what:
        return {"own": [_own(what)]}
    wanted = _sections(what)
    result: dict[str, list[dict[str, str]]] = {}
    for section in wanted:
        if section == "presets":
            result[section] = [
                {"name": name, "summary": _preset_summary(name)} for name in preset_names()
            ]
        elif section == "sweeps":
            result[section] = [
                {"name": name, "summary": str(home.sweep(name))} for name in home.sweeps()
            ]
        else:
            result[section] = [
                {
                    "name": name,
                    "summary": catalog.summary(section, name),
                    "source": catalog.source(section, name) or NO_SOURCE,
                }
                for name in catalog.names(section)
            ]
    return result


def short_source(source: str) -> str:
    """Return the paper of a source, without the code and the remarks that follow it."""
    return source.partition(";")[0]


def _own(name: str) -> dict[str, str]:
    """Describe a class outside the catalog, which has to be imported for that."""
    try:
        # The kind of a foreign component is told by where a config names it.
        document = inspect.getdoc(catalog.load("losses", name)) or ""
    except ComponentError as error:
        raise UsageError(str(error)) from error
    source = catalog.source_of(document) or NO_SOURCE
    return {"name": name, "summary": document.partition("\n")[0], "source": source}


def _sections(what: str | None) -> list[str]:
    kinds = list(catalog.KINDS)
    known = {None: [*kinds, "presets", "sweeps"], "components": kinds}
    known |= {name: [name] for name in (*kinds, "presets", "sweeps")}
    if what not in known:
        names = ", ".join(name for name in known if name)
        raise UsageError(f"nothing called {what!r} to list; there are: {names}")
    return known[what]


def _preset_summary(name: str) -> str:
    """Return the first comment of a preset: what it is, in a line."""
    first = preset_path(name).read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").removeprefix(f"{name}:").strip()
