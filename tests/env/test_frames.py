import numpy as np
import pytest
from gymnasium.spaces import Box

from hsw.env.frames import FrameStack
from hsw.spaces import read_space
from tests.env.helpers import column, make, play
from tests.helpers import draw

K = 3
SHAPES = {
    "vector": ((4,), np.float32, (12,)),
    "grid": ((5, 6), np.uint8, (3, 5, 6)),
    "channels_first": ((2, 8, 8), np.uint8, (6, 8, 8)),
    "channels_last": ((8, 8, 2), np.uint8, (8, 8, 6)),
}


def naive_stack(frames, shape):
    """The last K frames side by side: new leading axis for grids, else the channel axis."""
    if len(shape) == 2:
        return np.array(frames)
    return np.concatenate(frames, axis=-1 if len(shape) == 3 and shape[-1] < shape[0] else 0)


@pytest.mark.parametrize("case", SHAPES)
def test_a_stack_is_the_last_frames_and_a_new_episode_fills_it(case):
    shape, dtype, stacked = SHAPES[case]
    space = Box(0, 255, shape, dtype)
    stack = FrameStack(read_space(space), 2, K)
    assert stack.spec == read_space(Box(0, 255, stacked, dtype))
    history = {0: [], 1: []}
    fresh_rows = [[True, True], [False, False], [False, True], [False, False], [True, False], [False, False]]
    for t, fresh in enumerate(fresh_rows):
        obs = draw(space, 2, t)
        got = stack(obs, np.array(fresh))
        assert got.shape == (2, *stacked)
        for n in range(2):
            history[n] = [obs[n]] * K if fresh[n] else [*history[n][1:], obs[n]]
            assert np.array_equal(got[n], naive_stack(history[n], shape))


def test_uneven_bounds_are_stacked_with_the_frames():
    space = Box(np.array([-1, 0], np.float32), np.array([1, 3], np.float32))
    spec = FrameStack(read_space(space), 1, 2).spec
    assert np.array_equal(spec.low, [-1, 0, -1, 0])
    assert np.array_equal(spec.high, [1, 3, 1, 3])


def test_a_reset_row_refills_the_stack_and_a_done_does_not():
    env = make("Counter", 1, kwargs={"length": 2}, frame_stack=K)
    assert env.observation_space.shape == (K,)
    assert env.reset().tolist() == [[0.0, 0.0, 0.0]]
    assert column(play(env, 4), "obs") == [[0, 0, 1], [0, 1, 2], [0, 0, 0], [0, 0, 1]]


def test_stacked_rows_do_not_change_with_the_next():
    env = make("Counter", 1, frame_stack=K)
    first = env.reset()
    play(env, 2)
    assert first.tolist() == [[0.0, 0.0, 0.0]]
