"""Experiments as simplegrad's `Tracker` has them: folders of numbered runs.

A folder below `all_exp_dir` is an experiment, and each run in it a run directory like any other.
Where simplegrad has a database `mnist.db`, this is the folder `mnist`; both names mean it.
"""

from blackboxml.frontends.experiments.manager import ExperimentDBManager, RecordInfo, RunInfo
from blackboxml.frontends.experiments.tracker import Tracker

__all__ = ["ExperimentDBManager", "RecordInfo", "RunInfo", "Tracker"]
