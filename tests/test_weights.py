"""Weights as files: public checkpoints imported, cards listed and shown, damage found."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from rasters import seldom, write_pair
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pansharpen_cli import models
from pansharpen_cli.adapt import sampling
from pansharpen_cli.cli.app import app
from pansharpen_cli.errors import InputError, WeightsError
from pansharpen_cli.fusion import fit as fitting
from pansharpen_cli.fusion import fusers, loop
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.models import weights
from pansharpen_cli.raster.scene import Scene

ROOT = Path(__file__).parent.parent
IMPORT = ("--network", "fusionnet", "--bands", "4", "--scale", "2047", "-o", "my.safetensors")

State = dict[str, Tensor]


def random_network(bands: int = 4, seed: int = 0) -> nn.Module:
    """A FusionNet whose correction is far from zero."""
    torch.manual_seed(seed)
    return models.create("fusionnet", {"bands": bands}).eval()


def public(network: nn.Module) -> State:
    """The network's state dict as DLPan-Toolbox saves it: the residual blocks once more below `backbone`."""
    state = dict(network.state_dict())
    for key in list(state):
        if key.startswith("res"):
            state[f"backbone.{int(key[3]) - 1}.{key.partition('.')[2]}"] = state[key]
    return state


def prefixed(state: State, prefix: str = "module.") -> State:
    return {prefix + key: value for key, value in state.items()}


def without_blocks(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith("res")}


class Plain(nn.Module):
    """FusionNet written down once more, without scenes and tiles; its modules are named as the public ones."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(bands, 32, 3, padding=1)
        self.backbone = nn.ModuleList(
            nn.ModuleDict({name: nn.Conv2d(32, 32, 3, padding=1) for name in ("conv20", "conv21")}) for _ in range(4)
        )
        self.conv3 = nn.Conv2d(32, bands, 3, padding=1)

    def forward(self, expanded: Tensor, pan: Tensor) -> Tensor:
        x = torch.relu(self.conv1(pan.repeat(1, expanded.shape[1], 1, 1) - expanded))
        for block in self.backbone:
            x = x + block["conv21"](torch.relu(block["conv20"](x)))
        return expanded + self.conv3(x)


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def installed(here: Path, monkeypatch) -> Path:
    """A folder of weights with a manifest that stands for the installed one."""
    folder = here / "installed"
    folder.mkdir()
    for bands in (4, 8):
        path = folder / f"f{bands}.safetensors"
        config = {"bands": bands}
        save_file(random_network(bands).state_dict(), path, {"network": "fusionnet", "config": json.dumps(config)})
        with (folder / "manifest.toml").open("a") as manifest:
            manifest.write(
                f'[f{bands}]\nfile = "{path.name}"\nnetwork = "fusionnet"\nsha256 = "{weights.sha256_of(path)}"\n'
                f'licence = "CC0-1.0"\ndata = "simulated scenes"\nconfig = {{ bands = {bands} }}\n'
            )
    monkeypatch.setattr(weights, "folder", lambda: folder)
    return folder


def flip(path: Path, at: int = -5) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


# Import -------------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[State], object]] = {
    "as the toolbox saves it": lambda state: state,
    "of DataParallel": prefixed,
    "blocks below backbone alone": without_blocks,
    "no copies": lambda state: {k: v for k, v in state.items() if not k.startswith("backbone")},
    "nested under state_dict": lambda state: {"epoch": 500, "state_dict": state},
    "nested under model": lambda state: {"model": prefixed(state), "lr": 3e-4},
    "nested twice, prefixed twice": lambda state: {"model": {"state_dict": prefixed(state, "module.model.")}},
    "double precision": lambda state: {k: v.double() for k, v in state.items()},
}


@pytest.mark.parametrize("bands", seldom([4, 8], [8]))
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_public_checkpoint_comes_through_whatever_it_is_wrapped_in(form, bands: int, here: Path, run) -> None:
    network = random_network(bands)
    torch.save(form(public(network)), "public.pth")
    arguments = ("--network", "fusionnet", "--bands", bands, "--scale", 1023, "-o", "my.safetensors")
    result = run("weights", "import", "public.pth", *arguments)
    assert result.code == 0, result.err
    assert result.out.count("\n") == 1
    for word in ("my.safetensors", "fusionnet", f"{bands} bands", "values / 1023", "public.pth"):
        assert word in result.out
    card = weights.find("fusionnet", bands, "my.safetensors")
    assert card.scale == 1023.0
    assert card.config == {"bands": bands}
    loaded = weights.load(card, bands).state_dict()
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())
    assert {p.name for p in here.iterdir()} == {"public.pth", "my.safetensors"}


U2NET = {
    "upsample.": "upsample.upsamle.0.",
    "norm.": "layers.0.0.fn.norm.",
    "sa1.": "layers.0.0.fn.fn.sa1.",
    "sa2.": "layers.0.0.fn.fn.sa2.",
    "se1.": "layers.0.0.fn.fn.se1.",
    "se2.": "layers.0.0.fn.fn.se2.",
    "to_out.": "layers.0.0.fn.fn.to_out.0.",
    "mlp_norm.": "layers.0.1.fn.norm.",
    "mlp.0.": "layers.0.1.fn.fn.net.0.",
    "mlp.2.": "layers.0.1.fn.fn.net.3.",
}
"""How the official U2Net names what is named otherwise here; the later ones are below `s2block0` ... `s2block4`."""


def published(name: str, state: State) -> State:
    """A network's state dict as its authors save it."""
    if name in ("fusionnet", "pannet"):
        copies = {k: v for k, v in state.items() if k.startswith("res")}
        return state | {f"backbone.{int(k[3]) - 1}.{k[5:]}": v for k, v in copies.items()}
    if name == "u2net":
        named = {}
        for key, value in state.items():
            block, _, rest = key.partition(".") if key.startswith("s2block") else ("", "", key)
            ours = next((o for o in U2NET if rest.startswith(o)), "")
            named[f"{block}." * bool(block) + U2NET.get(ours, "") + rest[len(ours) :]] = value
        unused = ("down0.maxpool_conv.1.weight", "down1.maxpool_conv.2.bias", "up0.up0.0.weight", "up1.up0.3.bias")
        return named | {key: torch.ones(3) for key in unused}
    return state


