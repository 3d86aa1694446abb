"""Encoders, action distributions and policies."""

from hsw.network.actor_critic import ActorCritic, DecoupledActorCritic, Policy
from hsw.network.encoder import MLP, DictEncoder, ImpalaResNet, MinAtarCNN, NatureCNN

__all__ = [
    "MLP",
    "ActorCritic",
    "DecoupledActorCritic",
    "DictEncoder",
    "ImpalaResNet",
    "MinAtarCNN",
    "NatureCNN",
    "Policy",
]
