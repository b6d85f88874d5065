"""Small checkpoints of each family, saved by the library itself, as a user's directory."""

from tests.families.base import *  # noqa: F403
from tests.families.decoders import *  # noqa: F403
from tests.families.encoders import *  # noqa: F403
from tests.families.media import *  # noqa: F403