OTHERS = ("pnn", "pannet", "msdcnn", "u2net")


def test_the_official_names_of_u2net() -> None:
    names = published("u2net", models.create("u2net", {"bands": 8}).state_dict())
    assert {
        "upsample.upsamle.0.weight", "raise_ms_dim.0.bias", "raise_pan_dim.0.weight", "to_hrms.2.bias",
        "s2block2.layers.0.0.fn.norm.bias", "s2block4.layers.0.0.fn.fn.sa2.weight", "down1.conv.3.weight",
        "s2block1.layers.0.0.fn.fn.to_out.0.bias", "s2block0.layers.0.1.fn.norm.weight", "resblock3.conv1.bias",
        "s2block3.layers.0.1.fn.fn.net.3.weight", "up0.up1.0.weight", "up1.conv.bias", "down0.conv.0.bias",
    } <= names.keys()  # fmt: skip


@pytest.mark.parametrize(
    "wrap",
    [lambda state: state, pytest.param(lambda state: {"params": prefixed(state)}, marks=pytest.mark.slow)],
    ids=["bare", "wrapped"],
)
@pytest.mark.parametrize("bands", seldom([4, 8], [8]))
@pytest.mark.parametrize("name", OTHERS)
def test_public_checkpoints_of_other_networks(name: str, bands: int, wrap, here: Path, run) -> None:
    torch.manual_seed(0)
    state = models.create(name, {"bands": bands}).state_dict()
    torch.save(wrap(published(name, state)), "public.pth")
    arguments = ("--network", name, "--bands", bands, "--scale", 2047, "-o", "my.safetensors")
    result = run("weights", "import", "public.pth", *arguments)
    assert result.code == 0, result.err
    card = weights.find(name, bands, "my.safetensors")
    loaded = weights.load(card, bands)
    assert (card.network, card.scale, loaded.bands) == (name, 2047, bands)
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", OTHERS)
def test_what_does_not_fit_another_network_is_listed(name: str, here: Path, run) -> None:
    state = published(name, models.create(name, {"bands": 8}).state_dict())
    key = next(k for k in state if k.endswith("bias"))
    del state[key]
    torch.save(state | {"surplus.weight": torch.zeros(2)}, "public.pth")
    arguments = ("--network", name, "--bands", 4, "--scale", 2047, "-o", "my.safetensors")
    result = run("weights", "import", "public.pth", *arguments)
    assert result.code == 2 and len(result.errors) == 1
    for word in (f"missing '{key}'", " instead of ", "--bands"):
        assert word in result.errors[0]
    torch.save(
        published(name, models.create(name, {"bands": 4}).state_dict()) | {"surplus": torch.zeros(2)}, "public.pth"
    )
    assert "unexpected 'surplus'" in run("weights", "import", "public.pth", *arguments).errors[0]
    assert [p.name for p in here.iterdir()] == ["public.pth"]


