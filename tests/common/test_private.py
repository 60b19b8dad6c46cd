"""Folders that only their owner can read."""

import os
import stat

import pytest

from dpstune.common.private import make_private_folder
from dpstune.errors import RunError

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("earlier", [None, 0o755, 0o770, 0o701, 0o700])
def test_nobody_else_has_a_right_in_it(tmp_path, earlier):
    folder = tmp_path / "between" / "own"
    if earlier is not None:
        folder.mkdir(parents=True)
        folder.chmod(earlier)
    make_private_folder(folder, "")
    assert mode(folder) == 0o700
    assert mode(folder.parent) != 0o700


def test_another_users_is_refused_and_left_as_it_is(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    folder.mkdir()
    folder.chmod(0o755)
    monkeypatch.setattr("os.getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(RunError, match="own should be a folder of this user; remove it, or go elsewhere"):
        make_private_folder(folder, "go elsewhere")
    assert mode(folder) == 0o755


@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_what_is_no_folder_is_refused(tmp_path, kind):
    folder = tmp_path / "own"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
    folder.touch() if kind == "file" else folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="should be a folder of this user"):
        make_private_folder(folder, "go elsewhere")
