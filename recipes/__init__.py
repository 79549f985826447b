"""Short entry points, one a stage, that join data, rewards and grpo.

Settings that must stand before torch loads are made here, because every recipe imports this package first.
"""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # grpo.cpu says why