def test_weights_of_a_network_of_any_bands_say_so(here: Path) -> None:
    for name, config in (("none", {}), ("zero", {"bands": 0})):
        state = models.create("pantiny", config).state_dict()
        save_file(state, f"{name}.safetensors", {"network": "pantiny", "config": json.dumps(config)})
        card = weights.find("pantiny", 5, f"{name}.safetensors")
        assert card.bands is None
        assert weights.load(card, 5).bands is None
        assert weights.facts(card)["bands"] is None


def test_the_older_file_format_of_torch_is_read(here: Path, run) -> None:
    torch.save(public(random_network()), "public.pth", _use_new_zipfile_serialization=False)
    assert run("weights", "import", "public.pth", *IMPORT).code == 0


def test_the_file_says_where_it_comes_from(here: Path, run) -> None:
    (here / "from").mkdir()
    torch.save(public(random_network()), "from/public.pth")
    assert run("weights", "import", "from/public.pth", *IMPORT).code == 0
    with safe_open("my.safetensors", "pt") as handle:
        metadata = handle.metadata()
    assert metadata["source"] == "public.pth"
    assert metadata["source_sha256"] == weights.sha256_of(here / "from/public.pth")
    assert (metadata["network"], metadata["config"], metadata["scale"]) == ("fusionnet", '{"bands": 4}', "2047.0")


def changed(**entries: object) -> State:
    return {**public(random_network()), **{k.replace("__", "."): v for k, v in entries.items()}}  # type: ignore


def less(*keys: str) -> State:
    return {k: v for k, v in public(random_network()).items() if k not in keys}


UNFIT: dict[str, tuple[object, tuple[str, ...]]] = {
    "another band count": (
        public(random_network(8)),
        ("'conv1.weight' is 32 x 8 x 3 x 3 instead of 32 x 4 x 3 x 3", "'conv3.bias' is 8 instead of 4", "--bands"),
    ),
    "missing": (
        less("conv1.bias", "res2.conv20.weight", "backbone.1.conv20.weight"),
        ("missing 'conv1.bias' (32)", "missing 'res2.conv20.weight' (32 x 32 x 3 x 3)"),
    ),
    "unexpected": (changed(deconv__weight=torch.zeros(3)), ("unexpected 'deconv.weight'",)),
    "another network": ({f"conv{i}.w": torch.zeros(2) for i in range(30)}, ("missing 'conv1.weight'", "and 42 more")),
    "copies that differ": (
        changed(backbone__0__conv20__bias=torch.ones(32)),
        ("'backbone.0.conv20.bias' differs from its copy",),
    ),
    "not finite": (changed(conv3__bias=torch.full((4,), torch.nan)), ("'conv3.bias'", "not finite")),
    "whole numbers": (changed(conv3__bias=torch.zeros(4, dtype=torch.int64)), ("'conv3.bias'", "real numbers")),
    "no tensor": (changed(conv3__bias=3.0), ("'conv3.bias'", "real numbers")),
    "sparse": (changed(conv3__bias=torch.zeros(4).to_sparse()), ("'conv3.bias'", "real numbers")),
    "a list": ([torch.zeros(3)], ("no state dict",)),
    "one tensor": (torch.zeros(3), ("no state dict",)),
    "settings only": ({"lr": 1e-3, "model": {}}, ("no state dict",)),
}


