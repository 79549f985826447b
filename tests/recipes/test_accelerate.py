"""The recipe under launchers: the shipped accelerate configurations, `recipes` as one door, and two processes."""

import contextlib
import doctest
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from recipes import launch

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "recipes/accelerate").glob("*.yaml"))
TWO_PROCESSES = ROOT / "recipes/accelerate/cpu_two_processes.yaml"
SETTINGS = {
    "config": ROOT / "recipes/micro/r1_zero.yaml", "train_size": 24, "validation_size": 0, "eval_strategy": "no",
    "test_size": 4, "k": 2, "num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 8,
    "max_steps": 1, "save_steps": 1,
}  # fmt: skip


def recipe(model: str, output: Path, **changed) -> list[str]:
    settings = SETTINGS | {"model_name_or_path": model, "output_dir": output} | changed
    return [str(part) for name, value in settings.items() for part in (f"--{name}", value)]


def environment() -> dict[str, str]:
    """Without what a launcher of this test run may have left, on one thread a process, and on no GPU."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE_", "MASTER_", "WORLD_"))}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(*command: object) -> str:
    """What a command prints, once it has ended well."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def status(path: Path) -> dict:
    return json.loads((path / "status.json").read_text())


def check_one_run_by_two(path: Path, output: str) -> None:
    """Two ranks drew a share each of one rollout, and one of them wrote."""
    assert [folder.name for folder in path.parent.iterdir()] == [path.name]
    assert status(path)["state"] == "finished"
    (line,) = lines(path / "metrics.jsonl")
    (saved,) = path.glob("checkpoint-*")
    assert {file.name for file in saved.glob("rollouts-*")} == {"rollouts-rank0.json", "rollouts-rank1.json"}
    # Four completions a process are eight an update: four prompts of two, of the 24 that an epoch has.
    state = json.loads((saved / "rollouts-rank0.json").read_text())
    assert state["stream"]["drawn"] == 4
    assert line["epoch"] == pytest.approx(1 / 6)
    assert output.count("report: ") == 1
    assert output.count("step 1/1  reward") == 1


# --- the configurations -----------------------------------------------------------------------------------------------


PROCESSES = {
    "one_gpu": (1, 1), "two_gpus": (1, 2), "eight_gpus": (1, 8), "cpu_two_processes": (1, 2),
    "eight_gpus_fsdp": (1, 8), "several_nodes": (2, 16),
}  # fmt: skip
"""(machines, processes)"""


def test_the_configurations_are_there():
    assert {path.stem for path in CONFIGS} == PROCESSES.keys()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path):
    config = load_config_from_file(str(path))
    assert (config.num_machines, config.num_processes) == PROCESSES[path.stem]
    assert config.mixed_precision == "no"  # the recipe's own setting decides
    assert path.read_text(encoding="utf-8").startswith("#")


