"""Finding the GPUs of each vendor, by its program or by the kernel's files.

NVIDIA is asked through `nvidia-smi`, in a process that can be given up: the same library inside this
process (NVML, pynvml) could hang it for ever, and knows no more. AMD and Intel are read from sysfs,
which their runtimes do as well, so their programs are not needed.

Sources: "nvidia-smi" manual, and "Device enumeration" in the MIG user guide, for `nvidia-smi -L`;
"/proc/driver/nvidia" in the README of NVIDIA's Linux driver; drivers/gpu/drm/amd/amdkfd/kfd_topology.c
for the KFD's files, and core/runtime/amd_filter_device.cpp in ROCR-Runtime for AMD's UUIDs;
Documentation/ABI/testing/sysfs-bus-pci for numa_node; "Device Hierarchy" in the Level Zero
programming guide for Intel's tiles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from pilotflow.node.files import Files, number
from pilotflow.node.tools import NOT_INSTALLED, Answer, Run

_GPU_LINE = re.compile(r"GPU ([0-9]{1,4}): .*\(UUID: (GPU-[0-9A-Za-z-]+)\)\s*")
_MIG_LINE = re.compile(r"\s+MIG .*\bDevice +[0-9]+: +\(UUID: (MIG-[0-9A-Za-z/-]+)\)\s*")
_BUS = re.compile(r"(?:[0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]")
_NVIDIA_FILES: Final = "/proc/driver/nvidia/gpus"
_KFD: Final = "/sys/class/kfd/kfd/topology/nodes"
_DRM: Final = "/sys/class/drm"
_CARD = re.compile(r"card[0-9]{1,4}")
_INTEL: Final = 0x8086
_INTEGRATED: Final = "0000:00:02.0"
"""Where graphics that are part of an Intel processor always are; it has no memory of its own."""


@dataclass(frozen=True, slots=True)
class Device:
    """A physical GPU.

    Attributes:
        index: its number in its vendor's list of visible devices.
        uuid: its UUID, if known.
        pci: its PCI address in lower case, "0000:07:00.0", if known.
        numa: its NUMA domain, if known.
        parts: names of its MIG instances.
    """

    index: int
    uuid: str | None = None
    pci: str | None = None
    numa: int | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NvidiaDevices:
    """NVIDIA's GPUs.

    Attributes:
        devices: those found, by index.
        unanswered: nvidia-smi is installed and did not answer, so there may be GPUs nevertheless.
        notes: sentences for the log.
    """

    devices: tuple[Device, ...]
    unanswered: bool
    notes: tuple[str, ...]


def nvidia_devices(files: Files, run: Run) -> NvidiaDevices:
    """NVIDIA's GPUs that this process can reach, by nvidia-smi, or by the driver's files if it does not answer."""
    known = _driver_files(files)
    answer = run(["nvidia-smi", "-L"])
    listed = _listed(answer.out or "")
    if listed:
        by_uuid = {device.uuid: device for device in known}
        listed = [
            replace(device, pci=by_uuid[device.uuid].pci) if device.uuid in by_uuid else device for device in listed
        ]
        if any(device.pci is None for device in listed) and len(_numa_nodes(files)) > 1:
            listed = _with_bus(listed, run(["nvidia-smi", "--query-gpu=uuid,pci.bus_id", "--format=csv,noheader"]))
        devices = tuple(replace(device, numa=_numa(files, device.pci)) for device in listed)
        return NvidiaDevices(devices, False, (f"nvidia-smi {answer.problem}.",) if answer.problem else ())
    if answer == NOT_INSTALLED:
        return NvidiaDevices(known, False, ())
    if answer.out is not None and (answer.problem is None or not known):
        return NvidiaDevices((), False, ())  # it is there, the driver or a device is not: nothing to speak of
    note = "its GPUs are taken from the driver's files, which do not tell MIG instances" if known else "no GPU is known"
    return NvidiaDevices(known, not known, (f"nvidia-smi {answer.problem}: {note}.",))


def _listed(text: str) -> list[Device]:
    """The devices of `nvidia-smi -L`, with their MIG instances."""
    devices: list[Device] = []
    for line in text.splitlines():
        if match := _GPU_LINE.fullmatch(line):
            devices.append(Device(int(match[1]), match[2]))
        elif devices and (match := _MIG_LINE.fullmatch(line)):
            devices[-1] = replace(devices[-1], parts=(*devices[-1].parts, match[1]))
    return devices


def _with_bus(devices: list[Device], answer: Answer) -> list[Device]:
    bus: dict[str, str] = {}
    for line in (answer.out or "").splitlines():
        uuid, _, address = (part.strip() for part in line.partition(","))
        bus[uuid] = address
    return [replace(device, pci=device.pci or _address(bus.get(device.uuid or "", ""))) for device in devices]


def _driver_files(files: Files) -> tuple[Device, ...]:
    """What the driver says in /proc, in the order of PCI addresses, as nvidia-smi counts."""
    found: list[tuple[str, str | None]] = []
    for name in files.names(_NVIDIA_FILES):
        address = _address(name)
        text = files.text(f"{_NVIDIA_FILES}/{name}/information")
        if address is None or text is None:
            continue
        uuid = re.search(r"^GPU UUID:\s*(GPU-[0-9A-Za-z-]+)\s*$", text, re.MULTILINE)  # "GPU-???" before its first use
        found.append((address, uuid[1] if uuid else None))
    return tuple(
        Device(index, uuid, address, _numa(files, address)) for index, (address, uuid) in enumerate(sorted(found))
    )


def amd_devices(files: Files) -> tuple[Device, ...]:
    """AMD's GPUs that this process can reach, in the order in which ROCm counts.

    The properties of a device that a control group forbids cannot be read, and ROCm does not count it.
    """
    devices: list[Device] = []
    for name in sorted(files.names(_KFD), key=lambda name: (len(name), name)):
        properties = _properties(files.text(f"{_KFD}/{name}/properties"))
        if not properties.get("simd_count") or files.number(f"{_KFD}/{name}/gpu_id") in {0, None}:
            continue  # a processor
        unique, place, domain = (properties.get(key, 0) for key in ("unique_id", "location_id", "domain"))
        pci = f"{domain:04x}:{place >> 8 & 0xFF:02x}:{place >> 3 & 0x1F:02x}.{place & 7}"
        uuid = f"GPU-{unique:016x}" if unique else None
        devices.append(Device(len(devices), uuid, pci, _numa(files, pci)))
    return tuple(devices)


def _properties(text: str | None) -> dict[str, int]:
    pairs = (line.split() for line in (text or "").splitlines())
    values = {pair[0]: number(pair[1]) for pair in pairs if len(pair) == 2}
    return {name: value for name, value in values.items() if value is not None and value >= 0}


def intel_devices(files: Files, *, flat: bool) -> tuple[Device, ...]:
    """Intel's GPUs with memory of their own, in the order of their PCI addresses.

    Args:
        flat: each tile of a card is a device, as Level Zero has it unless told otherwise; if false,
            each card is one.
    """
    cards: dict[str, int] = {}
    for name in files.names(_DRM):
        device = f"{_DRM}/{name}/device"
        if not _CARD.fullmatch(name) or _hex(files.text(f"{device}/vendor")) != _INTEL:
            continue
        address = _address(files.target(device))
        if address is not None and address != _INTEGRATED:
            tiles = [tile for tile in files.names(device) if re.fullmatch(r"tile[0-9]+", tile)]  # driver xe
            tiles = tiles or files.names(f"{_DRM}/{name}/gt")  # driver i915
            cards[address] = max(1, len(tiles)) if flat else 1
    places = [address for address in sorted(cards) for _ in range(cards[address])]
    return tuple(Device(index, None, address, _numa(files, address)) for index, address in enumerate(places))


def _hex(text: str | None) -> int | None:
    match = re.fullmatch(r"0x([0-9A-Fa-f]{1,8})", (text or "").strip())
    return int(match[1], 16) if match else None


def _address(text: str) -> str | None:
    """A PCI address as sysfs writes it: four digits of domain, lower case."""
    if not _BUS.fullmatch(text):
        return None
    *domain, bus, rest = text.lower().split(":")
    return f"{int(domain[0], 16) if domain else 0:04x}:{bus}:{rest}"


def _numa(files: Files, pci: str | None) -> int | None:
    """The NUMA domain of a PCI device; the kernel says -1 where it does not know."""
    domain = files.number(f"/sys/bus/pci/devices/{pci}/numa_node") if pci is not None else None
    return domain if domain is not None and domain >= 0 else None


def _numa_nodes(files: Files) -> list[str]:
    return [name for name in files.names("/sys/devices/system/node") if re.fullmatch(r"node[0-9]+", name)]
