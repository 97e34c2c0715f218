"""Weights: safetensors files with a manifest that says what they are, where they come from and their hash."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from . import models
from .errors import InputError, WeightsError
from .models import Backbone


@dataclass(frozen=True)
class Card:
    """What is known about a weights file."""

    name: str
    path: Path
    network: str
    config: dict[str, int]
    sha256: str
    licence: str = ""
    data: str = ""
    command: str = ""

    @property
    def bands(self) -> int | None:
        return self.config.get("bands")


def folder() -> Path:
    """Where the shipped weights lie: inside the installed package or beside a source checkout's package."""
    package = Path(__file__).parent
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(where: Path | None = None) -> dict[str, Card]:
    """The cards of a folder's manifest.toml by name."""
    where = where or folder()
    path = where / "manifest.toml"
    if not path.is_file():
        return {}
    try:
        entries: Mapping[str, Mapping] = tomllib.loads(path.read_text())
        return {
            name: Card(
                name, where / e["file"], e["network"], dict(e.get("config", {})), e["sha256"],
                e.get("licence", ""), e.get("data", ""), e.get("command", ""),
            )
            for name, e in entries.items()
        }  # fmt: skip
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is not a valid weights manifest: {error}") from error


def find(method: str, bands: int, file: str | None = None) -> Card:
    """The card for a method and a band count, or of a given file.

    Raises WeightsError if there is none, or the file is missing, not safetensors or does not name its network.
    """
    if method not in models.REGISTRY:
        raise InputError(f"unknown method '{method}'; there is none, {', '.join(models.REGISTRY)}")
    if file is not None:
        card = _card_of(Path(file), method)
        if card.network != method:
            raise WeightsError(f"{file} holds weights of '{card.network}'; use --method {card.network}")
        return card
    cards = [c for c in manifest().values() if c.network == method]
    if not cards:
        raise WeightsError(f"no weights are installed for '{method}' in {folder()}; reinstall or use --weights")
    for card in cards:
        if card.bands in (None, bands):
            return card
    counts = " or ".join(str(c.bands) for c in cards)
    raise WeightsError(
        f"the weights of '{method}' are for {counts} bands, the MS has {bands}; "
        f"use --method {models.DEFAULT} (any band count) or --bidx"
    )


def _card_of(path: Path, method: str) -> Card:
    if not path.is_file():
        raise WeightsError(f"no weights file {path}")
    listed = [c for c in manifest(path.parent).values() if c.path.name == path.name]
    if listed:
        return listed[0]
    try:
        with safe_open(path, "pt") as handle:
            metadata = handle.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error
    try:
        config = dict(json.loads(metadata.get("config", "{}")))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path} has an unreadable config in its metadata: {error}") from error
    if not all(isinstance(value, int) for value in config.values()):
        raise WeightsError(f"{path} has a config in its metadata that does not consist of whole numbers: {config}")
    return Card(path.stem, path, metadata.get("network", method), config, _digest(path), metadata.get("licence", ""))


def load(card: Card, bands: int) -> Backbone:
    """The frozen network of a card. Raises WeightsError for a wrong hash, wrong tensors or a wrong band count."""
    if not card.path.is_file():
        raise WeightsError(f"the weights file {card.path} is missing; reinstall or use --weights")
    if _digest(card.path) != card.sha256:
        raise WeightsError(f"{card.path} is not the file that its manifest describes (sha256 differs): fetch it again")
    if card.bands not in (None, bands):
        raise WeightsError(
            f"{card.path} is for {card.bands} bands, the MS has {bands}; choose {card.bands} with --bidx"
        )
    try:
        network = models.create(card.network, card.config)
    except InputError as error:
        raise WeightsError(f"{card.path}: {error}") from error
    try:
        state = load_file(card.path)
        network.load_state_dict(state)
    except SafetensorError as error:
        raise WeightsError(f"{card.path} is damaged: {error}") from error
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise WeightsError(f"{card.path} does not fit network '{card.network}': {' '.join(lines)}") from error
    if not all(bool(t.isfinite().all()) for t in state.values()):
        raise WeightsError(f"{card.path} holds values that are not finite")
    return network.eval().requires_grad_(False)