@pytest.mark.parametrize("name", ["eight_gpus_fsdp", "several_nodes"])
def test_sharded_configurations_are_fsdp2_as_the_trainer_needs_it(name, monkeypatch):
    """By what `accelerate launch` hands to its processes: the plugin that comes of it, and the layers it shards."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    command = ["--config_file", str(ROOT / f"recipes/accelerate/{name}.yaml"), "recipes/rl.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    environ = prepare_multi_gpu_env(args)
    for key in [key for key in os.environ if key.startswith(("ACCELERATE_", "FSDP_"))]:
        monkeypatch.delenv(key)
    for key, value in environ.items():
        if key.startswith("FSDP_"):
            monkeypatch.setenv(key, value)
    assert environ["ACCELERATE_USE_FSDP"] == "true"
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)
    assert plugin.cpu_ram_efficient_loading is False
    small = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "vocab_size": 8,
    }
    for model in (
        Qwen2ForCausalLM(Qwen2Config(**small, num_key_value_heads=1)),
        LlamaForCausalLM(LlamaConfig(**small, num_key_value_heads=1)),
    ):
        plugin = FullyShardedDataParallelPlugin()
        plugin.set_auto_wrap_policy(model)
        assert plugin.auto_wrap_policy.keywords["transformer_layer_cls"] == {type(model.model.layers[0])}


# --- launched ---------------------------------------------------------------------------------------------------------


def test_accelerate_launches_two_processes_on_a_cpu(tiny_model, tmp_path):
    path = tmp_path / "runs/run"
    launcher = ["accelerate.commands.launch", "--config_file", TWO_PROCESSES]
    output = run(*launcher, "recipes/rl.py", *recipe(tiny_model, path))
    check_one_run_by_two(path, output)


def test_accelerate_launches_the_door_and_is_found_out(tiny_model, tmp_path):
    """`recipes` is a folder with a __main__; and on a CPU, accelerate starts one process where it is asked for two."""
    path = tmp_path / "run"
    launcher = ["accelerate.commands.launch", "--cpu", "--num_processes", 2]
    output = run(*launcher, "recipes", "rl", *recipe(tiny_model, path, test_size=0))
    assert status(path)["state"] == "finished"
    assert "one process runs, though accelerate launch was asked for more" in output


@pytest.mark.slow
def test_torchrun_gives_what_accelerate_gives(tiny_model, tmp_path):
    path = tmp_path / "runs/run"
    torchrun = ["torch.distributed.run", "--nproc_per_node", 2, "--standalone"]
    output = run(*torchrun, "recipes/rl.py", *recipe(tiny_model, path))
    check_one_run_by_two(path, output)
    again = tmp_path / "again/run"
    run(*torchrun, "-m", "recipes", "rl", *recipe(tiny_model, again))
    first, second = (lines(folder / "metrics.jsonl")[0] for folder in (path, again))
    for name in ("loss", "reward", "num_tokens", "grad_norm", "completions/mean_length"):
        assert first[name] == second[name]


@pytest.mark.slow
def test_two_processes_stop_at_one_step_and_go_on(tiny_model, tmp_path):
    path = tmp_path / "runs/run"
    torchrun = ["torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "recipes", "rl"]
    command = [sys.executable, "-m", *torchrun, *recipe(tiny_model, path, max_steps=2000, save_steps=5000)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (path / "metrics.jsonl").exists():
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # torchrun hands it on to both
        output, _ = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    stopped = status(path)
    assert stopped["state"] == "interrupted", output
    step = stopped["step"]
    (saved,) = path.glob("checkpoint-*")
    assert saved.name == f"checkpoint-{step}"
    assert len(list(saved.glob("rollouts-*"))) == 2
    run(*torchrun, "--resume", *recipe(tiny_model, path, max_steps=step + 1))
    assert status(path) == {"state": "finished", "step": step + 1, "max_steps": step + 1, "error": None}
    assert [line["step"] for line in lines(path / "metrics.jsonl")] == list(range(1, step + 2))


def test_the_door_lists_its_stages():
    shown = subprocess.run([sys.executable, "recipes"], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert shown.returncode == 2
    for stage in ("rl", "measure", "report", "pretrain", "pipeline"):
        assert f"  {stage} " in shown.stdout
    assert run("recipes", "--help") == shown.stdout


# --- what launchers leave to be done ----------------------------------------------------------------------------------


@pytest.fixture
def world(monkeypatch):
    """The environment of a process that a launcher started, and the accelerator of its machine."""

    def make(accelerator: str | None = None, **variables: str) -> dict[str, str]:
        monkeypatch.setattr(os, "environ", dict(variables))
        found = torch.device(accelerator) if accelerator else None
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: found)
        return os.environ

    return make


def test_processes_are_counted(world):
    world()
    assert launch.num_launched() == 1
    world(WORLD_SIZE="4")
    assert launch.num_launched() == 4
    world(OMPI_COMM_WORLD_SIZE="3")
    assert launch.num_launched() == 3


@pytest.mark.parametrize(
    ("accelerator", "count", "told"), [(None, "2", True), ("mps", "2", True), ("cuda", "2", False), (None, "1", False)]
)
def test_processes_without_gpus_are_told_to_use_the_cpu(world, accelerator, count, told):
    env = world(accelerator, WORLD_SIZE=count)
    launch.prepare_ranks()
    assert env.get("ACCELERATE_USE_CPU") == ("true" if told else None)


def test_what_the_user_set_stays(world):
    env = world(None, WORLD_SIZE="2", ACCELERATE_USE_CPU="false")
    launch.prepare_ranks()
    assert env["ACCELERATE_USE_CPU"] == "false"


@pytest.mark.parametrize(
    ("variables", "warned"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}, True),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500", "WORLD_SIZE": "2"}, False),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, False),
        ({"MASTER_PORT": "29500"}, False),
        ({}, False),
    ],
)
def test_one_process_where_more_were_asked_for_is_said(world, caplog, variables, warned):
    world(None, **variables)
    with caplog.at_level(logging.WARNING):
        launch.prepare_ranks()
    assert ("torchrun --nproc_per_node 2" in caplog.text) == warned


def test_processes_that_are_no_group_are_an_error(world):
    world(None, WORLD_SIZE="2")
    launch.check_ranks(2)
    with pytest.raises(
        ValueError, match=r"the launcher started 2 processes and this one is in a group of 1.*--use_cpu"
    ):
        launch.check_ranks(1)


WAITS = """
import sys, torch
from grpo.config import GRPOConfig
from recipes.gathering import is_main_process

