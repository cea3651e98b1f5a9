# SPDX-License-Identifier: MIT
"""Discovery on recorded machines: what is found, what it is called, what the note says, and what hot plug reports."""

import ctypes.util
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from speckvctl.discovery import DiscoveryError, discover, identification, memory_nodes, watch

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
GiB = 1 << 30
CARD = "/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0"
FACTORY_CARD = "/devices/pci0000:5d/0000:5d:00.0/0000:5e:00.0"
REGION = "/devices/platform/ACPI0017:00/root0/decoder0.0/region0"
DAX = f"{REGION}/dax_region0/dax0.0"


def need_umockdev() -> None:
    if shutil.which("umockdev-wrapper") and ctypes.util.find_library("umockdev"):
        return
    if os.environ.get("CI") == "true":
        pytest.fail("umockdev is missing: apt install umockdev")
    pytest.skip("umockdev is not installed: apt install umockdev")


def run(tmp_path: Path, *steps: list[Any]) -> dict[str, Any]:
    need_umockdev()
    script = tmp_path / "script.json"
    named = [[step[0], str(HERE / f"{step[1]}.umockdev"), *step[2:]] if step[0] == "load" else step for step in steps]
    script.write_text(json.dumps(named), encoding="utf-8")
    done = subprocess.run(
        ["umockdev-wrapper", sys.executable, str(HERE / "machine.py"), str(script)],
        env={**os.environ, "G_DEBUG": "fatal-criticals"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def found(tmp_path: Path, tree: str, *steps: list[Any]) -> list[dict[str, Any]]:
    listings: list[list[dict[str, Any]]] = run(tmp_path, ["load", tree], *steps, ["discover"])["listings"]
    return listings[0]


def heard(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(event["action"], event["found"]["name"]) for event in result["events"]]


def by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert len({item["sysfs_path"] for item in items}) == len(items), "one thing was listed twice"
    return {item["name"]: item for item in items}


def test_an_ordinary_server_has_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, "nothing") == []


def test_an_empty_machine_has_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, ["discover"])["listings"] == [[]]


def test_cxl_expanders_are_followed_to_the_dax_device_that_serves_them(tmp_path: Path) -> None:
    items = found(tmp_path, "cxl-expanders")
    assert [item["name"] for item in items] == ["0000:0f:00.0", "mem0", "mem1", "region0", "host:/dev/dax0.0"]
    name = by_name(items)
    assert {item["kind"] for item in items[:4]} == {"cxl-memory"}
    assert name["mem0"]["capacity_bytes"] == 4 * GiB
    assert (name["mem0"]["vendor_id"], name["mem0"]["device_id"]) == (0x8086, 0x0D93)
    assert name["mem0"]["note"] == "mapped by region0: use host:/dev/dax0.0"
    assert name["mem1"]["capacity_bytes"] == 8 * GiB
    assert name["mem1"]["note"] == "no region maps it yet: cxl create-region -t ram -m mem1"
    assert name["region0"]["driver"] == "cxl_region"
    assert "modprobe cxl_pci" in name["0000:0f:00.0"]["note"]
    dax = name["host:/dev/dax0.0"]
    assert (dax["kind"], dax["driver"], dax["note"]) == ("dax", "device_dax", None)
    assert (dax["capacity_bytes"], dax["numa_node"]) == (4 * GiB, 1)
    assert dax["sysfs_path"] == f"/sys{DAX}"


def test_a_region_without_its_dax_device_says_which_driver_is_missing(tmp_path: Path) -> None:
    items = by_name(found(tmp_path, "cxl-expanders", ["remove", DAX]))
    assert "host:/dev/dax0.0" not in items
    assert items["region0"]["note"] == "the region has no dax device: modprobe -a dax_cxl device_dax"
    assert items["mem0"]["note"].startswith("mapped by region0: the region has no dax device")


def test_a_persistent_region_needs_a_namespace(tmp_path: Path) -> None:
    steps = [["remove", DAX], ["attribute", REGION, "mode", "pmem"]]
    assert "ndctl create-namespace" in by_name(found(tmp_path, "cxl-expanders", *steps))["region0"]["note"]


