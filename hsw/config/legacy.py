"""What words in a stored config meant when it was stored."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from hsw.errors import ConfigError

_CONVOLUTIONS = ("minatar", "nature_cnn", "impala_resnet")


def keep_encoders(config: DictConfig) -> None:
    """Name the rule of hsw 0.1.0 in a config of that time, where the encoder that it took is another one today.

    It took an MLP for every image but three dimensions of bytes, and SAC no encoder for what it took for vectors, even
    if one was named. A config of that time is one whose network has no distribution.
    """
    network = config.get("network")
    if not isinstance(network, DictConfig) or "distribution" in network or not isinstance(network.get("encoder"), str):
        return
    if not str(network.get("_target_")).startswith("hsw.network.") or config.get("observation_space") is None:
        return
    from hsw.spaces import SpaceSpec, read_space  # torch's second

    def parts(space: SpaceSpec) -> list[SpaceSpec]:
        return [part for inner in space.spaces.values() for part in parts(inner)] if space.type == "Dict" else [space]

    try:
        found = parts(read_space(OmegaConf.to_container(config.observation_space, resolve=True)))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"observation_space cannot be read: {error}") from error
    chosen = network.encoder in ("auto", "dict") and any(part.image_layout and not part.is_image for part in found)
    ignored = (
        network._target_.endswith(".SoftActorCritic")
        and network.encoder in _CONVOLUTIONS
        and not any(part.is_image for part in found)
    )
    if chosen or ignored:
        network.encoder = "auto_0_1"