if sys.argv[1:] == ["data"]:
    is_main_process()
else:  # as on GPUs, but for the backend
    GRPOConfig(output_dir="never-written", ddp_backend="gloo", bf16=False).device
group = torch.distributed.distributed_c10d._get_default_group()
print(f"{group.size()} wait {group._get_backend(torch.device('cpu')).options._timeout.total_seconds():.0f} s")
"""


@pytest.mark.parametrize("stage", ["data", "training"])
def test_processes_wait_a_day_for_each_other(tmp_path, stage):
    """While the first measures alone, or one samples longer answers."""
    script = tmp_path / "waits.py"
    script.write_text(WAITS)
    output = run("torch.distributed.run", "--nproc_per_node", 2, "--standalone", script, stage)
    assert output.count("2 wait 86400 s") == 2


def test_every_stage_that_trains_waits_a_day_unless_it_is_told(tmp_path):
    from grpo.config import GRPOConfig
    from recipes.reward_models import RewardTrainingConfig
    from recipes.sft import SFTConfig

    for config in (GRPOConfig, SFTConfig, RewardTrainingConfig):
        assert config(output_dir=str(tmp_path), use_cpu=True).ddp_timeout == 86_400
        assert config(output_dir=str(tmp_path), use_cpu=True, ddp_timeout=900).ddp_timeout == 900


# --- one recipe for any number of processes ---------------------------------------------------------------------------


def test_an_updates_rows_are_shared_out():
    assert doctest.testmod(launch).failed == 0
    assert launch.batches_each(512, 8) == 64
    assert launch.batches_each(128, 1, 2) == 64
    for processes, rows in ((3, 1), (64, 4)):
        with pytest.raises(ValueError, match=f"global_batch_size 128 does not divide into {processes} process"):
            launch.batches_each(128, processes, rows)


@pytest.mark.slow
def test_the_global_batch_size_is_what_an_update_takes(tiny_model, tmp_path):
    """Of GRPO on two processes: four completions an update are two a process, not the recipe's four."""
    path = tmp_path / "runs/run"
    torchrun = ["torch.distributed.run", "--nproc_per_node", 2, "--standalone"]
    run(*torchrun, "-m", "recipes", "rl", *recipe(tiny_model, path, test_size=0, global_batch_size=4))
    (saved,) = path.glob("checkpoint-*")
    assert json.loads((saved / "rollouts-rank0.json").read_text())["stream"]["drawn"] == 2
