"""One seed tree: every stream of random numbers is a function of the run's seed and of what it is for."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from hsw.ranks import current
from hsw.template import Array, Axis, Each, Exactly, Fields, Maybe, Number, Whole, template_of

# Branches of the tree. Their numbers are part of what makes an old run reproducible: never renumber.
ENV, STORAGE, EVAL_ENV, EVAL_POLICY, GLOBAL, ACTOR, RANK = range(7)


def derive_seed(seed: int, *branch: int) -> int:
    """A seed for one branch of the tree, in [0, 2**31), independent of its neighbours (NumPy's SeedSequence)."""
    return int(np.random.SeedSequence([seed, *branch]).generate_state(1)[0] >> 1)


def rank_seed(seed: int) -> int:
    """Of a run's seed what this rank collects and draws by; rank 0's is the seed itself."""
    rank = current().rank
    return derive_seed(seed, RANK, rank) if rank else seed


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    seed = derive_seed(seed, GLOBAL)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def get_rng_state() -> dict[str, Any]:
    """The global generators' states, as tensors and plain numbers."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = np.random.get_state()
    _, keys, pos, has_gauss, cached = numpy_state
    state = {
        "python": [version, list(internal), gauss],
        "numpy": {"keys": torch.from_numpy(keys.astype(np.int64)), "rest": [int(pos), int(has_gauss), float(cached)]},
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def rng_template() -> Any:
    """What a saved state of the global generators must look like."""
    word = Whole(high=2**32 - 1)
    own = get_rng_state()
    return Fields(
        {
            "python": [Exactly(own["python"][0]), [word] * 624 + [Whole(high=624)], Maybe(Number())],
            "numpy": {
                "keys": Array((624,), torch.int64, low=0, high=2**32 - 1),
                "rest": [Whole(high=624), Whole(high=1), Number()],  # NumPy itself would read beyond its 624 words
            },
            "torch": template_of(own["torch"]),
        },
        {"cuda": Each(Array((Axis("cuda"),), torch.uint8), most=1024)},
    )


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what get_rng_state returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys = state["numpy"]["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, *state["numpy"]["rest"]))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        for index, saved in enumerate(state["cuda"][: torch.cuda.device_count()]):  # it may have been on more of them
            torch.cuda.set_rng_state(saved, index)
