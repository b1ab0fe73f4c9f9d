"""What is installed and what this machine offers, found out with the standard library alone: it works where torch and
other packages are missing or broken.
"""

from weft.actions.doctor.examining import Diagnosis, Symptom, examine, install_command, missing_of, size

__all__ = ["Diagnosis", "Symptom", "examine", "install_command", "missing_of", "size"]
