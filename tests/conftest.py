"""Settings of every test."""

import os
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Calibrations of tests stay out of the user's cache.
os.environ["SCGRAFT_CACHE"] = tempfile.mkdtemp(prefix="scgraft-cache-")
sys.path.insert(0, str(Path(__file__).parent))

# The same examples each time, so that a failure is of the commit; SCGRAFT_HYPOTHESIS=random looks for new ones.
HYPOTHESIS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "max_examples": 40}
settings.register_profile("same", derandomize=True, **HYPOTHESIS)
settings.register_profile("random", **HYPOTHESIS)
# For benchmarks/mutants.py, which asks whether a test fails, not on which smallest example.
settings.register_profile("mutants", derandomize=True, phases=[Phase.explicit, Phase.generate], **HYPOTHESIS)
settings.load_profile(os.environ.get("SCGRAFT_HYPOTHESIS", "same"))
