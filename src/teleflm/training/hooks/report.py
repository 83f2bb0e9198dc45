"""report.html of a run."""

import sys

from teleflm.errors import MissingExtraError
from teleflm.report.run import write_run_report
from teleflm.training.hooks.base import Hook
from teleflm.training.run import Run


class WriteReport(Hook):
    """The run as a page, at its end or where it was stopped; without the libraries, a word."""

    def on_end(self, run: Run) -> None:
        try:
            write_run_report(run.directory)
        except MissingExtraError as error:
            print(f"no report: {error}", file=sys.stderr)
