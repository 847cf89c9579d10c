"""Settings of every test."""

import os
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Calibrations of tests stay out of the user's cache.
os.environ["SCGRAFT_CACHE"] = tempfile.mkdtemp(prefix="scgraft-cache-")
sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("scgraft", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
settings.load_profile("scgraft")
