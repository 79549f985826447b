"""A stage of recipes under FSDP2 on CPUs, with the settings of an accelerate configuration:

    torchrun --nproc_per_node 2 fsdp_run.py CONFIG.yaml STAGE --config …

accelerate shards weights only where it sees GPUs; here its processes on the CPU are called that.
"""

import os
import runpy
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # in place of this folder, whose modules have names of ours

settings = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))["fsdp_config"]
os.environ |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true"}
os.environ |= {key.upper(): str(value).lower() if isinstance(value, bool) else str(value)
               for key, value in settings.items()}  # fmt: skip

import recipes  # noqa: E402, F401

# isort: split
from accelerate import state  # noqa: E402
from accelerate.utils import DistributedType  # noqa: E402

make = state.PartialState.__init__


def make_and_rename(self, *args, **kwargs):
    make(self, *args, **kwargs)
    if state.PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        state.PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


state.PartialState.__init__ = make_and_rename

stage = sys.argv[2]
sys.argv = [stage, *sys.argv[3:]]
runpy.run_module(f"recipes.{stage}", run_name="__main__", alter_sys=True)
