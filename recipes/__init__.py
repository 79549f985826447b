"""Short entry points, one a stage, that join data, rewards and grpo.

Settings that must stand before torch loads are made here, because every recipe imports this package first.
"""

import os

# OpenMP threads that spin on shared cores make small models tens of times slower; sleeping ones cost nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
