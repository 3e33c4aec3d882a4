"""Whether a candidate may take the champion's place: tests that stay valid at every look. Pure."""

from penstock_retrain.canary.config import Arm, CanaryConfig, Goal, Levels, MetricSpec
from penstock_retrain.canary.scales import Bounds, Limit, Rank, Scale
from penstock_retrain.canary.trial import CanaryTest
from penstock_retrain.canary.verdict import Decision, Evidence, Verdict

__all__ = [
    "Arm",
    "Bounds",
    "CanaryConfig",
    "CanaryTest",
    "Decision",
    "Evidence",
    "Goal",
    "Levels",
    "Limit",
    "MetricSpec",
    "Rank",
    "Scale",
    "Verdict",
]
