"""Weights: safetensors files with a manifest that says what they are, where they come from and their hash."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from .. import models, publish, untrusted
from ..columns import in_columns
from ..errors import InputError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Backbone, Published


PUBLIC_BANDS = (4, 8)
"""Of public checkpoints: those of DLPan-Toolbox, and of the official U2Net."""

_NESTS, _DEPTH = ("state_dict", "model", "params"), 3
"""What a state dict may be nested in, and how often."""
_PREFIX = re.compile(r"^(?:(?:module|model)\.)+")
_REAL = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
LARGEST = 4096
"""Largest value allowed in a network's options."""
_TOLD = ("licence", "data", "command", "source", "source_sha256")
"""What a manifest or metadata may tell of weights in words."""
_LISTED = 8
"""How many of the tensors that do not fit an error names."""


@dataclass(frozen=True)
class Card:
    """What is known about a weights file.

    `scale` is the DN value that the network was trained to see as one; None takes the scene's own. `source` and
    `source_sha256` tell the checkpoint of an imported file, `tensors_sha256` is the hash of its tensors.
    """

    name: str
    path: Path
    network: str
    config: dict[str, int]
    sha256: str
    licence: str = ""
    data: str = ""
    command: str = ""
    scale: float | None = None
    source: str = ""
    source_sha256: str = ""
    tensors_sha256: str = ""
    listed: bool = True

    @property
    def bands(self) -> int | None:
        return self.config.get("bands") or None


