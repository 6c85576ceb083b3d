"""GPUs of each vendor, and which of them the environment leaves to this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pilotflow.node import Answer, NodeReport, Overrides, Vendor
from tests.core.node_trees import Tree, no_tools, tool

UUIDS = [f"GPU-{number}00e5f1c-2d3b-4a5f-8e7d-0123456789a{number}" for number in range(4)]
LIST = "".join(f"GPU {number}: NVIDIA A100-SXM4-40GB (UUID: {uuid})\n" for number, uuid in enumerate(UUIDS))
MIG = f"""\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: {UUIDS[0]})
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1c.3g.20gb  Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: {UUIDS[1]})
"""
OLD_MIG = f"""\
GPU 0: A100-PCIE-40GB (UUID: {UUIDS[0]})
  MIG 4g.20gb Device 0: (UUID: MIG-{UUIDS[0]}/2/0)
"""
JOB = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "node1", "SLURM_JOB_CPUS_PER_NODE": "4"}


def ids(report: NodeReport) -> list[str]:
    return [gpu.id for gpu in report.gpus]


def failing(out: str | None, problem: str) -> Callable[[Sequence[str]], Answer]:
    return lambda argv: Answer(out, problem)


def driver_files(tree: Tree, count: int = 2) -> Tree:
    """What NVIDIA's driver says of GPUs on the buses 0x41, 0xc1, ..., one in each NUMA domain."""
    for number in range(count):
        bus = f"0000:{0x41 + 0x80 * number:02x}:00.0"
        text = f"Model: \t\t NVIDIA A100\nIRQ:   \t\t 77\nGPU UUID: \t {UUIDS[number]}\nBus Location: \t {bus}\n"
        tree.write(f"/proc/driver/nvidia/gpus/{bus}/information", text).numa_of(bus, number)
    return tree


# ---- NVIDIA ---------------------------------------------------------------------------------


def test_nvidia_gpus_are_named_by_the_numbers_of_nvidia_smi(tmp_path: Path) -> None:
    report = Tree(tmp_path).measure(run=tool(L=LIST))
    assert ids(report) == ["0", "1", "2", "3"]
    assert [gpu.uuid for gpu in report.gpus] == UUIDS
    assert report.vendor is Vendor.NVIDIA


def test_mig_instances_are_gpus_in_place_of_the_one_that_they_divide(tmp_path: Path) -> None:
    report = Tree(tmp_path).measure(run=tool(L=MIG))
    assert ids(report) == [
        "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f",
        "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb",
        "1",
    ]


def test_mig_instances_of_older_drivers_are_understood(tmp_path: Path) -> None:
    assert ids(Tree(tmp_path).measure(run=tool(L=OLD_MIG))) == [f"MIG-{UUIDS[0]}/2/0"]


def test_the_numa_domain_of_a_gpu_comes_from_the_drivers_files(tmp_path: Path) -> None:
    tree = driver_files(Tree(tmp_path).machine(physical=4, numa=2))
    report = tree.measure(run=tool(L="".join(LIST.splitlines(keepends=True)[:2])))
    assert [(gpu.pci, gpu.numa) for gpu in report.gpus] == [("0000:41:00.0", 0), ("0000:c1:00.0", 1)]


