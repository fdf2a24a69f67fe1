"""What a container may use of the machine."""

from types import SimpleNamespace

import psutil
import pytest

from ablate import machine


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """An empty tree of control groups, with this process in /a/b; returns what writes some."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "MEMBER", tmp_path / "member")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: range(64), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=256 * machine.GIB))

    def write(member, **files):
        (tmp_path / "member").write_text(member)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_without_limits_it_is_the_machine(groups):
    groups("0::/a/b\n", a__cpu_DOT_max="max 100000\n", a__memory_DOT_max="max\n")
    assert (machine.cores(), machine.memory()) == (64, 256 * machine.GIB)
    (machine.MEMBER).unlink()
    assert machine.side_by_side() == 64


def test_the_tightest_limit_above_a_process_counts(groups):
    groups(
        "0::/a/b\n",
        cpu_DOT_max="800000 100000",
        a__cpu_DOT_max="250000 100000\n",
        a__b__memory_DOT_max=f"{8 * machine.GIB}\n",
        c__memory_DOT_max="1",
    )
    assert (machine.cores(), machine.memory()) == (3, 8 * machine.GIB)
    assert machine.side_by_side() == 3


def test_the_first_version_of_control_groups(groups):
    groups(
        "4:memory:/a/b\n3:cpu,cpuacct:/a/b\n1:name=systemd:/a\n",
        **{"memory/a/b/memory.limit_in_bytes": str(4 * machine.GIB)},
        **{"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"},
        **{"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"},
    )
    assert (machine.cores(), machine.memory()) == (4, 4 * machine.GIB)
    assert machine.side_by_side() == 2