@pytest.mark.parametrize(("held", "words"), UNFIT.values(), ids=UNFIT.keys())
def test_what_does_not_fit_is_listed_in_one_line(held, words, here: Path, run) -> None:
    torch.save(held, "public.pth")
    result = run("weights", "import", "public.pth", *IMPORT)
    assert result.code == 2
    assert len(result.errors) == 1
    assert result.errors[0].startswith("error: public.pth ")
    for word in words:
        assert word in result.errors[0]
    assert [p.name for p in here.iterdir()] == ["public.pth"]


def test_a_checkpoint_that_holds_itself_ends(here: Path) -> None:
    held: dict = {}
    held["model"] = held
    torch.save(held, "public.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        weights.import_checkpoint(Path("public.pth"), "fusionnet", 4, 2047, Path("my.safetensors"))


def test_an_output_that_is_there_is_told_of_when_the_checkpoint_is_right(here: Path, run) -> None:
    Path("my.safetensors").write_bytes(b"precious")
    torch.save({}, "public.pth")
    assert "no state dict" in run("weights", "import", "public.pth", *IMPORT).err
    torch.save(Plain(4).state_dict(), "public.pth")
    assert "my.safetensors exists" in run("weights", "import", "public.pth", *IMPORT).err
    assert Path("my.safetensors").read_bytes() == b"precious"


class Trap:
    """Unpickling this makes a file."""

    def __reduce__(self):
        return open, ("sprung", "w")


def torch_trap() -> None:
    torch.save({"state_dict": public(random_network()), "trap": Trap()}, "trap.pth")


def old_torch_trap() -> None:
    torch.save({"trap": Trap()}, "trap.pth", _use_new_zipfile_serialization=False)


def pickle_trap(protocol: int) -> None:
    Path("trap.pth").write_bytes(pickle.dumps({"trap": Trap()}, protocol))


TRAPS: dict[str, tuple[Callable[[], None], str]] = {
    "torch": (torch_trap, "holds more than weights (io.open)"),
    "older torch": (old_torch_trap, "holds more than weights (io.open)"),
    "pickle of protocol 2": (lambda: pickle_trap(2), "holds more than weights (io.open)"),
    "pickle of protocol 5": (lambda: pickle_trap(5), "is not a checkpoint"),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("make", "words"), TRAPS.values(), ids=TRAPS.keys())
def test_nothing_but_weights_is_unpickled(make, words: str, here: Path, run) -> None:
    make()
    result = run("weights", "import", "trap.pth", *IMPORT)
    assert result.code == 2
    assert len(result.errors) == 1
    assert f"trap.pth {words}" in result.errors[0]
    assert "weights_only" not in result.errors[0], "no advice to load it unsafely"
    assert [p.name for p in here.iterdir()] == ["trap.pth"]


def test_the_trap_springs_where_all_is_unpickled(here: Path) -> None:
    torch_trap()
    torch.load("trap.pth", weights_only=False)["trap"].close()
    assert Path("sprung").exists()


def test_a_whole_module_is_refused(here: Path, run) -> None:
    torch.save(random_network(), "module.pth")
    result = run("weights", "import", "module.pth", *IMPORT)
    assert result.code == 2
    assert "more than weights (pansharpen_cli.models.fusionnet.FusionNet)" in result.errors[0]
    assert "state_dict()" in result.errors[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_torchscript_program_is_refused(here: Path, run) -> None:
    torch.jit.script(nn.Linear(2, 2)).save("program.pth")
    result = run("weights", "import", "program.pth", *IMPORT)
    assert result.code == 2
    assert "program.pth is a TorchScript program" in result.errors[0]


def truncated() -> bytes:
    torch.save(public(random_network()), "whole.pth")
    content = Path("whole.pth").read_bytes()
    Path("whole.pth").unlink()
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    "content", [lambda: b"", lambda: b"precious", lambda: b"\x80\x02", lambda: b"PK\x03\x04", truncated]
)
def test_what_is_no_checkpoint_is_refused(content, here: Path, run) -> None:
    Path("public.pth").write_bytes(content())
    result = run("weights", "import", "public.pth", *IMPORT)
    assert result.code == 2
    assert len(result.errors) == 1
    assert "public.pth is not a checkpoint" in result.errors[0]
    assert "weights_only" not in result.errors[0], "no advice to load it unsafely"
    assert [p.name for p in here.iterdir()] == ["public.pth"]


def test_an_existing_output_stays_without_overwrite(here: Path, run) -> None:
    torch.save(public(random_network()), "public.pth")
    Path("my.safetensors").write_text("precious")
    result = run("weights", "import", "public.pth", *IMPORT)
    assert result.code == 2
    assert "my.safetensors exists; use --overwrite" in result.errors[0]
    assert Path("my.safetensors").read_text() == "precious"
    assert run("weights", "import", "public.pth", *IMPORT, "--overwrite").code == 0
    assert load_file("my.safetensors")


def test_a_failed_import_leaves_the_existing_output(here: Path, run) -> None:
    torch.save(less("conv1.bias"), "public.pth")
    Path("my.safetensors").write_text("precious")
    assert run("weights", "import", "public.pth", *IMPORT, "--overwrite").code == 2
    assert Path("my.safetensors").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"--network": "glpnet"}, ("glpnet", "fusionnet")),
        ({"--network": "pantiny"}, ("pantiny", "fusionnet", "u2net")),
        ({"--bands": "5"}, ("--bands 5", "4 or 8")),
        ({"--scale": "0"}, ("--scale",)),
        ({"--scale": "nan"}, ("--scale",)),
        ({"--scale": "inf"}, ("--scale",)),
        ({"-o": "my.pth"}, ("my.pth", ".safetensors")),
        ({"-o": "no/my.safetensors"}, ("no/my.safetensors", "does not exist")),
        ({"-o": "installed/f4.safetensors"}, ("f4.safetensors", "manifest.toml", "another name")),
    ],
)
def test_options_that_cannot_be_are_refused(options, words, installed: Path, run) -> None:
    torch.save(public(random_network()), "public.pth")
    chosen = dict(zip(IMPORT[::2], IMPORT[1::2], strict=True)) | options
    before = weights.sha256_of(installed / "f4.safetensors")
    result = run("weights", "import", "public.pth", *(a for pair in chosen.items() for a in pair), "--overwrite")
    assert result.code == 2
    assert len(result.errors) == 1
    for word in words:
        assert word in result.errors[0]
    assert weights.sha256_of(installed / "f4.safetensors") == before
    assert not list(Path().glob("my.*"))


