"""The fixtures of the lab's own tests."""

from tests.support.lab_fixture import bacula_programs, lab, make_lab, module_lab

__all__ = ["bacula_programs", "lab", "make_lab", "module_lab"]
