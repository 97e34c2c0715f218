"""Devices, precision and threads of torch, which is imported when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

KINDS, PRECISIONS = ("cpu", "cuda", "mps"), ("auto", "float32", "bfloat16")


def check_names(device: str, precision: str) -> None:
    """Raises InputError for a --device or a --precision that there is not on any machine."""
    if device != "auto" and device.split(":")[0] not in KINDS:
        raise InputError(f"unknown device '{device}'; choose auto, cpu, cuda or mps")
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}'; choose auto, float32 or bfloat16")


def choose_device(name: str) -> torch.device:
    """The device of --device. Raises InputError for one that is unknown or not there."""
    check_names(name, "auto")
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = name.split(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device '{name}'; choose auto, cpu, cuda or mps") from error
    if not there or (device.index or 0) >= (torch.cuda.device_count() if kind == "cuda" else 1):
        raise InputError(f"device '{name}' is not available on this machine; use --device auto")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32."""
    check_names("auto", name)
    import torch

    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bfloat16() else torch.float32


def _cpu_has_bfloat16() -> bool:
    import torch

    capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)()
    if any(capabilities.get(k) for k in ("amx_bf16", "amx_tile", "avx512_bf16")):
        return True
    try:
        with open("/proc/cpuinfo") as info:
            flags = next((line for line in info if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@contextmanager
def one_thread_each(workers: int) -> Iterator[ThreadPoolExecutor]:
    """So many workers: each does its own work by itself, which wastes less than many threads on one piece."""
    import torch

    with threads(1), ThreadPoolExecutor(workers, "worker", torch.set_num_threads, (1,)) as pool:
        yield pool


def autocast(device: torch.device, precision: torch.dtype):
    """The context in which convolutions run in `precision`."""
    import torch

    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads of the CPU. One that waits for its peers keeps its core busy: many threads on small
    tensors are little faster than one on an idle machine, and many times slower on a busy one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