def test_a_missing_checkpoint_is_named(here: Path, run) -> None:
    result = run("weights", "import", "nope.pth", *IMPORT)
    assert result.code == 2
    assert "nope.pth" in result.errors[0]


# The scale of imported weights --------------------------------------------------------------------------------------


def test_imported_weights_see_values_divided_by_their_own_scale(here: Path) -> None:
    write_pair(here, 96, 96, 4, offset=(1.3, 2.6))
    torch.manual_seed(3)
    plain = Plain(4)
    torch.save(plain.state_dict(), "public.pth")
    weights.import_checkpoint(Path("public.pth"), "fusionnet", 4, 2047, Path("my.safetensors"))
    options = Options("fusionnet", "my.safetensors", adapt="off", device="cpu", precision="float32")
    with Scene.open("pan.tif", ["ms.tif"]) as scene:
        fit = fitting.fit(scene, options)
        fused, valid = loop.fuse_array(scene, fit.fuser)
        out, pan_window, ms_window = fit.fuser.windows(scene.window)
        data = scene.read(out, pan_window, ms_window)
        assert isinstance(fit.fuser, fusers.NetworkFuser) and data is not None
        inputs = fit.fuser.inputs(data)
        own = sampling.sample(scene, None, 0, torch.device("cpu")).stats.scale
        other = fusers.NetworkFuser(
            scene, fit.fuser.backbone, replace(fit.fuser.stats, scale=own), None, torch.device("cpu"), torch.float32
        )
        unscaled, _ = loop.fuse_array(scene, other)
        inner = scene.window.within(out)
    with torch.no_grad():
        expected = 2047 * plain.double()(inputs.expanded.double() / 2047, inputs.pan.double() / 2047)
    assert fit.stats is not None and fit.stats.scale == 2047
    assert valid.mean() > 0.9
    np.testing.assert_allclose(fused[:, valid], expected[0].numpy()[(slice(None), *inner)][:, valid], atol=2e-3)
    assert np.abs(unscaled - fused)[:, valid].max() > 1, "the scene's own scale would not have shown anything"


