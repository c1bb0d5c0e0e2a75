"""Attacks: `attack(backbone, batch, criterion) -> AttackResult`, the same objects while testing and while training."""

from mu.attacks.base import Attack, AttackResult, Criterion, Misclassified, Targeted
from mu.attacks.fgsm import FGSM, PGD
from mu.attacks.layouts import Add, Insert, Layout, Middle, PerTokens, Prefix, Replace, Suffix
from mu.attacks.prompt import Embeddings, PromptSearch, SoftPromptAttack, TokenSimplex, Variables
from mu.attacks.relearning import Relearn, Relearned
from mu.attacks.unlearn_diff_atk import AttackSummary, PromptAttackResult, UnlearnDiffAtk, Verdict

__all__ = [
    "FGSM",
    "PGD",
    "Add",
    "Attack",
    "AttackResult",
    "AttackSummary",
    "Criterion",
    "Embeddings",
    "Insert",
    "Layout",
    "Middle",
    "Misclassified",
    "PerTokens",
    "Prefix",
    "PromptAttackResult",
    "PromptSearch",
    "Relearn",
    "Relearned",
    "Replace",
    "SoftPromptAttack",
    "Suffix",
    "Targeted",
    "TokenSimplex",
    "UnlearnDiffAtk",
    "Variables",
    "Verdict",
]
