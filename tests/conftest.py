"""What holds for all tests: one thread each, and Hypothesis has no clock on a busy machine."""

import os

# Read when torch is imported, which is later. Threads of two workers that wait for each other by
# spinning cost four times the processor time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