def test_the_report_of_a_run_says_the_scale(here: Path, run) -> None:
    write_pair(here, 96, 96, 4)
    torch.save(public(random_network()), "public.pth")
    assert run("weights", "import", "public.pth", *IMPORT).code == 0
    arguments = ("--method", "fusionnet", "--weights", "my.safetensors", "--adapt", "off", "--no-score", "--json")
    result = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *arguments)
    assert result.code == 0, result.err
    assert json.loads(result.out)["method"]["scale"] == 2047


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "inf", "many"])
def test_an_impossible_scale_in_a_file_is_refused(scale: str, here: Path) -> None:
    metadata = {"network": "fusionnet", "config": '{"bands": 4}', "scale": scale}
    save_file(random_network().state_dict(), "w.safetensors", metadata)
    with pytest.raises(WeightsError, match=r"w\.safetensors has an unusable scale"):
        weights.find("fusionnet", 4, "w.safetensors")


def test_the_makefile_trains_the_weights_of_the_manifest() -> None:
    rows = re.findall(r"\s([a-z0-9-]+)/(\d|-)/\d+", (ROOT / "Makefile").read_text())
    assert sorted(rows) == sorted((card.network, str(card.bands or "-")) for card in weights.manifest().values())


def test_a_manifest_may_tell_a_scale(installed: Path) -> None:
    path = installed / "manifest.toml"
    path.write_text(path.read_text().replace('licence = "CC0-1.0"', 'licence = "CC0-1.0"\nscale = 1023'))
    assert [card.scale for card in weights.manifest().values()] == [1023, 1023]
    path.write_text(path.read_text().replace("scale = 1023", "scale = -1"))
    with pytest.raises(WeightsError, match="manifest"):
        weights.manifest()


# List, show, verify -------------------------------------------------------------------------------------------------