def test_the_numa_domain_of_a_gpu_is_asked_for_where_there_are_no_drivers_files(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine(physical=4, numa=2).numa_of("0000:41:00.0", 1)
    first = LIST.splitlines()[0]
    report = tree.measure(run=tool(L=first, query=f"{UUIDS[0]}, 00000000:41:00.0\n"))
    assert [(gpu.pci, gpu.numa) for gpu in report.gpus] == [("0000:41:00.0", 1)]


def test_a_domain_that_the_kernel_does_not_know_is_none(tmp_path: Path) -> None:
    tree = driver_files(Tree(tmp_path), count=1).numa_of("0000:41:00.0", -1)
    assert [gpu.numa for gpu in tree.measure().gpus] == [None]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("2,1", ["2", "1"]),
        ("0", ["0"]),
        (" 0 , 3 ", ["0", "3"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("none", []),
        ("0,2,-1,1", ["0", "2"]),
        ("9,0", []),
        ("0,0,1", ["0", "1"]),
        (UUIDS[3], [UUIDS[3]]),
        ("GPU-2", [UUIDS[2]]),
        (f"{UUIDS[1].upper()},0", [UUIDS[1], "0"]),
        ("GPU-", []),
        ("GPU-ffff,0", []),
    ],
)
def test_visible_devices_are_chosen_as_cuda_does(tmp_path: Path, visible: str, expected: list[str]) -> None:
    report = Tree(tmp_path).measure({"CUDA_VISIBLE_DEVICES": visible}, run=tool(L=LIST))
    assert ids(report) == expected
    hidden = [number for number in "0123" if number not in expected and UUIDS[int(number)] not in expected]
    (note,) = report.notes
    assert note.partition(" of this node ")[0].split(" ", 1)[1] == ", ".join(hidden)
    assert note.endswith(f" not used: CUDA_VISIBLE_DEVICES={visible} says so.")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", ["MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"]),
        ("MIG-cba6,1", ["MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", "1"]),
        (f"MIG-{UUIDS[0]}/7/0", [f"MIG-{UUIDS[0]}/7/0"]),
        ("0", ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"]),
        ("MIG-c", []),
    ],
)
def test_visible_mig_instances_are_chosen_by_name(tmp_path: Path, visible: str, expected: list[str]) -> None:
    report = Tree(tmp_path).measure({"CUDA_VISIBLE_DEVICES": visible}, run=tool(L=MIG))
    assert ids(report) == expected


def test_without_nvidia_smi_the_drivers_files_tell_the_gpus(tmp_path: Path) -> None:
    report = driver_files(Tree(tmp_path)).measure()
    assert [(gpu.id, gpu.uuid, gpu.pci) for gpu in report.gpus] == [
        ("0", UUIDS[0], "0000:41:00.0"),
        ("1", UUIDS[1], "0000:c1:00.0"),
    ]


def test_a_gpu_that_was_never_used_has_no_uuid_in_the_drivers_files(tmp_path: Path) -> None:
    tree = Tree(tmp_path).write(
        "/proc/driver/nvidia/gpus/0000:41:00.0/information", "GPU UUID: \t GPU-????????-????-????-????-????????????\n"
    )
    assert [(gpu.id, gpu.uuid) for gpu in tree.measure().gpus] == [("0", None)]


def test_a_hanging_nvidia_smi_is_replaced_by_the_drivers_files_and_said(tmp_path: Path) -> None:
    hung = failing(None, "did not answer within 20 s")
    report = driver_files(Tree(tmp_path)).measure(run=hung)
    assert ids(report) == ["0", "1"]
    note = "nvidia-smi did not answer within 20 s: its GPUs are taken from the driver's files, which do not tell "
    assert report.notes == (note + "MIG instances.",)


def test_when_nothing_answers_the_environment_is_believed(tmp_path: Path) -> None:
    hung = failing(None, "did not answer within 20 s")
    report = Tree(tmp_path).measure({"CUDA_VISIBLE_DEVICES": "0,1"}, run=hung)
    assert ids(report) == ["0", "1"]
    assert "GPUs 0, 1 are offered because the environment says so; none was detected." in report.notes


def test_nvidia_smi_without_a_driver_is_no_gpu_and_nothing_to_speak_of(tmp_path: Path) -> None:
    run = failing("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", "failed with 9")
    report = Tree(tmp_path).measure({"CUDA_VISIBLE_DEVICES": "0"}, run=run)
    assert (report.gpus, report.notes) == ((), ())


