"""Performance profiles, against rliable's."""

import numpy as np
from rliable import library

from hsw.analysis.profiles import profiles


def test_profiles_are_rliables_and_their_intervals_nearly():
    generator = np.random.default_rng(0)
    scores = [generator.normal(size=(6, 4)), generator.normal(0.5, size=(5, 4))]
    ours = profiles(scores, reps=2000)
    np.random.seed(1)
    shares, bounds = library.create_performance_profile(
        {str(n): one for n, one in enumerate(scores)}, ours[0].levels[::10], reps=500
    )
    for n, one in enumerate(ours):
        assert np.allclose(one.share[::10], shares[str(n)], rtol=0, atol=1e-12)
        assert np.abs(np.stack([one.low, one.high])[:, ::10] - bounds[str(n)]).max() < 0.1
        assert (one.low <= one.share + 1e-12).all()
        assert (one.share <= one.high + 1e-12).all()


def test_a_profile_falls_from_one_to_zero_and_one_seed_has_no_interval():
    (one,) = profiles([np.array([[3.0]])])
    assert (one.share[0], one.share[-1]) == (1.0, 0.0)
    assert (one.low == one.share).all()
    assert one.levels[0] < 3.0 < one.levels[-1]
