"""What there is: components, presets and the sweeps of a home."""

from __future__ import annotations

from orchestrator.errors import UsageError
from orchestrator.home import Home
from search_spaces.loader import preset_names, preset_path
from trainables import catalog


def list_everything(home: Home, what: str | None) -> dict[str, list[dict[str, str]]]:
    """Return names with one line each, by kind; imports no component.

    Args:
        home: Whose sweeps are listed.
        what: ``components``, ``presets``, ``sweeps``, a kind of component, or None for all.

    Raises:
        UsageError: There is no such thing to list.
    """
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
                {"name": name, "summary": catalog.summary(section, name)}
                for name in catalog.names(section)
            ]
    return result


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