def test_a_lost_gpu_leaves_the_others_and_is_said(tmp_path: Path) -> None:
    out = LIST.splitlines()[0] + "\nUnable to determine the device handle for gpu 0000:41:00.0: Unknown Error\n"
    report = Tree(tmp_path).measure(run=failing(out, "failed with exit code 15 (Unable to ...)"))
    assert ids(report) == ["0"]
    assert report.notes == ("nvidia-smi failed with exit code 15 (Unable to ...).",)


def test_no_devices_found_is_no_gpu_even_where_the_host_has_some(tmp_path: Path) -> None:
    assert driver_files(Tree(tmp_path)).measure(run=tool(L="No devices found.\n")).gpus == ()


@pytest.mark.parametrize("text", ["\x00\xff", "GPU x: (UUID: GPU-1)", "  MIG 1g Device 0: (UUID: MIG-1)", "[]" * 999])
def test_rubbish_of_nvidia_smi_is_no_gpu(tmp_path: Path, text: str) -> None:
    assert Tree(tmp_path).measure(run=tool(L=text)).gpus == ()


# ---- AMD ------------------------------------------------------------------------------------


def kfd(tree: Tree, gpus: int = 2) -> Tree:
    """Two processors and GPUs behind them, as the KFD lists them."""
    nodes = "/sys/class/kfd/kfd/topology/nodes"
    for node in range(2):
        tree.write(f"{nodes}/{node}/gpu_id", "0\n").write(f"{nodes}/{node}/properties", "cpu_cores_count 32\n")
    for number in range(gpus):
        text = (
            f"cpu_cores_count 0\nsimd_count 440\nvendor_id 4098\nlocation_id {0xC100 + 0x300 * number}\n"
            f"domain 0\nunique_id {0xABCDEF0000000000 + number}\n"
        )
        tree.write(f"{nodes}/{number + 2}/gpu_id", f"{1000 + number}\n").write(f"{nodes}/{number + 2}/properties", text)
        tree.numa_of(f"0000:{0xC1 + 3 * number:02x}:00.0", number % 2)
    return tree


def test_amd_gpus_are_numbered_in_the_order_of_the_kfd(tmp_path: Path) -> None:
    report = kfd(Tree(tmp_path), gpus=10).measure()
    assert ids(report) == [str(number) for number in range(10)]
    assert report.vendor is Vendor.AMD
    first = report.gpus[1]
    assert (first.uuid, first.pci, first.numa) == ("GPU-abcdef0000000001", "0000:c4:00.0", 1)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ROCR_VISIBLE_DEVICES": "3,1"}, ["3", "1"]),
        ({"ROCR_VISIBLE_DEVICES": ""}, []),
        ({"ROCR_VISIBLE_DEVICES": "GPU-ABCDEF0000000002,0"}, ["GPU-abcdef0000000002", "0"]),
        ({"ROCR_VISIBLE_DEVICES": "1,x,2"}, ["1"]),
        ({"HIP_VISIBLE_DEVICES": "2"}, ["2"]),
        ({"CUDA_VISIBLE_DEVICES": "2"}, ["2"]),
        ({"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0"}, ["1"]),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "1"}, ["3"]),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "2"}, []),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "CUDA_VISIBLE_DEVICES": "2,3"}, ["2", "3"]),
    ],
)
def test_visible_devices_are_chosen_as_rocm_does(tmp_path: Path, environ: dict[str, str], expected: list[str]) -> None:
    assert ids(kfd(Tree(tmp_path), gpus=4).measure(environ)) == expected


def test_a_gpu_whose_properties_are_forbidden_is_not_counted(tmp_path: Path) -> None:
    tree = kfd(Tree(tmp_path), gpus=2)
    properties = tmp_path / "sys/class/kfd/kfd/topology/nodes/2/properties"
    properties.unlink()
    properties.mkdir()  # unreadable for root too
    report = tree.measure()
    assert [(gpu.id, gpu.uuid) for gpu in report.gpus] == [("0", "GPU-abcdef0000000001")]