def test_a_rack_with_two_cards_shows_one_ready_and_one_as_the_maker_delivers_it(tmp_path: Path) -> None:
    items = found(tmp_path, "two-cards")
    assert [(item["kind"], item["name"]) for item in items] == [
        ("card", "/dev/speckv0"),
        ("factory-card", "0000:5e:00.0"),
    ]
    card, factory = items
    assert (card["vendor_id"], card["device_id"]) == (identification.PCI_VENDOR, identification.PCI_DEVICE_CARD)
    assert (card["capacity_bytes"], card["numa_node"], card["driver"], card["note"]) == (16 * GiB, 1, "speckv", None)
    assert card["sysfs_path"] == f"/sys{CARD}"
    assert factory["device_id"] == identification.PCI_DEVICE_FACTORY
    assert (factory["capacity_bytes"], factory["numa_node"], factory["driver"]) == (None, None, None)
    assert "speckvctl flash 0000:5e:00.0" in factory["note"]


@pytest.mark.parametrize(
    ("driver", "note"),
    [(None, "no driver bound: modprobe speckv"), ("vfio-pci", "bound to vfio-pci"), ("speckv", "no device node")],
)
def test_a_card_without_its_device_node_says_why(tmp_path: Path, driver: str | None, note: str) -> None:
    tree = (HERE / "two-cards.umockdev").read_text(encoding="utf-8")
    link = "L: driver=../../../../bus/pci/drivers/"
    assert f"{link}speckv\n" in tree
    replaced = tree.replace(f"{link}speckv\n", "" if driver is None else f"{link}{driver}\n")
    (tmp_path / "tree.umockdev").write_text(replaced, encoding="utf-8")
    listing = run(tmp_path, ["load", str(tmp_path / "tree"), [CARD]], ["discover"])["listings"][0]
    assert len(listing) == 1
    assert listing[0]["name"] == "0000:3b:00.0"
    assert note in listing[0]["note"]


def test_memory_only_nodes_are_those_with_memory_and_no_cpus(tmp_path: Path) -> None:
    items = by_name(found(tmp_path, "memory-nodes"))
    assert list(items) == ["host:/dev/dax0.0", "host:numa2", "host:numa10"]
    assert (items["host:numa2"]["kind"], items["host:numa2"]["capacity_bytes"]) == ("numa", 4 * GiB)
    assert (items["host:numa10"]["numa_node"], items["host:numa10"]["capacity_bytes"]) == (10, 16 * GiB)
    assert items["host:numa2"]["note"] is None


def test_a_dax_device_that_became_system_memory_points_at_its_node(tmp_path: Path) -> None:
    dax = by_name(found(tmp_path, "memory-nodes"))["host:/dev/dax0.0"]
    assert (dax["driver"], dax["numa_node"]) == ("kmem", 2)
    assert "use host:numa2" in dax["note"]
    assert "daxctl reconfigure-device -f -m devdax dax0.0" in dax["note"]


def test_hot_plug_of_a_card_is_add_then_change_when_its_driver_binds_then_remove(tmp_path: Path) -> None:
    tree = (HERE / "two-cards.umockdev").read_text(encoding="utf-8")
    (tmp_path / "tree.umockdev").write_text(re.sub(r"L: driver=.*/speckv\n", "", tree), encoding="utf-8")
    result = run(
        tmp_path,
        ["load", "nothing"],
        ["listen"],
        ["load", str(tmp_path / "tree"), [CARD]],
        ["hear", 1],
        ["driver", CARD, "speckv"],
        ["load", str(tmp_path / "tree"), [f"{CARD}/speckv/speckv0"]],
        ["hear", 2],
        ["change", CARD],
        ["hear", 3],
        ["remove", f"{CARD}/speckv/speckv0"],
        ["remove", CARD],
        ["hear", 4],
        ["discover"],
    )
    events = heard(result)
    assert events[:3] == [("add", "0000:3b:00.0"), ("change", "/dev/speckv0"), ("change", "/dev/speckv0")]
    # Depending on when it looks, the listener may see the card without its node before it sees it gone.
    assert events[3:] in ([("remove", "/dev/speckv0")], [("change", "0000:3b:00.0"), ("remove", "0000:3b:00.0")])
    assert result["listings"] == [[]]
    times = [event["time_ns"] for event in result["events"]]
    assert times == sorted(times)


def test_a_card_that_leaves_and_returns_is_two_events(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        ["load", "two-cards", [FACTORY_CARD]],
        ["listen"],
        ["remove", FACTORY_CARD],
        ["load", "two-cards", [FACTORY_CARD]],
        ["hear", 2],
    )
    assert heard(result) == [("remove", "0000:5e:00.0"), ("add", "0000:5e:00.0")]


