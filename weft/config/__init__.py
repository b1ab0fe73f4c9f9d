"""Experiments: their schema, files with errors that name line and column, components, fingerprints.

No torch is imported before a name is looked up.
"""

from weft.config.component import Component, Place
from weft.config.dataset import ArrayPair, DatasetConfig, SplitConfig, TableConfig, TransformsConfig
from weft.config.experiment import Experiment
from weft.config.namespace import Namespace
from weft.config.load import load_experiment
from weft.config.patches import load_patch
from weft.config.running import CheckpointEvery, RunConfig
from weft.config.training import EmaConfig, ModelConfig, MonitorConfig, TrainingConfig
