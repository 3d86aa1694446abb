"""Encoders, action distributions and policies."""

from hsw.network.actor_critic import ActorCritic, DecoupledActorCritic, Memory, Policy
from hsw.network.convolution import ImpalaResNet, MinAtarCNN, NatureCNN, ProcgenResNet
from hsw.network.deterministic import DeterministicActorCritic
from hsw.network.distribution import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    Distribution,
    MultiCategorical,
    make_distribution,
)
from hsw.network.encoder import MLP, DictEncoder, make_encoder
from hsw.network.memory import MemoryActorCritic
from hsw.network.q_network import QNetwork
from hsw.network.recurrent import RecurrentActorCritic
from hsw.network.soft_actor_critic import SoftActorCritic
from hsw.network.two_values import TwoValueActorCritic

__all__ = [
    "MLP",
    "ActorCritic",
    "Bernoulli",
    "Categorical",
    "DecoupledActorCritic",
    "DeterministicActorCritic",
    "DiagGaussian",
    "DictEncoder",
    "Distribution",
    "ImpalaResNet",
    "Memory",
    "MemoryActorCritic",
    "MinAtarCNN",
    "MultiCategorical",
    "NatureCNN",
    "Policy",
    "ProcgenResNet",
    "QNetwork",
    "RecurrentActorCritic",
    "SoftActorCritic",
    "TwoValueActorCritic",
    "make_distribution",
    "make_encoder",
]
