"""Which packages count as installed."""

from dpstune.common.packages import is_installed


def test_a_folder_of_its_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "a_tracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("a_tracker")
    assert is_installed("json")