@pytest.mark.parametrize("text", ["", "simd_count x\n", "simd_count -4\n", "\x00", "simd_count 4 4\n"])
def test_rubbish_of_the_kfd_is_no_gpu(tmp_path: Path, text: str) -> None:
    tree = Tree(tmp_path).write("/sys/class/kfd/kfd/topology/nodes/1/properties", text)
    assert tree.write("/sys/class/kfd/kfd/topology/nodes/1/gpu_id", "7").measure().gpus == ()


# ---- Intel ----------------------------------------------------------------------------------


def drm(tree: Tree, *cards: str, vendor: str = "0x8086", tiles: int = 0) -> Tree:
    for number, address in enumerate(cards):
        device = f"/sys/devices/pci0000:00/{address}"
        tree.write(f"{device}/vendor", f"{vendor}\n").link(f"/sys/class/drm/card{number}/device", device)
        for tile in range(tiles):
            tree.write(f"{device}/tile{tile}/x", "")
        tree.write(f"/sys/class/drm/card{number}-HDMI-A-1/status", "disconnected\n")
    return tree


def test_intel_cards_are_gpus_in_the_order_of_their_addresses(tmp_path: Path) -> None:
    report = drm(Tree(tmp_path), "0000:9a:00.0", "0000:18:00.0").numa_of("0000:18:00.0", 1).measure()
    assert [(gpu.id, gpu.pci, gpu.numa) for gpu in report.gpus] == [
        ("0", "0000:18:00.0", 1),
        ("1", "0000:9a:00.0", None),
    ]
    assert report.vendor is Vendor.INTEL


def test_graphics_inside_an_intel_processor_are_no_gpu(tmp_path: Path) -> None:
    assert drm(Tree(tmp_path), "0000:00:02.0").measure().gpus == ()


def test_a_display_of_another_vendor_is_no_gpu(tmp_path: Path) -> None:
    assert drm(Tree(tmp_path), "0000:02:00.0", vendor="0x1a03").measure().gpus == ()


def test_each_tile_is_a_gpu_unless_cards_are_kept_whole(tmp_path: Path) -> None:
    tree = drm(Tree(tmp_path), "0000:18:00.0", "0000:9a:00.0", tiles=2)
    assert [gpu.pci for gpu in tree.measure().gpus] == ["0000:18:00.0"] * 2 + ["0000:9a:00.0"] * 2
    assert ids(tree.measure({"ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"})) == ["0", "1"]


def test_tiles_are_counted_with_the_older_driver_too(tmp_path: Path) -> None:
    tree = drm(Tree(tmp_path), "0000:18:00.0")
    tree.write("/sys/class/drm/card0/gt/gt0/id", "0").write("/sys/class/drm/card0/gt/gt1/id", "1")
    assert ids(tree.measure()) == ["0", "1"]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [("1", ["1"]), ("0.1, 1.0", ["0.1", "1.0"]), ("x", []), ("7", [])],
)
def test_an_affinity_mask_names_devices_or_tiles(tmp_path: Path, mask: str, expected: list[str]) -> None:
    tree = drm(Tree(tmp_path), "0000:18:00.0", "0000:9a:00.0")
    assert ids(tree.measure({"ZE_AFFINITY_MASK": mask})) == expected


# ---- several vendors, none ------------------------------------------------------------------


def test_a_node_without_gpus_offers_none_and_says_nothing(tmp_path: Path) -> None:
    report = Tree(tmp_path).measure({"CUDA_VISIBLE_DEVICES": "0,1"})
    assert (report.gpus, report.vendor, report.notes) == ((), None, ())


def test_gpus_of_two_vendors_are_not_mixed(tmp_path: Path) -> None:
    report = kfd(Tree(tmp_path)).measure(run=tool(L=LIST))
    assert report.vendor is Vendor.NVIDIA
    assert report.notes == ("GPUs of one vendor are offered, those of NVIDIA; those of AMD are not.",)


