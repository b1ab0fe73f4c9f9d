"""The words of coinstac-dinunet: phases of a computation, modes of a site, and keys of its cache.

They are texts: compared with one, written as one in JSON and in names of files.
"""

from enum import StrEnum


class Phase(StrEnum):
    """Where a computation is."""

    INIT_RUNS = "init_runs"
    NEXT_RUN = "next_run"
    PRE_COMPUTATION = "pre_computation"
    COMPUTATION = "computation"
    NEXT_RUN_WAITING = "next_run_waiting"
    SUCCESS = "success"


class Mode(StrEnum):
    """What a site does."""

    PRE_TRAIN = "pre_train"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    VALIDATION_WAITING = "validation_waiting"
    TRAIN_WAITING = "train_waiting"


class Key(StrEnum):
    """Keys of the cache that logs and scores are kept under."""

    ARGS_CACHED = "_args_cached_"
    TRAIN_LOG = "train_log"
    TRAIN_METRICS = "train_metrics"
    TRAIN_SERIALIZABLE = "serializable_train_scores"
    VALIDATION_LOG = "validation_log"
    VALIDATION_METRICS = "validation_metrics"
    VALIDATION_SERIALIZABLE = "serializable_validation_scores"
    TEST_LOG = "test_log"
    TEST_METRICS = "test_metrics"
    TEST_SERIALIZABLE = "serializable_test_scores"
    GLOBAL_TEST_LOG = "global_test_log"
    GLOBAL_TEST_METRICS = "global_test_metrics"
    GLOBAL_TEST_SERIALIZABLE = "serializable_global_test_scores"


class AGG_Engine(StrEnum):
    """Ways of training together that the original has; any strategy of Weft's can be named as well."""

    dSGD = "dSGD"
    powerSGD = "powerSGD"
    rankDAD = "rankDAD"


class GatherMode(StrEnum):
    """How lists of several sites are joined."""

    APPEND = "gather"
    EXTEND = "extend"
