"""The GPUs of a node, and which of them this process was given.

Devices are found by vendor (`gpu_vendors`), then the environment's lists of visible devices are
applied as the vendor's own runtime does:

- NVIDIA, CUDA_VISIBLE_DEVICES ("CUDA Environment Variables" in the CUDA Programming Guide): indices
  as nvidia-smi counts, UUIDs or unique beginnings of them, MIG instances. An empty list, and
  everything from the first invalid entry on, makes devices invisible.
- AMD, ROCR_VISIBLE_DEVICES ("GPU isolation techniques" in ROCm's documentation; core/runtime/
  amd_filter_device.cpp in ROCR-Runtime): indices or UUIDs, with the same end. HIP_VISIBLE_DEVICES,
  or CUDA_VISIBLE_DEVICES, then chooses among what is left, by its place there.
- Intel, ZE_AFFINITY_MASK ("Affinity Mask" in the Level Zero programming guide): indices of devices,
  or "device.tile".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from pilotflow.node.files import Files
from pilotflow.node.gpu_vendors import Device, amd_devices, intel_devices, nvidia_devices
from pilotflow.node.slurm import Allocation
from pilotflow.node.tools import Run


class Vendor(Enum):
    """Who made a GPU, which decides how a task is told of it."""

    NVIDIA = "NVIDIA"
    AMD = "AMD"
    INTEL = "Intel"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device that tasks may have.

    Attributes:
        id: what names it in its vendor's list of visible devices: an index, a UUID, a MIG instance.
        vendor: who made it. All GPUs that a node offers are of one vendor.
        uuid: its UUID, or its MIG instance's, if known.
        pci: its PCI address, "0000:07:00.0", if known.
        numa: its NUMA domain, if known.
    """

    id: str
    vendor: Vendor
    uuid: str | None = None
    pci: str | None = None
    numa: int | None = None


@dataclass(frozen=True, slots=True)
class FoundGpus:
    """What there is, and what of it is offered.

    Attributes:
        offered: devices that tasks may have.
        hidden: devices of the same vendor that are there and were not given to this process.
        notes: sentences for the log.
    """

    offered: tuple[Gpu, ...]
    hidden: tuple[Gpu, ...]
    notes: tuple[str, ...]


VISIBLE: Final = {
    Vendor.NVIDIA: ("CUDA_VISIBLE_DEVICES",),
    Vendor.AMD: ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    Vendor.INTEL: ("ZE_AFFINITY_MASK",),
}
"""By vendor the variables that choose devices, the one that is heard first first."""
_ORDINALS: Final = "GPU_DEVICE_ORDINAL"
"""What Slurm writes for OpenCL; it counts like the others, on any vendor's devices."""
_ID = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4})?|(?:GPU|MIG)-[0-9A-Za-z/-]+")


def find_gpus(files: Files, environ: Mapping[str, str], allocation: Allocation | None, run: Run) -> FoundGpus:
    """The GPUs of this node, at most of one vendor, and those of them that this process was given."""
    nvidia = nvidia_devices(files, run)
    flat = environ.get("ZE_FLAT_DEVICE_HIERARCHY", "").strip().upper() != "COMPOSITE"
    devices = {
        Vendor.NVIDIA: nvidia.devices,
        Vendor.AMD: amd_devices(files),
        Vendor.INTEL: intel_devices(files, flat=flat),
    }
    notes = list(nvidia.notes)
    given = {vendor: _given(vendor, found, environ, allocation) for vendor, found in devices.items() if found}
    if not given:
        told = _told(environ, allocation) if allocation is not None or nvidia.unanswered else ()
        if told:
            notes.append(f"{_are(told)} offered because the environment says so; none was detected.")
        return FoundGpus(told, (), tuple(notes))
    vendor = next((vendor for vendor, (offered, _) in given.items() if offered), next(iter(given)))
    others = " and ".join(other.value for other in given if other is not vendor)
    if others:
        notes.append(f"GPUs of one vendor are offered, those of {vendor.value}; those of {others} are not.")
    offered, why = given[vendor]
    hidden = _without(_all(vendor, devices[vendor]), offered)
    if hidden:
        notes.append(f"{_are(hidden, ' of this node')} not used: {why}.")
    return FoundGpus(offered, hidden, tuple(notes))


def _given(
    vendor: Vendor, devices: tuple[Device, ...], environ: Mapping[str, str], allocation: Allocation | None
) -> tuple[tuple[Gpu, ...], str]:
    """Those of the devices that this process was given, and why not the others."""
    names = [name for name in VISIBLE[vendor] if name in environ]
    if names:
        masks = ", ".join(f"{name}={environ[name]}" for name in names)
        return _masked(vendor, devices, environ), f"{masks} says so"
    if allocation is None:
        return _all(vendor, devices), ""
    why = f"Slurm job {allocation.job} has others"
    if allocation.gpu_ids is not None:
        # Where Slurm confines a job to its devices, they are all there is, with numbers of their own.
        confined = len(allocation.gpu_ids) >= len(devices)
        return (_all(vendor, devices) if confined else _chosen(vendor, devices, allocation.gpu_ids)), why
    if _ORDINALS in environ:
        return _chosen(vendor, devices, _tokens(environ[_ORDINALS])), f"{_ORDINALS}={environ[_ORDINALS]} says so"
    if allocation.gpus:
        return _all(vendor, devices)[: allocation.gpus], why
    return (), (
        f"Slurm gave none to job {allocation.job}. Ask for them (--gpus-per-node), "
        "or give num_gpus if Slurm does not manage GPUs here"
    )