def test_what_was_there_before_is_no_event(tmp_path: Path) -> None:
    assert heard(run(tmp_path, ["load", "two-cards"], ["listen"])) == []


def test_devices_of_no_concern_are_no_event(tmp_path: Path) -> None:
    other = ["/devices/pci0000:5d/0000:5d:01.0/0000:5f:00.0", "/devices/pci0000:5d/0000:5d:02.0/0000:60:00.0"]
    result = run(tmp_path, ["listen"], ["load", "two-cards", [*other, FACTORY_CARD]], ["hear", 1])
    assert heard(result) == [("add", "0000:5e:00.0")]


def test_unplugging_a_dax_device_also_changes_what_its_expander_says(tmp_path: Path) -> None:
    result = run(tmp_path, ["load", "cxl-expanders"], ["listen"], ["remove", DAX], ["hear", 3])
    assert sorted(heard(result)) == [("change", "mem0"), ("change", "region0"), ("remove", "host:/dev/dax0.0")]
    notes = {event["found"]["name"]: event["found"]["note"] for event in result["events"]}
    assert "modprobe -a dax_cxl" in notes["region0"]


def test_a_node_whose_memory_comes_online_and_goes_is_hot_plug(tmp_path: Path) -> None:
    node = "/devices/system/node/node3"
    block = tmp_path / "block.umockdev"
    block.write_text("P: /devices/system/memory/memory32\nE: SUBSYSTEM=memory\nA: state=online\n", encoding="utf-8")
    result = run(
        tmp_path,
        ["load", "memory-nodes"],
        ["listen"],
        ["attribute", node, "meminfo", "Node 3 MemTotal:  2097152 kB\n"],
        ["load", str(tmp_path / "block")],
        ["hear", 1],
        ["attribute", node, "meminfo", "Node 3 MemTotal:  1048576 kB\n"],
        ["change", "/devices/system/memory/memory32"],
        ["hear", 2],
        ["attribute", node, "meminfo", "Node 3 MemTotal:  0 kB\n"],
        ["change", "/devices/system/memory/memory32"],
        ["hear", 3],
    )
    assert heard(result) == [("add", "host:numa3"), ("change", "host:numa3"), ("remove", "host:numa3")]
    assert [event["found"]["capacity_bytes"] for event in result["events"]] == [2 * GiB, GiB, GiB]


def test_memory_nodes_obey_the_sysfs_root_they_are_given(tmp_path: Path) -> None:
    node = tmp_path / "devices/system/node/node7"
    node.mkdir(parents=True)
    assert memory_nodes(str(tmp_path)) == []  # half there: no files yet
    (node / "cpulist").write_text("\n", encoding="ascii")
    (node / "meminfo").write_text("Node 7 MemTotal:       1024 kB\n", encoding="ascii")
    (only,) = memory_nodes(str(tmp_path))
    assert (only.name, only.capacity_bytes, only.sysfs_path) == ("host:numa7", 1 << 20, str(node))


def test_importing_discovery_does_not_import_pyudev() -> None:
    code = "import sys, speckvctl.discovery; sys.exit('pyudev' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Broken:
    """A pyudev whose libudev is not there, is not whole, or is for another machine."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pyudev":
            raise self.failure


class Late:
    """A pyudev that finds out only when it is used."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def Context(self) -> None:
        raise self.failure


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("failure", "package"),
    [
        (ModuleNotFoundError("No module named 'pyudev'"), r"pip install pyudev"),
        (ImportError("No library named udev"), r"apt install libudev1"),
        (OSError("libudev.so.1: cannot open shared object file: No such file or directory"), r"apt install libudev1"),
        (AttributeError("libudev.so.1: undefined symbol: udev_new"), r"apt install libudev1"),
    ],
)
def test_a_machine_without_libudev_gets_one_line_and_an_error_number(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, package: str, late: bool
) -> None:
    monkeypatch.delitem(sys.modules, "pyudev", raising=False)
    if late:
        monkeypatch.setitem(sys.modules, "pyudev", Late(failure))
    else:
        monkeypatch.setattr(sys, "meta_path", [Broken(failure), *sys.meta_path])
    with pytest.raises(
        DiscoveryError, match=rf"^cannot look for devices: .* cannot be loaded \(.*{package}\)$"
    ) as caught:
        discover()
    assert caught.value.errno == errno.EOPNOTSUPP
    with pytest.raises(DiscoveryError):
        watch(lambda: True)


