"""Makes the modules of deploy/monitoring importable, as they are for their scripts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "deploy/monitoring"))