def _masked(vendor: Vendor, devices: tuple[Device, ...], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    if vendor is not Vendor.AMD:
        return _chosen(vendor, devices, _tokens(environ[VISIBLE[vendor][0]]))
    first, *later = VISIBLE[vendor]
    left = _all(vendor, devices)
    if first in environ:
        left = _chosen(vendor, devices, _tokens(environ[first]))
    # Slurm may write one list into all variables; only one of the later ones is heard by HIP.
    for name in later:
        if name in environ:
            if environ[name] != environ.get(first):
                left = tuple(_by_place(left, _tokens(environ[name])))
            break
    return left


def _by_place(gpus: tuple[Gpu, ...], tokens: Sequence[str]) -> Iterator[Gpu]:
    seen: set[int] = set()
    for token in tokens:
        place = int(token) if token.isdecimal() and token.isascii() else len(gpus)
        if place >= len(gpus) or place in seen:
            return
        seen.add(place)
        yield gpus[place]


def _chosen(vendor: Vendor, devices: tuple[Device, ...], tokens: Sequence[str]) -> tuple[Gpu, ...]:
    """The devices that a list names, in its order; up to its first invalid entry."""
    chosen: list[Gpu] = []
    for token in tokens:
        named = _named(vendor, devices, token)
        if named is None:
            break
        chosen += [gpu for gpu in named if gpu.id not in {other.id for other in chosen}]
    return tuple(chosen)


def _named(vendor: Vendor, devices: tuple[Device, ...], token: str) -> tuple[Gpu, ...] | None:
    """What one entry of a list stands for, or None if it is invalid."""
    by_index = {device.index: device for device in devices}
    if token.isdecimal() and token.isascii():
        device = by_index.get(int(token))
        return None if device is None else _gpus(vendor, device)
    if vendor is Vendor.INTEL:
        card, _, tile = token.partition(".")
        known = card.isdecimal() and tile.isdecimal() and int(card) in by_index
        return (replace(_gpus(vendor, by_index[int(card)])[0], id=token),) if known else None
    wanted = token.upper()
    if wanted.startswith("MIG-"):
        parts = [gpu for device in devices for gpu in _gpus(vendor, device) if gpu.id.upper().startswith(wanted)]
        # An instance may be named in an older form than the driver lists; its name is good nevertheless.
        return (parts[0],) if len(parts) == 1 else (Gpu(token, vendor),) if not parts else None
    if not wanted.startswith("GPU-"):
        return None
    matches = [device for device in devices if device.uuid is not None and device.uuid.upper().startswith(wanted)]
    if len(matches) != 1:
        return None
    return tuple(
        gpu if matches[0].parts else replace(gpu, id=matches[0].uuid or token) for gpu in _gpus(vendor, matches[0])
    )


def _all(vendor: Vendor, devices: tuple[Device, ...]) -> tuple[Gpu, ...]:
    return tuple(gpu for device in devices for gpu in _gpus(vendor, device))


def _gpus(vendor: Vendor, device: Device) -> tuple[Gpu, ...]:
    """A device as tasks get it: its MIG instances if it has any, else itself."""
    if device.parts:
        return tuple(Gpu(part, vendor, part, device.pci, device.numa) for part in device.parts)
    return (Gpu(str(device.index), vendor, device.uuid, device.pci, device.numa),)


def _told(environ: Mapping[str, str], allocation: Allocation | None) -> tuple[Gpu, ...]:
    """GPUs that nothing but the environment knows of."""
    for vendor, names in VISIBLE.items():
        if names[0] in environ:
            return tuple(Gpu(token, vendor) for token in _tokens(environ[names[0]]) if _ID.fullmatch(token))
    ids = allocation.gpu_ids if allocation is not None else None
    return tuple(Gpu(id, Vendor.UNKNOWN) for id in ids or _tokens(environ.get(_ORDINALS, "")) if _ID.fullmatch(id))


def _tokens(text: str) -> list[str]:
    return list(dict.fromkeys(token for token in (part.strip() for part in text.split(",")) if token))


def _without(gpus: tuple[Gpu, ...], some: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    known = {gpu.id.partition(".")[0] for gpu in some} | {gpu.uuid for gpu in some if gpu.uuid is not None}
    return tuple(gpu for gpu in gpus if gpu.id not in known and gpu.uuid not in known)


def _are(gpus: Sequence[Gpu], where: str = "") -> str:
    ids = ", ".join(gpu.id for gpu in gpus)
    return f"GPUs {ids}{where} are" if len(gpus) > 1 else f"GPU {ids}{where} is"
