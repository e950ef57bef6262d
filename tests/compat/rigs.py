"""All rigs, in the order of the table's columns."""

from __future__ import annotations

from tests.compat import rigs_js, rigs_python
from tests.compat.rig import Spec

RIGS: dict[str, Spec] = {spec.name: spec for spec in (*rigs_python.SPECS, *rigs_js.SPECS)}
