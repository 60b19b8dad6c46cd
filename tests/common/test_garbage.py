import gc

import pytest

from dpstune.common.garbage import no_garbage_search


class InACircle:
    def __init__(self):
        self.itself = self


@pytest.fixture
def nothing_frozen():
    gc.unfreeze()  # what conftest.py froze
    yield
    gc.freeze()


def test_nothing_is_searched_inside_and_all_is_old_after(nothing_frozen):
    searches = []
    gc.callbacks.append(lambda phase, search: searches.append(phase))
    try:
        with no_garbage_search():
            kept = [[] for _ in range(100_000)]
    finally:
        del gc.callbacks[-1]
    assert searches == []
    assert gc.isenabled()
    old = {id(each) for each in gc.get_objects(generation=2)}
    assert all(id(each) in old for each in kept)


def test_garbage_of_the_block_is_found_later():
    with no_garbage_search():
        for _ in range(10):
            InACircle()
    gc.collect()
    assert not any(isinstance(each, InACircle) for each in gc.get_objects())


def test_a_search_that_was_off_stays_off():
    gc.disable()
    try:
        with no_garbage_search():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_it_is_on_again_after_an_error():
    with pytest.raises(ValueError, match="bad"), no_garbage_search():
        raise ValueError("bad")
    assert gc.isenabled()


def test_what_the_caller_froze_stays_frozen():
    before = gc.get_freeze_count()
    assert before > 100_000  # by conftest.py
    with no_garbage_search():
        pass
    assert gc.get_freeze_count() > 0.9 * before
