"""What several tests of fits start from."""

import pytest

from tests.conftest import write_table


@pytest.fixture(scope="package")
def rows(tmp_path_factory):
    """A table of 60 rows."""
    file = tmp_path_factory.mktemp("fit") / "rows.csv"
    write_table(file, 60, seed=3)
    return file
