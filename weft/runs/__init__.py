"""The run directory: its layout, the history of a run, where it came from, and the table of all runs beside it."""

from weft.runs.code import code_digest, snapshot_code
from weft.runs.differences import (
    DataChange,
    Difference,
    FileChange,
    RunRecord,
    causes,
    changed_patches,
    changed_weft_files,
    code_differences,
    configuration_differences,
    data_change,
    environment_differences,
    read_record,
)
from weft.runs.directory import RunDirectory, is_run, job_run_path, new_run_path, resume_command, study_of
from weft.runs.experiments import append_experiment_row, flatten
from weft.runs.files import sweep, write_atomically
from weft.runs.jsonfiles import read_json, write_json
from weft.runs.moments import one_moment
from weft.runs.provenance import collect_provenance, git_state, packages, write_requirements
from weft.runs.secrets import mask, mask_arguments
from weft.runs.tables import TIMING_COLUMNS, History, Row, StepLog, read_rows
from weft.runs.yamlfiles import parse_yaml

__all__ = [
    "TIMING_COLUMNS",
    "DataChange",
    "Difference",
    "FileChange",
    "History",
    "Row",
    "RunDirectory",
    "RunRecord",
    "StepLog",
    "append_experiment_row",
    "causes",
    "changed_patches",
    "changed_weft_files",
    "code_differences",
    "code_digest",
    "collect_provenance",
    "configuration_differences",
    "data_change",
    "environment_differences",
    "flatten",
    "git_state",
    "is_run",
    "job_run_path",
    "mask",
    "mask_arguments",
    "new_run_path",
    "one_moment",
    "packages",
    "parse_yaml",
    "read_json",
    "read_record",
    "read_rows",
    "resume_command",
    "study_of",
    "snapshot_code",
    "sweep",
    "write_atomically",
    "write_json",
    "write_requirements",
]