def folder() -> Path:
    """Where the shipped weights lie: inside the installed package or beside a source checkout's package."""
    package = Path(__file__).parent.parent
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def sha256_of(path: Path) -> str:
    """sha256 of a weights file. Raises WeightsError for what is no regular file, or too large for one."""
    with untrusted.opened(path, untrusted.MOST_WEIGHTS, WeightsError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest(where: Path | None = None) -> dict[str, Card]:
    """The cards of a folder's manifest.toml by name."""
    where = where or folder()
    path = where / "manifest.toml"
    if not path.is_file():
        return {}
    entries = untrusted.read_toml(path, "is not a valid weights manifest", WeightsError)
    with untrusted.boundary(path, "is not a valid weights manifest", WeightsError):
        return {name: _listed_card(name, where, entry) for name, entry in entries.items()}


def _listed_card(name: str, where: Path, entry: Mapping[str, Any]) -> Card:
    """The card of an entry of a folder's manifest. Raises what a wrong entry makes it run into."""
    path, network, config = where / _file_name(entry["file"]), _text(entry["network"]), _config(entry.get("config", {}))
    words = {key: _text(entry.get(key, "")) for key in _TOLD}
    scale = _scale(entry.get("scale"))
    return Card(name, path, network, config, _text(entry["sha256"]), scale=scale, listed=True, **words)


def cards(method: str, file: str | None = None) -> list[Card]:
    """All cards for a method, or that of a given file.

    Raises WeightsError if there is none, or the file is missing, not safetensors or does not name its network.
    """
    if file is not None:
        card = _card_of(Path(file), method)
        if card.network != method:
            if card.listed:
                _check_hash(card)  # the name may be that of another file
            raise WeightsError(f"{file} holds weights of '{card.network}'; use --method {card.network}")
        return [card]
    found = [c for c in manifest().values() if c.network == method]
    if not found:
        raise WeightsError(f"no weights are installed for '{method}' in {folder()}; reinstall or use --weights")
    return found


def find(method: str, bands: int, file: str | None = None) -> Card:
    """The card for a method and a band count, one made for that count first, or of a given file.

    Raises WeightsError if there is none, or the file is missing, not safetensors or does not name its network.
    """
    found = cards(method, file)
    if file is not None:
        return found[0]
    for wanted in (bands, None):
        for card in found:
            if card.bands == wanted:
                return card
    counts = " or ".join(str(c.bands) for c in found)
    raise WeightsError(
        f"the weights of '{method}' are for {counts} bands, the MS has {bands}; "
        f"use --method {models.DEFAULT} (any band count), or choose bands with --bidx and --fit-bands bidx"
    )


def get(name: str) -> Card:
    """The card of installed weights or of a file; a name of installed weights comes first.

    Raises InputError if it is neither, WeightsError for a file that is not safetensors or does not name its network.
    """
    installed = manifest()
    if name in installed:
        return installed[name]
    _check_kind(Path(name), InputError)
    if not Path(name).is_file():
        raise InputError(f"no weights '{name}': neither a file nor installed ({', '.join(installed) or 'nothing is'})")
    return _card_of(Path(name))


def _card_of(path: Path, method: str | None = None) -> Card:
    """The card of a file, `method` where it does not name its network."""
    _check_kind(path)
    if not path.is_file():
        raise WeightsError(f"no weights file {path}")
    listed = [c for c in manifest(path.parent).values() if c.path.name == path.name]
    if listed:
        return listed[0]
    metadata = _header(path)[0]
    network = metadata.get("network", method)
    if network is None:
        raise WeightsError(f"{path} does not name its network, and no manifest.toml beside it lists it")
    with untrusted.boundary(path, "has an unusable config in its metadata", WeightsError):
        config = _config(untrusted.parse_json(metadata.get("config", "{}")))
    with untrusted.boundary(path, "has an unusable scale in its metadata", WeightsError):
        scale = _scale(metadata.get("scale"))
    known = {key: metadata.get(key, "") for key in (*_TOLD, "tensors_sha256")}
    return Card(path.stem, path, network, config, sha256_of(path), scale=scale, listed=False, **known)


def _check_kind(path: Path, error: type[InputError] = WeightsError) -> None:
    if kind := untrusted.file_kind(path):
        raise error(f"{path} is {kind}: only regular files are read")
    if path.is_dir():
        raise error(f"{path} is a folder, not a file of weights")


def _file_name(value: Any) -> str:
    """Raises ValueError unless a manifest's file is one of its own folder: another would be loaded in its place."""
    if Path(text := _text(value)).name != text or text in ("", ".."):
        raise ValueError(f"{text!r} is no name of a file beside it")
    return text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _config(value: Any) -> dict[str, int]:
    """A network's options as a manifest or metadata tell them: anyone may have written them.

    Raises ValueError or TypeError for what is no whole number, or larger than that of any network.
    """
    config = dict(value)
    for name, number in config.items():
        if type(number) is not int or not 0 <= number <= LARGEST:
            raise ValueError(f"{name} is no whole number from 0 to {LARGEST}")
    return config


def _scale(value: Any) -> float | None:
    """A scale as a manifest or metadata tell it. Raises ValueError or TypeError if it is no positive number."""
    if value is None:
        return None
    scale = float(value)
    if not 0 < scale < math.inf:
        raise ValueError(f"a scale is a positive number, not {value}")
    return scale


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Metadata and number of parameters of a safetensors file. Raises WeightsError for anything else."""
    try:
        with safe_open(path, "np") as handle:
            shapes = [handle.get_slice(key).get_shape() for key in handle.keys()]  # noqa: SIM118 - not a mapping
            return handle.metadata() or {}, sum(math.prod(shape) for shape in shapes)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {untrusted.fault_of(error)}") from error


def _tensors_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 of names, shapes and values: the same for the same weights, whatever wrote the file."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_hash(card: Card) -> None:
    if sha256_of(card.path) != card.sha256:
        raise WeightsError(f"{card.path} is not the file that its manifest describes (sha256 differs): fetch it again")


def load(card: Card, bands: int) -> Backbone:
    """The frozen network of a card. Raises WeightsError for a wrong hash, wrong tensors or a wrong band count."""
    import torch
    from safetensors.torch import load_file

    _check_kind(card.path)
    if not card.path.is_file():
        raise WeightsError(f"the weights file {card.path} is missing; reinstall or use --weights")
    _check_hash(card)
    if card.bands not in (None, bands):
        raise WeightsError(
            f"{card.path} is for {card.bands} bands, the MS has {bands}; "
            f"choose {card.bands} with --bidx and --fit-bands bidx"
        )
    try:
        with torch.device("meta"):
            count = sum(t.numel() for t in models.create(card.network, card.config).state_dict().values())
        if count > card.path.stat().st_size:  # before any memory is taken for it
            raise WeightsError(
                f"{card.path} is damaged or does not fit network '{card.network}': {card.config} makes {count} "
                "parameters, which are not in the file"
            )
        network = models.create(card.network, card.config)
    except WeightsError:
        raise
    except InputError as error:
        raise WeightsError(f"{card.path}: {error}") from error
    try:
        state = load_file(card.path)
        for name, tensor in state.items():
            if str(tensor.dtype) not in _REAL:
                raise WeightsError(f"{card.path} holds '{name}' as {tensor.dtype}, which are no weights")
        network.load_state_dict(state)
    except SafetensorError as error:
        raise WeightsError(f"{card.path} is damaged: {untrusted.fault_of(error)}") from error
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise WeightsError(f"{card.path} does not fit network '{card.network}': {' '.join(lines)}") from error
    if card.tensors_sha256 and _tensors_digest(state) != card.tensors_sha256:
        raise WeightsError(f"{card.path} is damaged: its values are not those that were imported (sha256 differs)")
    if not all(bool(t.isfinite().all()) for t in network.state_dict().values()):
        raise WeightsError(f"{card.path} holds values that are not finite")
    return network.eval().requires_grad_(False)


# What is installed --------------------------------------------------------------------------------------------------


def facts(card: Card) -> dict[str, Any]:
    """A card in full, ready for JSON; parameters and bytes are None where the file is missing or unreadable."""
    try:
        parameters, size = _header(card.path)[1], card.path.stat().st_size
    except (WeightsError, OSError):
        parameters, size = None, None
    keys = ("scale", "licence", "data", "command", "source", "source_sha256", "sha256")
    return {
        "name": card.name, "file": str(card.path), "network": card.network, "config": card.config, "bands": card.bands,
        "parameters": parameters, "bytes": size, **{key: getattr(card, key) for key in keys},
        "in_manifest": card.listed,
    }  # fmt: skip


def _cells(known: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a card as text."""
    parameters, size, scale = known["parameters"], known["bytes"], known["scale"]
    texts = {key: str(value) if value else "-" for key, value in known.items()}
    return texts | {
        "bands": str(known["bands"] or "any"),
        "parameters": "unreadable" if parameters is None else f"{parameters:,}".replace(",", " "),
        "size": "-" if size is None else f"{size / 1024:.0f} KiB",
        "scale": "the scene's own" if scale is None else f"values / {scale:g}",
    }


def listing(cards: list[dict[str, Any]]) -> str:
    """A table of the facts of several cards, a line each, and what they are here for."""
    columns = ("name", "network", "bands", "parameters", "size", "licence", "to be used")
    rows = [dict(zip(columns, columns, strict=True))]
    for known in cards:
        use = "the default" if known["network"] == models.DEFAULT else "for comparison"
        rows.append(_cells(known) | {"to be used": use})
    return in_columns([[row[c] for c in columns] for row in rows], "l")


def description(known: Mapping[str, Any]) -> str:
    """The facts of one card, a line each."""
    cells = _cells(known)
    cells["trained on"], cells["trained with"] = cells["data"], cells["command"]
    cells["imported from"] = " ".join(cells[key] for key in ("source", "source_sha256") if known[key]) or "-"
    cells["sha256"] += "" if known["in_manifest"] else " (in no manifest)"
    keys = ["name", "file", "network", "bands", "parameters", "size", "scale", "licence", "trained on", "trained with"]
    keys += ["imported from", "sha256"]
    return "\n".join(f"{key:<14}{cells[key]}" for key in keys)


def check(name: str) -> str:
    """Verify installed weights or a file: hash, tensors and values; returns a line that says what was checked.

    Raises InputError if there is nothing of that name, WeightsError naming the file if it is not as it should be.
    """
    card = get(name)
    load(card, card.bands or 4)
    if card.listed:
        how = "sha256 as in the manifest"
    elif card.tensors_sha256:
        how = "values as imported, in no manifest"
    else:
        how = "in no manifest, so no hash to compare with"
    return f"{card.path.name}: fits {card.network}, {how}"


# Public checkpoints -------------------------------------------------------------------------------------------------


def _published(network: str) -> Published:
    """How public checkpoints of a network name its tensors. Raises InputError if there are none."""
    public = {name: models.network_class(name).public for name in models.REGISTRY}
    found = public.get(network)
    if found is None:
        choices = ", ".join(name for name, known in public.items() if known)
        raise InputError(f"no public checkpoint is known for --network '{network}'; choose from {choices}")
    return found


def check_import(network: str, bands: int, scale: float, output: Path) -> None:
    """Raises InputError for what cannot be imported, or a path that imported weights must not be written to."""
    _published(network)
    if bands not in PUBLIC_BANDS:
        counts = " or ".join(map(str, PUBLIC_BANDS))
        raise InputError(f"public checkpoints of '{network}' are for {counts} bands, not --bands {bands}")
    if not 0 < scale < math.inf:
        raise InputError(f"--scale takes a positive DN value, e.g. 2047, not {scale:g}")
    if output.suffix != ".safetensors":
        raise InputError(f"--output takes a name that ends in .safetensors, not {output}")
    if any(card.path.name == output.name for card in manifest(output.parent).values()):
        raise InputError(f"{output} is one of the weights in the manifest.toml beside it; choose another name")


def import_checkpoint(
    source: Path, network: str, bands: int, scale: float, output: Path, overwrite: bool = True
) -> Card:
    """Write a public checkpoint's weights as safetensors that `fuse --weights` takes, and return their card.

    `scale` is what its training divided DN by. The output appears complete or not at all, and replaces a file that is
    there unless `overwrite` is false. Raises InputError for options that do not fit, WeightsError for a file that is no
    checkpoint, that would need more than weights to be unpickled, or whose tensors do not fit the network.
    """
    from safetensors.torch import save

    check_import(network, bands, scale, output)
    content = untrusted.read_bytes(source, untrusted.MOST_WEIGHTS, WeightsError)
    untrusted.check_archive(source, io.BytesIO(content), WeightsError)
    config = {"bands": bands}
    state = _fitted(source, _public_state(source, content), network, models.create(network, config))
    metadata = {
        "network": network, "config": json.dumps(config), "scale": repr(float(scale)), "source": source.name,
        "source_sha256": hashlib.sha256(content).hexdigest(), "tensors_sha256": _tensors_digest(state),
    }  # fmt: skip
    publish.check_absent([output], overwrite)
    publish.write(output, save(state, metadata))
    return _card_of(output)


def _public_state(source: Path, content: bytes) -> dict[str, Tensor]:
    """The state dict in a checkpoint, without what it is nested in.

    Nothing but tensors and plain containers is unpickled. Raises WeightsError for a file that holds anything else.
    """
    import torch

    try:
        held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle runs into can be anything
        raise _not_loaded(source, error) from error
    for _ in range(_DEPTH):
        if isinstance(held, Mapping):
            nested = [held[name] for name in _NESTS if isinstance(held.get(name), Mapping)]
            held = nested[0] if nested else held
    if not isinstance(held, Mapping) or not any(isinstance(value, torch.Tensor) for value in held.values()):
        nests = " or ".join(repr(name) for name in _NESTS)
        raise WeightsError(f"{source} holds no state dict: no tensors by name at its top or in {nests}")
    return {str(key): value for key, value in held.items()}


def _not_loaded(source: Path, error: Exception) -> WeightsError:
    """What to say of a file that `torch.load` refuses to load as weights only."""
    text = str(error)
    if needed := re.search(r"GLOBAL ([\w.]+)", text):
        return WeightsError(
            f"{source} holds more than weights ({needed[1]}), and unpickling that could run its code: refused; "
            "save the network's state_dict() alone"
        )
    if "TorchScript" in text:
        return WeightsError(f"{source} is a TorchScript program, not weights; it is not run")
    return WeightsError(f"{source} is not a checkpoint of weights that torch.save wrote, or it is damaged")


def _own_names(network: str, public: Iterable[str]) -> dict[str, str]:
    """Our names of a public checkpoint's tensors: no wrapper's prefix; those that take no part are left out."""
    own, published = {}, _published(network)
    for key in public:
        name = _PREFIX.sub("", key)
        if not re.match(published.unused, name):
            for pattern, ours in published.names:
                name = re.sub(pattern, ours, name)
            own[key] = name
    return own


def _fitted(source: Path, public: Mapping[str, Any], network: str, model: Backbone) -> dict[str, Tensor]:
    """A checkpoint's tensors under our names, float32. Raises WeightsError listing all that does not fit."""
    import torch

    wanted = model.state_dict()
    faults: list[str] = []
    state: dict[str, Tensor] = {}
    own = _own_names(network, public)
    for key, name in own.items():
        value = public[key]
        fault = _fault(key, value, wanted.get(name))
        if fault is None and name in state and not torch.equal(state[name], value.float()):
            fault = f"{key!r} differs from its copy under another name"
        if fault is None:
            state[name] = value.float().contiguous().clone()
        else:
            faults.append(fault)
    seen = set(own.values())
    faults = [f"missing {n!r} ({_shape(t)})" for n, t in wanted.items() if n not in seen] + faults
    if faults:
        more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        listed = "; ".join(faults[:_LISTED])
        raise WeightsError(f"{source} does not fit, see --network and --bands: {listed}{more}")
    return state


def _fault(key: str, value: Any, wanted: Tensor | None) -> str | None:
    """What is wrong with one entry of a checkpoint, None if nothing is."""
    import torch

    if wanted is None:
        return f"unexpected {key!r}"
    usable = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
    if not usable or not value.is_floating_point():
        return f"{key!r} is no tensor of real numbers"
    if value.shape != wanted.shape:
        return f"{key!r} is {_shape(value)} instead of {_shape(wanted)}"
    if not bool(value.float().isfinite().all()):
        return f"{key!r} holds values that are not finite"
    return None


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"