def test_without_libudev_only_what_needs_it_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from speckvctl import discovery, library

    node = discovery.Found(discovery.FoundKind.NUMA, "host:numa7", "/sys/devices/system/node/node7", 1 << 30)
    monkeypatch.delitem(sys.modules, "pyudev", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(OSError("libudev.so.1")), *sys.meta_path])
    monkeypatch.setattr(discovery, "memory_nodes", lambda: [node])
    assert [item.name for item in library.hardware() or []] == ["host:numa7"]
    assert "apt install libudev1" in capsys.readouterr().err
    monkeypatch.setattr(discovery, "memory_nodes", list)
    assert library.hardware() is None


# ---- figures that cannot be ------------------------------------------------------------------------------------------

ABSURD = ["-1", "-17179869184", str(1 << 60), str(1 << 64), "1" * 400, "0x" + "f" * 16, "many", "", "1e9", "1_000", "٣"]


@pytest.mark.parametrize("value", ABSURD)
def test_a_size_that_no_memory_has_is_not_told(tmp_path: Path, value: str) -> None:
    steps = [["attribute", DAX, "size", value], ["attribute", REGION, "size", value]]
    steps += [["attribute", DAX, "target_node", value], ["attribute", REGION, "interleave_ways", value]]
    for item in found(tmp_path, "cxl-expanders", *steps):
        assert item["capacity_bytes"] is None or 0 < item["capacity_bytes"] < 1 << 60
        assert item["numa_node"] is None or 0 <= item["numa_node"] < 1 << 16
        assert value not in (item["note"] or "") or len(value) < 2


@pytest.mark.parametrize("value", [*ABSURD, "0"])
def test_a_node_without_a_size_that_can_be_is_left_out(tmp_path: Path, value: str) -> None:
    node = tmp_path / "devices/system/node/node7"
    node.mkdir(parents=True)
    (node / "cpulist").write_text("\n", encoding="ascii")
    (node / "meminfo").write_text(f"Node 7 MemTotal:       {value} kB\n", encoding="utf-8")
    assert memory_nodes(str(tmp_path)) == []
    (node / "meminfo").write_bytes(b"Node 7 MemTotal:       1024 kB\n\xff\xfe")
    assert [item.capacity_bytes for item in memory_nodes(str(tmp_path))] == [1 << 20]
    (tmp_path / "devices/system/node/node99999999").symlink_to(node)
    assert len(memory_nodes(str(tmp_path))) == 1


@pytest.mark.parametrize(
    ("meminfo", "words", "use"),
    [
        ("Node 2 MemTotal:  0 kB\n", "none online: daxctl online-memory dax0.0", False),
        ("Node 2 MemTotal:  4194304 kB\n", "online as system memory", True),
        ("rubbish\n", "taken as system memory, NUMA node 2: give it back", False),
    ],
)
def test_memory_that_kmem_took_is_called_online_only_where_it_is(
    tmp_path: Path, meminfo: str, words: str, use: bool
) -> None:
    items = found(tmp_path, "memory-nodes", ["attribute", "/devices/system/node/node2", "meminfo", meminfo])
    (dax,) = (item for item in items if item["kind"] == "dax")
    assert words in dax["note"] and ("use host:numa2" in dax["note"]) == use
    assert "reconfigure-device" in dax["note"]
    assert ("host:numa2" in {item["name"] for item in items}) == use


def test_identification_has_the_values_of_the_uapi_header() -> None:
    header = (ROOT / "kmod/include/uapi/linux/speckv.h").read_text(encoding="utf-8")
    values = dict(re.findall(r"^#define\s+(SPECKV_PCI_\w+|SPECKV_CLASS_NAME)\s+(\S+)", header, re.MULTILINE))
    assert int(values["SPECKV_PCI_VENDOR_ID"], 0) == identification.PCI_VENDOR
    assert int(values["SPECKV_PCI_DEVICE_ID_CARD"], 0) == identification.PCI_DEVICE_CARD
    assert int(values["SPECKV_PCI_DEVICE_ID_FACTORY"], 0) == identification.PCI_DEVICE_FACTORY
    assert values["SPECKV_CLASS_NAME"].strip('"') == identification.CLASS_NAME
