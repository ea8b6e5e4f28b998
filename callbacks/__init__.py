"""Callbacks hold hooks only; plain objects of `acn_lightning` do the work."""

if __name__ == "callbacks":
    raise ImportError(
        "import acn_lightning.callbacks instead: the bare name would load each class twice"
    )

from acn_lightning.callbacks.agreement import CheckAgreement, ShareWay
from acn_lightning.callbacks.average import AverageWeights
from acn_lightning.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from acn_lightning.callbacks.dashboard import Dashboard
from acn_lightning.callbacks.finetune import Finetune
from acn_lightning.callbacks.finite import StopOnNonFiniteLoss
from acn_lightning.callbacks.measure import MeasureTest
from acn_lightning.callbacks.pictures import DrawPictures
from acn_lightning.callbacks.probe import ProbeCodes
from acn_lightning.callbacks.progress import RunBar, ShowProgress
from acn_lightning.callbacks.refresh import RefreshNeighbours
from acn_lightning.callbacks.seeds import SeedEpochs
from acn_lightning.callbacks.signals import StopOnSignal
from acn_lightning.callbacks.steps import MeasureSteps
from acn_lightning.callbacks.stopping import StopEarly, StopOnTime
from acn_lightning.callbacks.warn import WarnOfFaults

__all__ = [
    "AverageWeights",
    "BestCheckpoint",
    "CheckAgreement",
    "Dashboard",
    "DrawPictures",
    "Finetune",
    "LastCheckpoint",
    "MeasureSteps",
    "MeasureTest",
    "ProbeCodes",
    "RefreshNeighbours",
    "RunBar",
    "SeedEpochs",
    "ShareWay",
    "ShowProgress",
    "StopEarly",
    "StopOnNonFiniteLoss",
    "StopOnSignal",
    "StopOnTime",
    "WarnOfFaults",
]
