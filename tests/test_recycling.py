"""Memory that is used again, and never while somebody still looks at it."""

from __future__ import annotations

import copy
import pickle
import threading

import torch

from hsw.recycling import Recycler

SHAPE = (300, 1024)  # of float32, a little more than a MiB


def test_memory_comes_again_once_nothing_refers_to_it() -> None:
    recycler = Recycler()
    first = recycler.empty(SHAPE, torch.float32).fill_(1)
    place = first.data_ptr()
    assert recycler.empty(SHAPE, torch.float32).data_ptr() != place
    del first
    places = {recycler.empty(SHAPE, torch.float32).data_ptr() for _ in range(3)}
    assert place in places or len(places) == 1
    same_size = recycler.empty((SHAPE[0] * 4, SHAPE[1]), torch.uint8)
    assert (same_size.dtype, same_size.shape) == (torch.uint8, (1200, 1024))


def test_views_arrays_and_graphs_keep_memory_as_it_is() -> None:
    recycler = Recycler()
    weight = torch.ones(SHAPE[1], requires_grad=True)
    held = {
        "view": recycler.empty(SHAPE, torch.float32).fill_(1)[3:5],
        "array": recycler.empty(SHAPE, torch.float32).fill_(1).numpy()[7],
        "graph": (recycler.empty(SHAPE, torch.float32).fill_(1) * weight).sum(),
    }
    for _ in range(10):
        recycler.empty(SHAPE, torch.float32).fill_(-1)
    held["graph"].backward()
    assert (held["view"] == 1).all()
    assert (held["array"] == 1).all()
    assert weight.grad is not None
    assert (weight.grad == SHAPE[0]).all()


def test_threads_never_share_a_piece() -> None:
    recycler, wrong = Recycler(), []

    def work(number: int) -> None:
        for _ in range(50):
            own = recycler.empty((1100, 1024), torch.uint8).fill_(number)
            if not (own == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_copy_begins_with_nothing_and_a_pickle_too() -> None:
    recycler = Recycler()
    held = recycler.empty(SHAPE, torch.float32)
    for other in (copy.deepcopy(recycler), pickle.loads(pickle.dumps(recycler))):
        assert other.empty(SHAPE, torch.float32).data_ptr() != held.data_ptr()
