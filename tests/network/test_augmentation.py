"""Augmentations against naive ones that go through every image by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hsw.errors import ConfigError
from hsw.network.augmentation import AmplitudeScaling, GaussianNoise, RandomCrop, RandomShift


def images(num: int = 40, channels_last: bool = False) -> torch.Tensor:
    """Every pixel tells its image, channel, row and column."""
    made = torch.arange(num * 2 * 7 * 9).view(num, 2, 7, 9).float()
    return made.permute(0, 2, 3, 1).contiguous() if channels_last else made


@pytest.mark.parametrize("augmentation", [RandomShift(2), RandomCrop(0.6)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_pixel_comes_from_its_own_images_row_and_column(augmentation: Any, channels_last: bool) -> None:
    given = images(channels_last=channels_last)
    if channels_last:
        given = given[..., :1]  # told from channels first by its shape
    found = augmentation.augment(given)
    assert found.shape == given.shape
    source = found.permute(0, 3, 1, 2) if channels_last else found
    original = given.permute(0, 3, 1, 2) if channels_last else given
    for b in range(len(given)):
        rows, columns = (source[b, 0].long() // 9) % 7, source[b, 0].long() % 9
        assert (rows == rows[:, :1]).all()
        assert (columns == columns[:1]).all()
        assert torch.equal(source[b], original[b][:, rows[:, 0]][:, :, columns[0]])


def test_a_crop_is_a_window_at_a_place_of_its_own_enlarged() -> None:
    torch.manual_seed(0)
    given = images(300)
    found = RandomCrop(0.6).augment(given)
    height, width = round(0.6 * 7), round(0.6 * 9)
    places = set()
    for b in range(len(given)):
        matches = []
        for top in range(7 - height + 1):
            for left in range(9 - width + 1):
                window = given[b, :, top : top + height, left : left + width]
                naive = torch.stack(
                    [torch.stack([window[:, i * height // 7, j * width // 9] for j in range(9)], -1) for i in range(7)],
                    1,
                )
                if torch.equal(naive, found[b]):
                    matches.append((top, left))
        assert len(matches) == 1
        places |= set(matches)
    assert len(places) == (7 - height + 1) * (9 - width + 1)  # every place is drawn


def test_noise_has_its_deviation_and_bytes_stay_bytes() -> None:
    torch.manual_seed(0)
    vectors, frames = torch.zeros(5000, 4), torch.full((50, 3, 20, 20), 128, dtype=torch.uint8)
    found = GaussianNoise(0.1).augment({"vector": vectors, "image": frames, "choice": torch.arange(50)})
    assert float(found["vector"].std()) == pytest.approx(0.1, rel=0.05)
    assert abs(float(found["vector"].mean())) < 0.005
    assert found["image"].dtype == torch.uint8
    assert float(found["image"].float().std()) == pytest.approx(25.5, rel=0.05)
    assert torch.equal(found["choice"], torch.arange(50))
    bright = GaussianNoise(0.5).augment(torch.full((10, 3, 20, 20), 250, dtype=torch.uint8))
    assert bright.max() == 255  # and nothing has gone round


def test_a_whole_observation_is_scaled_by_one_number_of_its_own() -> None:
    torch.manual_seed(0)
    given = {"vector": torch.rand(500, 4) + 1, "matrix": torch.rand(500, 2, 3) + 1}
    found = AmplitudeScaling(0.5, 1.5).augment(given)
    scales = torch.cat([(found[name] / given[name]).flatten(1) for name in given], 1)
    torch.testing.assert_close(scales, scales[:, :1].expand_as(scales))
    assert 0.5 <= float(scales.min()) < 0.52
    assert 1.48 < float(scales.max()) <= 1.5


def test_what_cannot_be_changed_so_is_refused() -> None:
    with pytest.raises(ConfigError, match="RandomCrop needs observations that are images"):
        RandomCrop().augment(torch.rand(4, 5))
    for augmentation in (GaussianNoise(), AmplitudeScaling()):
        with pytest.raises(ConfigError, match=f"{type(augmentation).__name__} needs observations that are numbers"):
            augmentation.augment(torch.arange(4))
    with pytest.raises(ConfigError, match="low=2"):
        AmplitudeScaling(2, 1)


@pytest.mark.parametrize("augmentation", [RandomShift(), RandomCrop(), GaussianNoise(), AmplitudeScaling()])
def test_draws_come_from_torchs_generator_and_come_again(augmentation: Any) -> None:
    given, ends = torch.rand(8, 3, 12, 12), []
    for _ in range(2):
        torch.manual_seed(3)
        ends.append(augmentation.augment(given))
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], given)