def test_a_vendor_whose_gpus_are_hidden_gives_way_to_another(tmp_path: Path) -> None:
    tree = drm(Tree(tmp_path), "0000:18:00.0")
    assert tree.measure({"CUDA_VISIBLE_DEVICES": ""}, run=tool(L=LIST)).vendor is Vendor.INTEL


# ---- Slurm ----------------------------------------------------------------------------------


def test_in_an_allocation_without_gpus_none_is_used_and_the_way_out_is_said(tmp_path: Path) -> None:
    report = Tree(tmp_path).measure(JOB, run=tool(L=LIST))
    assert report.gpus == ()
    (note,) = report.notes
    assert note.startswith("GPUs 0, 1, 2, 3 of this node are not used: Slurm gave none to job 7. Ask for them")


def test_in_an_allocation_slurms_list_of_visible_devices_holds(tmp_path: Path) -> None:
    report = Tree(tmp_path).measure({**JOB, "CUDA_VISIBLE_DEVICES": "2,3"}, run=tool(L=LIST))
    assert ids(report) == ["2", "3"]


def test_in_an_allocation_gpus_are_told_by_slurm_where_nothing_is_detected(tmp_path: Path) -> None:
    assert ids(Tree(tmp_path).measure({**JOB, "CUDA_VISIBLE_DEVICES": "0,1"})) == ["0", "1"]
    assert ids(Tree(tmp_path).measure({**JOB, "CUDA_VISIBLE_DEVICES": "NoDevFiles"})) == []
    report = Tree(tmp_path).measure({**JOB, "SLURM_JOB_GPUS": "1,3"})
    assert (ids(report), report.vendor) == (["1", "3"], Vendor.UNKNOWN)
    assert ids(Tree(tmp_path).measure({**JOB, "GPU_DEVICE_ORDINAL": "0"})) == ["0"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SLURM_JOB_GPUS": "1,3"}, ["1", "3"]),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_GPUS": "2", "SLURM_JOB_GPUS": "1,3"}, ["2"]),
        ({"SLURM_JOB_GPUS": "4,5,6,7"}, ["0", "1", "2", "3"]),
        ({"GPU_DEVICE_ORDINAL": "1"}, ["1"]),
        ({"SLURM_GPUS_ON_NODE": "2"}, ["0", "1"]),
        ({"SLURM_GPUS_ON_NODE": "0"}, []),
    ],
)
def test_in_an_allocation_without_visible_devices_slurms_other_figures_hold(
    tmp_path: Path, environ: dict[str, str], expected: list[str]
) -> None:
    assert ids(Tree(tmp_path).measure({**JOB, **environ}, run=tool(L=LIST))) == expected


# ---- what the user says ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "count", "expected"),
    [
        ({}, 2, ["0", "1"]),
        ({}, 0, []),
        ({}, 6, ["0", "1", "2", "3", "4", "5"]),
        ({"CUDA_VISIBLE_DEVICES": "2"}, 1, ["2"]),
        ({"CUDA_VISIBLE_DEVICES": "2"}, 3, ["2", "0", "1"]),
        ({"CUDA_VISIBLE_DEVICES": UUIDS[1]}, 2, [UUIDS[1], "0"]),
        (JOB, 2, ["0", "1"]),
    ],
)
def test_the_users_number_goes_before_what_is_measured(
    tmp_path: Path, environ: dict[str, str], count: int, expected: list[str]
) -> None:
    report = Tree(tmp_path).measure(environ, run=tool(L=LIST), overrides=Overrides(num_gpus=count))
    assert ids(report) == expected
    assert {gpu.vendor for gpu in report.gpus} <= {Vendor.NVIDIA}


def test_gpus_that_only_the_user_knows_are_numbered_from_zero(tmp_path: Path) -> None:
    report = Tree(tmp_path).measure(run=no_tools, overrides=Overrides(num_gpus=3))
    assert (ids(report), report.vendor) == (["0", "1", "2"], Vendor.UNKNOWN)
    assert report.notes == ("3 GPUs are offered as the user said, but 0 were found.",)
