"""The report of a run: one self-contained HTML file made from the files of its directory.

`reading` collects what there is; `sections`, `summary`, `curves` and `matrices` turn it into tables, words and figures
(drawn with `svg`); `page` puts them into the templates.
"""

from weft.report.notebook import Drawings, drawings, overview
from weft.report.page import write_report

__all__ = ["Drawings", "drawings", "overview", "write_report"]
