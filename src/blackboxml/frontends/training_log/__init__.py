"""`TrainingLog` as Blocks has it: what happened at each iteration, and the status of the training.

Both of Blocks' backends are this one, in a run directory: `TrainingLog` has their idioms, and
`SQLiteLog` takes the arguments of the second.
"""

from blackboxml.frontends.training_log.log import TrainingLog
from blackboxml.frontends.training_log.sqlite import SQLiteLog, open_log

__all__ = ["SQLiteLog", "TrainingLog", "open_log"]
