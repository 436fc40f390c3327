"""The fixtures that suites of this folder share."""

from tests.support.lab_fixture import bacula_programs
from tests.support.postgres import postgres

__all__ = ["bacula_programs", "postgres"]
