"""The data sources a spec names, one for each part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from trainables import catalog
from trainables.data._spec import REST, DataSpec
from trainables.data._table import DataSource
from trainables.store import Store


def open_sources(spec: DataSpec, store: Store) -> dict[str, DataSource]:
    """Return the source of ``train`` and of each part that is not carved from it.

    Raises:
        ComponentError: Unknown source, or a field of the spec that it does not take.
        DataError: The source has no such part.
    """
    component, path = spec.source, spec.path
    scheme, _, rest = spec.source.partition(":")
    if rest and scheme in catalog.names("data"):
        component, path = scheme, rest
    options: dict[str, Any] = {
        "path": path,
        "superclass": spec.superclass if isinstance(spec.superclass, str) else None,
        "group": spec.group,
        "revision": spec.revision,
        "sha256": spec.sha256,
    }
    offers = {"text": spec.text, "label": spec.label, "store": store}
    train = _build(component, options, offers)
    sources = {"train": train}
    for role, value in (("dev", spec.dev), ("test", spec.test), ("transfer", spec.transfer)):
        if not isinstance(value, str) or (role == "transfer" and value == REST):
            continue
        offers = {**offers, "label": None if role == "transfer" else spec.label}
        other = _by_suffix(value, path)
        # Rows without a label leak none, whatever group they belong to.
        group = None if role == "transfer" else spec.group
        if other is not None:
            sources[role] = _build(other, {"path": value, "group": group}, offers)
        else:
            part = {**options, "path": train.part(value), "superclass": None, "group": group}
            sources[role] = _build(component, part, offers)
    return sources


def _build(component: str, options: Mapping[str, Any], offers: Mapping[str, Any]) -> DataSource:
    """Build a source: options were asked for by the user, offers are taken if accepted."""
    accepted = {parameter.name for parameter in catalog.parameters("data", component)}
    params = {name: value for name, value in options.items() if value is not None}
    params |= {name: value for name, value in offers.items() if name in accepted}
    source: DataSource = catalog.build("data", component, **params)
    return source


def _by_suffix(path: str, train_path: str | None) -> str | None:
    """Return the component for a local file of another type than the training file."""
    suffix = _suffix(path)
    if suffix == _suffix(train_path or "") or suffix not in catalog.names("data"):
        return None
    return suffix if Path(path).is_file() else None


def _suffix(path: str) -> str:
    return PurePath(path.removesuffix(".gz")).suffix.removeprefix(".")