def test_the_list_names_what_is_installed(installed: Path, run) -> None:
    result = run("weights", "list")
    assert result.code == 0
    head, *rows = result.out.splitlines()
    assert head.split() == ["name", "network", "bands", "parameters", "size", "licence", "to", "be", "used"]
    assert [row.split()[:3] for row in rows] == [["f4", "fusionnet", "4"], ["f8", "fusionnet", "8"]]
    for word in ("78 632", "KiB", "CC0-1.0", "for comparison"):
        assert word in rows[1]
    cards = json.loads(run("weights", "list", "--json").out)
    assert [(c["name"], c["bands"], c["parameters"]) for c in cards] == [("f4", 4, 76324), ("f8", 8, 78632)]
    assert cards[0]["bytes"] == (installed / "f4.safetensors").stat().st_size


def test_the_list_of_what_is_shipped_fits_a_terminal_and_tells_the_default_from_the_rest() -> None:
    head, *rows = weights.listing([weights.facts(card) for card in weights.manifest().values()]).splitlines()
    assert max(map(len, (head, *rows))) <= 100
    assert [row.split()[0] for row in rows if row.endswith("the default")] == ["glpnet"]
    assert all(row.endswith("for comparison") for row in rows if not row.startswith("glpnet"))


def test_the_list_shows_a_file_that_is_gone(installed: Path, run) -> None:
    (installed / "f4.safetensors").unlink()
    result = run("weights", "list")
    assert result.code == 0
    assert "unreadable" in result.out.splitlines()[1]


def test_what_is_shipped_is_listed_and_sound(run) -> None:
    result = run("weights", "verify")
    assert result.code == 0, result.err
    assert len(result.out.splitlines()) == len(weights.manifest()) >= 3
    assert "any" in next(row for row in run("weights", "list").out.splitlines() if row.startswith("glpnet"))


def test_a_card_is_shown_in_full(installed: Path, run) -> None:
    result = run("weights", "show", "f8")
    assert result.code == 0
    for word in ("78 632", "CC0-1.0", "simulated scenes", "the scene's own", weights.manifest()["f8"].sha256):
        assert word in result.out
    shown = json.loads(run("weights", "show", "f8", "--json").out)
    assert shown == json.loads(run("weights", "list", "--json").out)[1]
    assert json.loads(run("weights", "show", "installed/f8.safetensors", "--json").out)["in_manifest"] is True


def test_an_imported_file_is_shown_and_verified(installed: Path, run) -> None:
    torch.save(public(random_network()), "public.pth")
    run("weights", "import", "public.pth", *IMPORT)
    result = run("weights", "show", "my.safetensors")
    assert result.code == 0
    for word in ("values / 2047", "public.pth", weights.sha256_of(Path("public.pth")), "in no manifest"):
        assert word in result.out
    result = run("weights", "verify", "my.safetensors", "f4")
    assert result.code == 0
    assert [line.split(":")[0] for line in result.out.splitlines()] == ["my.safetensors", "f4.safetensors"]


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_name_of_nothing_is_an_input_error(command: str, installed: Path, run) -> None:
    result = run("weights", command, "nope")
    assert result.code == 2
    assert "'nope'" in result.errors[0] and "f4, f8" in result.errors[0]


@pytest.mark.parametrize("which", ["installed", "imported"])
def test_verify_finds_a_flipped_bit(which: str, installed: Path, run) -> None:
    torch.save(public(random_network()), "public.pth")
    run("weights", "import", "public.pth", *IMPORT)
    path = installed / "f8.safetensors" if which == "installed" else Path("my.safetensors")
    flip(path)
    result = run("weights", "verify", "f4", "f8", "my.safetensors")
    assert result.code == 1
    assert len(result.errors) == 1
    assert path.name in result.errors[0] and "sha256" in result.errors[0]
    assert len(result.out.splitlines()) == 2, "the others are still verified"
    if which == "imported":
        with pytest.raises(WeightsError, match="not those that were imported"):
            weights.load(weights.find("fusionnet", 4, "my.safetensors"), 4)


