"""Experiments: their schema, files with errors that name line and column, components, fingerprints.

No torch is imported before a name is looked up.
"""

from weft.config.canonical import canonical_json
from weft.config.catalog import KINDS
from weft.config.component import Component, Place
from weft.config.dataset import ArrayPair, DatasetConfig, SplitConfig, TableConfig, TransformsConfig
from weft.config.experiment import Experiment
from weft.config.export import dump_yaml, json_schema, to_dict
from weft.config.federation import CohortConfig, FederationConfig, PretrainingConfig, SiteConfig
from weft.config.fingerprint import components_digest, fingerprint
from weft.config.listing import ArgumentInfo, ComponentInfo, components_of
from weft.config.load import load_experiment
from weft.config.namespace import Namespace
from weft.config.patches import load_patch, refuse_while_loading
from weft.config.resolve import resolve
from weft.config.running import CheckpointEvery, RunConfig
from weft.config.supplied import label_key, scheduler_interval, supplied
from weft.config.training import EmaConfig, GradientCompression, ModelConfig, MonitorConfig, TrainingConfig

__all__ = [
    "KINDS",
    "ArgumentInfo",
    "ArrayPair",
    "CheckpointEvery",
    "CohortConfig",
    "Component",
    "ComponentInfo",
    "DatasetConfig",
    "EmaConfig",
    "Experiment",
    "FederationConfig",
    "GradientCompression",
    "ModelConfig",
    "MonitorConfig",
    "Namespace",
    "Place",
    "PretrainingConfig",
    "RunConfig",
    "SiteConfig",
    "SplitConfig",
    "TableConfig",
    "TrainingConfig",
    "TransformsConfig",
    "canonical_json",
    "components_digest",
    "components_of",
    "dump_yaml",
    "fingerprint",
    "json_schema",
    "label_key",
    "load_experiment",
    "load_patch",
    "refuse_while_loading",
    "resolve",
    "scheduler_interval",
    "supplied",
    "to_dict",
]
