"""Looking before leaping: `check` examines an experiment with its data, `test_model` a network; nothing is trained or
written.
"""

from weft.actions.checking.checks import check
from weft.actions.checking.findings import CheckReport, Finding, Findings
from weft.actions.checking.model_tests import ModelReport, ModelTest, test_model

__all__ = ["CheckReport", "Finding", "Findings", "ModelReport", "ModelTest", "check", "test_model"]