SPOILT: dict[str, Callable[[Path], object]] = {
    "gone": lambda folder: (folder / "f4.safetensors").unlink(),
    "cut short": lambda folder: (folder / "f4.safetensors").write_bytes(b"x"),
    "of another network": lambda folder: (folder / "manifest.toml").write_text(
        (folder / "manifest.toml").read_text().replace('"fusionnet"', '"glpnet"').replace("config = { bands = 4 }", "")
    ),
    "of other shapes": lambda folder: (folder / "manifest.toml").write_text(
        (folder / "manifest.toml").read_text().replace("bands = 4", "bands = 5")
    ),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_verify_names_what_is_not_as_it_should_be(spoil, installed: Path, run) -> None:
    spoil(installed)
    result = run("weights", "verify")
    assert result.code == 1
    assert len(result.errors) == 1
    assert "f4.safetensors" in result.errors[0]


def test_verify_of_files_without_a_card(here: Path, run) -> None:
    Path("text.safetensors").write_text("precious")
    save_file(random_network().state_dict(), "bare.safetensors")
    result = run("weights", "verify", "text.safetensors", "bare.safetensors")
    assert result.code == 1
    assert len(result.errors) == 1
    assert "text.safetensors cannot be read: it is no safetensors file" in result.errors[0]
    assert "bare.safetensors does not name its network" in result.errors[0]


def test_nothing_installed_is_no_success(here: Path, monkeypatch, run) -> None:
    monkeypatch.setattr(weights, "folder", lambda: here)
    assert run("weights", "verify").code == 1
    assert json.loads(run("weights", "list", "--json").out) == []


def test_weights_from_a_library_call_need_a_known_network() -> None:
    with pytest.raises(InputError, match="no public checkpoint"):
        weights.check_import("glpnet", 4, 2047.0, Path("my.safetensors"))


# The commands -------------------------------------------------------------------------------------------------------


def test_every_sub_command_and_option_is_documented() -> None:
    text = (ROOT / "docs/cli.md").read_text().partition("## `pansharpen weights`")[2]
    commands = typer.main.get_command(app).commands["weights"].commands  # type: ignore[attr-defined]
    assert set(commands) == {"list", "show", "verify", "import"}
    for name, command in commands.items():
        assert f"`weights {name}" in text
        assert command.help
        for parameter in command.params:
            assert getattr(parameter, "help", None)
            for option in (o for o in parameter.opts if o.startswith("-")):
                assert f"`{option}`" in text


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pansharpen_cli.cli.app import main\n"
        "sys.argv = ['pansharpen', 'weights', 'import', '--help']\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "print(sorted({'torch', 'rasterio', 'numpy', 'scipy', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("named", ["", "../other/f4.safetensors", "sub/f4.safetensors", "/tmp/f4.safetensors", ".."])
def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path: Path, named: str) -> None:
    """Another file would be loaded in the place of the one that was asked for."""
    (tmp_path / "f4.safetensors").write_bytes(b"")
    text = f'[f4]\nfile = "{named}"\nnetwork = "fusionnet"\nconfig = {{ bands = 4 }}\nsha256 = "0"\n'
    (tmp_path / "manifest.toml").write_text(text)
    with pytest.raises(WeightsError, match="manifest.toml is not a valid weights manifest: .* is no name of a file"):
        weights.cards("fusionnet", str(tmp_path / "f4.safetensors"))


def test_a_folder_in_the_place_of_weights_is_called_so(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "f4.safetensors"
    folder.mkdir()
    text = '[f4]\nfile = "f4.safetensors"\nnetwork = "fusionnet"\nconfig = { bands = 4 }\nsha256 = "0"\n'
    (tmp_path / "manifest.toml").write_text(text)
    monkeypatch.setattr(weights, "folder", lambda: tmp_path)
    asked = (
        lambda: weights.cards("fusionnet", str(folder)),
        lambda: weights.get(str(folder)),
        lambda: weights.check("f4"),
    )
    for ask in asked:
        with pytest.raises(InputError, match="f4.safetensors is a folder, not a file of weights"):
            ask()
