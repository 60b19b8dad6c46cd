"""What of a machine a process may use, read from control groups."""

import pytest

from dpstune.device import limits

GIB = 2**30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return a function that makes files of control groups; this process is in ``own``."""

    def make(own, **files):
        (tmp_path / "cgroup").write_text(own)
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(limits, "_GROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(limits, "_ROOT", tmp_path / "root")

    return make


def test_a_machine_without_control_groups_has_all_its_memory(tmp_path, monkeypatch, groups):
    groups("")
    assert limits.memory_bytes() > GIB / 4
    assert limits.processors() == float("inf")
    monkeypatch.delattr("os.sysconf")
    assert limits.memory_bytes() == GIB


def test_a_container_sees_its_own_group_as_the_root(groups):
    groups("0::/\n", **{"memory.max": f"{GIB // 8}\n", "cpu.max": "150000 100000\n"})
    assert limits.memory_bytes() == GIB // 8
    assert limits.processors() == 1.5


NESTED = {
    "slurm/job/memory.max": f"{GIB // 8}\n",
    "slurm/job/step/memory.max": "max\n",
    "slurm/cpu.max": "400000 100000\n",
    "slurm/job/step/cpu.max": "max 100000\n",
    "other/memory.max": "4096\n",
}
FIRST_VERSION = {  # a folder for each controller
    "memory/jobs/memory.limit_in_bytes": f"{GIB // 4}\n",
    "memory/memory.limit_in_bytes": f"{2**62}\n",
    "cpu,cpuacct/jobs/cpu.cfs_quota_us": "50000\n",
    "cpu,cpuacct/jobs/cpu.cfs_period_us": "100000\n",
    "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
    "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
}


@pytest.mark.parametrize(
    ("own", "files", "memory", "processors"),
    [
        ("0::/slurm/job/step\n", NESTED, GIB // 8, 4.0),
        ("4:memory:/jobs\n3:cpu,cpuacct:/jobs\n", FIRST_VERSION, GIB // 4, 0.5),
    ],
    ids=["second version", "first version"],
)
def test_limits_of_every_parent_count(groups, own, files, memory, processors):
    groups(own, **files)
    assert limits.memory_bytes() == memory
    assert limits.processors() == processors


@pytest.mark.parametrize(("limit", "count"), [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1)])
def test_no_more_is_computed_at_once_than_a_container_may(monkeypatch, groups, limit, count):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(4)), raising=False)
    groups("0::/\n", **{"cpu.max": f"{limit}\n"})
    assert limits.cores() == count
