"""Objectives: the loss of every method, one file for each; frozen dataclasses whose fields are its settings."""

from assent.objectives.bradley_terry import BradleyTerry
from assent.objectives.cdpo import CDPO
from assent.objectives.cross_entropy import CrossEntropy
from assent.objectives.dapo import DAPO
from assent.objectives.dpo import DPO
from assent.objectives.dr_grpo import DrGRPO
from assent.objectives.grpo import GRPO
from assent.objectives.gspo import GSPO
from assent.objectives.ipo import IPO
from assent.objectives.kto import KTO
from assent.objectives.kway import KWay
from assent.objectives.orpo import ORPO
from assent.objectives.plackett_luce import PlackettLuce
from assent.objectives.ppo import PPO
from assent.objectives.regression import Regression
from assent.objectives.reinforce import Reinforce
from assent.objectives.rloo import RLOO
from assent.objectives.robust_dpo import RobustDPO
from assent.objectives.simpo import SimPO

__all__ = [
    "CDPO",
    "DAPO",
    "DPO",
    "GRPO",
    "GSPO",
    "IPO",
    "KTO",
    "ORPO",
    "PPO",
    "RLOO",
    "BradleyTerry",
    "CrossEntropy",
    "DrGRPO",
    "KWay",
    "PlackettLuce",
    "Regression",
    "Reinforce",
    "RobustDPO",
    "SimPO",
]
