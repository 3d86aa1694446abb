"""Encoders, action distributions and policies."""

from hsw.network.actor_critic import ActorCritic, DecoupledActorCritic, Memory, Policy
from hsw.network.encoder import MLP, DictEncoder, ImpalaResNet, MinAtarCNN, NatureCNN
from hsw.network.recurrent import RecurrentActorCritic
from hsw.network.soft_actor_critic import SoftActorCritic

__all__ = [
    "MLP",
    "ActorCritic",
    "DecoupledActorCritic",
    "DictEncoder",
    "ImpalaResNet",
    "Memory",
    "MinAtarCNN",
    "NatureCNN",
    "Policy",
    "RecurrentActorCritic",
    "SoftActorCritic",
]
