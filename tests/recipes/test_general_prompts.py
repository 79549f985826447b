"""General prompts among reasoning problems: who comes when, and a whole preference run with models that are random."""

import doctest
import json
import logging
from collections import Counter

import pytest
import torch
from datasets import load_from_disk
from test_rl import RECIPE, SMALL, lines, status, weights

from grpo.config import GRPOConfig, RolloutPlan
from grpo.rollouts import PromptStream
from recipes import problem_sets, rl
from recipes.hacking_alarm import HackingAlarm
from recipes.parser import parse
from recipes.problem_sets import ProblemConfig, prompt_order, training_problems, with_general_prompts
from recipes.rl import RLConfig
from recipes.run_folder import RunFolder
from rewards.preference import RewardInfo

PLAN = RolloutPlan(num_prompts=8, num_minibatches=1, num_iterations=1)


# --- the order --------------------------------------------------------------------------------------------------------


def test_reasoning_alone_comes_in_the_order_of_the_trainers_own_shuffling():
    """Rollout by rollout the same prompts; within one their places differ, which nothing depends on."""
    order = prompt_order(20, 5, num_rollouts=6, num_prompts=4, first_rollout=6, seed=3)
    drawn = [draw.index for draw in PromptStream(20, 2, seed=3).draw(24)]
    assert [sorted(order[i : i + 4]) for i in range(0, 24, 4)] == [sorted(drawn[i : i + 4]) for i in range(0, 24, 4)]


@pytest.mark.parametrize(("share", "total"), [(0.25, 16), (0.1, 6), (0.5, 32), (1.0, 64)])
def test_general_prompts_come_from_their_rollout_on_at_their_share(share, total):
    order = prompt_order(100, 7, num_rollouts=12, num_prompts=8, first_rollout=4, general_share=share, seed=0)
    general = [[row >= 100 for row in order[i : i + 8]] for i in range(0, 96, 8)]
    counts = [sum(rollout) for rollout in general]
    assert counts[:4] == [0] * 4
    assert sum(counts) == total == round(share * 64)
    assert max(counts[4:]) - min(counts[4:]) <= 1
    assert len({tuple(rollout) for rollout in general[4:]}) > 1 or share == 1.0  # places of their own
    uses = Counter(row for row in order if row >= 100)
    assert max(uses.values()) - min(uses.values(), default=0) <= 1  # every epoch goes through all of them


def test_the_seed_decides_the_order():
    orders = [prompt_order(30, 9, num_rollouts=5, num_prompts=4, seed=seed) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_docstring_examples_run():
    assert doctest.testmod(problem_sets).failed == 0


# --- the data set -----------------------------------------------------------------------------------------------------


def general_file(path, rows=12, **changed):
    """A general set as a file; half of the requests harmful."""
    kinds = ["instruction", "harmful"]
    made = [
        {"problem": f"Say {n}.", "kind": kinds[n % 2], "family": "say", "language": "en", "id": n, "answer": str(n)}
        | changed
        for n in range(rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return str(path)


def test_a_file_of_general_prompts(tmp_path):
    config = ProblemConfig(general_dataset=general_file(tmp_path / "general.jsonl"), template="chat", train_size=40)
    mixed = with_general_prompts(training_problems(config)[0], config, PLAN, max_steps=4, seed=0)
    assert len(mixed) == 32
    general = mixed.filter(lambda kind: kind != "reasoning", input_columns="kind")
    assert Counter(general["kind"]).keys() == {"instruction", "harmful"}
    assert len(general) == 8
    row = general[0]
    assert row["prompt"] == [{"role": "user", "content": row["problem"]}]
    assert row["answer"] is None  # else the accuracy reward would judge it
    reasoning = mixed.filter(lambda kind: kind == "reasoning", input_columns="kind")
    assert None not in reasoning["answer"]


def test_the_micro_worlds_general_prompts():
    config = ProblemConfig(general_dataset="micro", general_size=60, languages=["ko"], train_size=20)
    rows = problem_sets.general_prompts(config)
    assert Counter(rows["kind"]).keys() == {"instruction", "benign", "harmful"}
    assert [row["harmful"] for row in rows] == [row["kind"] == "harmful" for row in rows]
    assert rows["problem"][:] == problem_sets.general_prompts(config)["problem"][:]


@pytest.mark.parametrize(("start", "rollout"), [(0, 0), (7, 0), (9, 1), (1296, 81), (1300, 81), (1305, 82)])
def test_they_come_with_the_nearest_rollout(start, rollout):
    plan = RolloutPlan(num_prompts=512, num_minibatches=16, num_iterations=1)
    config = ProblemConfig(general_from_step=start)
    assert problem_sets.first_general_rollout(config, plan, max_steps=1700) == rollout


def test_a_reward_may_not_begin_behind_the_rollout_of_its_prompts(tmp_path):
    """Rounding may bring prompts forward; the advice is a step at which they come no earlier."""
    plan = RolloutPlan(num_prompts=512, num_minibatches=16, num_iterations=1)
    recipe = RLConfig(
        model_name_or_path="any", rewards={"accuracy": 1.0, "preference": {"args": {"last_share": 400 / 1700}}}
    )
    args = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, max_steps=1700)
    problems = ProblemConfig(general_dataset="micro", general_last_share=400 / 1700)
    with pytest.raises(ValueError, match=r"step 1300 and general prompts come from step 1296 on; .*_step: 1312, or"):
        rl.check_start(recipe, problems, args, plan)
    problems = ProblemConfig(general_dataset="micro", general_from_step=1312)
    rl.check_start(recipe, problems, args, plan)


def test_the_last_part_alone_has_them_also_where_a_rollout_serves_several_updates(tmp_path):
    config = ProblemConfig(
        general_dataset=general_file(tmp_path / "general.jsonl"), general_last_share=0.5, train_size=40, template="chat"
    )
    plan = RolloutPlan(num_prompts=8, num_minibatches=2, num_iterations=1)
    mixed = with_general_prompts(training_problems(config)[0], config, plan, max_steps=12, seed=0)
    kinds = mixed["kind"][:]
    assert len(kinds) == 6 * 8
    assert set(kinds[:24]) == {"reasoning"}  # rollouts of updates 0 to 5
    assert [sum(kind != "reasoning" for kind in kinds[i : i + 8]) for i in (24, 32, 40)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("changed", "settings", "message"),
    [
        ({"kind": "chat"}, {}, "has the kind 'chat'; expected instruction, benign, harmful"),
        ({}, {"general_share": 0.0}, r"general_share must lie in \(0, 1\], got 0.0"),
        ({}, {"max_steps": 0}, "set max_steps instead of num_train_epochs"),
        ({}, {"general_from_step": 1, "general_last_share": 0.5}, "not both: each says when it begins"),
    ],
)
def test_what_cannot_be_laid_out(tmp_path, changed, settings, message):
    steps = settings.pop("max_steps", 4)
    path = general_file(tmp_path / "general.jsonl", **changed)
    config = ProblemConfig(general_dataset=path, train_size=10, **settings)
    with pytest.raises(ValueError, match=message):
        with_general_prompts(training_problems(config)[0], config, PLAN, max_steps=steps, seed=0)


def asked(path, name, count):
    path.write_text("".join(json.dumps({"prompt": f"{name} {n}?"}) + "\n" for n in range(count)), encoding="utf-8")
    return str(path)


def test_sets_of_one_kind_each_are_mixed(tmp_path):
    sets = {"instruction": asked(tmp_path / "a.jsonl", "Tell", 30), "harmful": asked(tmp_path / "b.jsonl", "Steal", 4)}
    config = ProblemConfig(general_dataset=sets, general_size=10, template="chat")
    rows = problem_sets.general_prompts(config)
    assert Counter(rows["kind"]) == {"instruction": 10, "harmful": 4}
    assert all(row["problem"].startswith("Steal") == (row["kind"] == "harmful") for row in rows)
    assert rows[0]["prompt"] == [{"role": "user", "content": rows[0]["problem"]}]
    config = ProblemConfig(general_dataset=sets, general_split={"instruction": "train"})
    with pytest.raises(ValueError, match="general_split has no split for the kind 'harmful' of general_dataset"):
        problem_sets.general_prompts(config)
    config = ProblemConfig(general_dataset=sets["harmful"], general_split={"harmful": "train"})
    with pytest.raises(ValueError, match="has a split a kind, but general_dataset is one set"):
        problem_sets.general_prompts(config)


def test_groups_are_not_replaced_before_general_prompts_come(tmp_path):
    """The prompts drawn in their place would bring the general ones forward."""
    recipe = RLConfig(model_name_or_path="any")
    problems = ProblemConfig(general_dataset="micro", general_last_share=0.25)
    args = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, max_steps=8, refill_prompts=4)
    with pytest.raises(ValueError, match=r"refill_prompts \(4\) .* general prompts would come before step 6"):
        rl.check_start(recipe, problems, args, PLAN)
    args.refill_prompts = 0
    rl.check_start(recipe, problems, args, PLAN)
    args.refill_prompts, problems.general_last_share = 4, None
    rl.check_start(recipe, problems, args, PLAN)  # they come from the first step on


def test_a_source_without_kind_says_what_it_has(tmp_path):
    (tmp_path / "general.jsonl").write_text('{"problem": "Hi", "type": "harmful"}\n')
    config = ProblemConfig(general_dataset=str(tmp_path / "general.jsonl"))
    with pytest.raises(ValueError, match="has no column 'kind', only problem, type; a general prompt has the request"):
        problem_sets.general_prompts(config)


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reward_folders(tmp_path_factory, tiny_model):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    root = tmp_path_factory.mktemp("reward-models")
    for part, reads in (("helpful", "final_summary"), ("harmless", "whole_response")):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1).save_pretrained(root / part)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(root / part)
        RewardInfo(part, reads, std=1e-3).write(root / part)
    return {part: str(root / part) for part in ("helpful", "harmless")}


def run(tiny_model, output, rewards, **changed):
    settings = SMALL | {
        "model_name_or_path": tiny_model, "output_dir": output, "rewards": json.dumps(rewards), "test_size": 0,
        "template": "chat", "general_dataset": "micro", "general_size": 20, "general_share": 0.5, "max_steps": 4,
        "logging_steps": 1, "seed": 0,
    } | changed  # fmt: skip
    argv = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    rl.main(*parse(RLConfig, ProblemConfig, GRPOConfig, args=argv))
    return lines(output / "metrics.jsonl")


REASONING = {"test_rl:spread": {"where": {"kind": "reasoning"}}, "accuracy": {"where": {"kind": "reasoning"}}}


def test_a_run_judges_general_prompts_in_its_last_part(tiny_model, reward_folders, tmp_path):
    rewards = REASONING | {"preference": {"args": reward_folders}}
    logged = run(tiny_model, tmp_path / "run", rewards, general_last_share=0.5)
    seen = [{key for key in line if key.startswith("rewards/") and key.endswith("/mean")} for line in logged]
    learned = {f"rewards/{name}/mean" for name in ("preference", "helpful", "harmless")}
    assert [bool(learned & keys) for keys in seen] == [False, False, True, True]
    assert learned - {"rewards/helpful/mean"} <= seen[2] | seen[3]
    assert all("rewards/spread/mean" in keys for keys in seen)
    assert status(tmp_path / "run")["state"] == "finished"


def test_a_run_keeps_its_prompts_in_their_order(tiny_model, reward_folders, tmp_path, monkeypatch):
    rewards = REASONING | {"preference": {"args": reward_folders}}
    run(tiny_model, tmp_path / "run", rewards, general_last_share=0.5)
    kept = load_from_disk(str(tmp_path / "run/prompts"))
    config = ProblemConfig(general_dataset="micro", general_size=20, general_share=0.5, general_last_share=0.5,
                           template="chat", train_size=SMALL["train_size"])  # fmt: skip
    plan = RolloutPlan(num_prompts=2, num_minibatches=1, num_iterations=1)
    drawn = with_general_prompts(training_problems(config)[0], config, plan, max_steps=4, seed=0)
    for name in ("kind", "language", "id", "problem", "prompt"):
        assert kept[name][:] == drawn[name][:]
    assert kept["rollout"][:] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert set(kept["source"]) == {"micro"}
    assert set(kept["seed"]) == {0}
    for row, given in zip(kept, drawn, strict=True):
        assert row["family"] == (given["task"] if row["kind"] == "reasoning" else given["family"]) is not None
    monkeypatch.setattr(RunFolder, "save_dataset", None)  # a run that is resumed has them
    recipe = rl.settings(["--config", str(RECIPE), "--output_dir", str(tmp_path / "run"), "--resume"])
    rl.main(*recipe)
    assert load_from_disk(str(tmp_path / "run/prompts"))["id"][:] == drawn["id"][:]


def test_prompts_of_sets_of_one_kind_each_say_which_set(tmp_path):
    sets = {"instruction": asked(tmp_path / "a.jsonl", "Tell", 9), "harmful": asked(tmp_path / "b.jsonl", "Steal", 9)}
    config = ProblemConfig(general_dataset=sets, general_share=0.5, template="chat", train_size=20)
    drawn = with_general_prompts(training_problems(config)[0], config, PLAN, max_steps=3, seed=5)
    kept = problem_sets.as_drawn(drawn, config, PLAN, seed=5)
    sources = {kind: {row["source"] for row in kept if row["kind"] == kind} for kind in set(kept["kind"])}
    assert sources == {name: {path} for name, path in (sets | {"reasoning": "micro"}).items()}
    assert None not in kept["id"][:]


def test_a_reward_that_begins_after_its_prompts_is_refused(tiny_model, reward_folders, tmp_path):
    rewards = REASONING | {"preference": {"args": reward_folders | {"from_step": 3}}}
    with pytest.raises(
        ValueError, match="'preference' begins with step 3 and general prompts come from step 2 on; set"
    ):
        run(tiny_model, tmp_path / "run", rewards, general_last_share=0.5)


WATCHED = {
    "hacking_alarm": "preference", "stop_on_hacking": True, "validation_size": 30, "eval_strategy": "steps",
    "eval_steps": 10, "max_steps": 60, "num_generations_eval": 1, "save_steps": 100, "save_total_limit": 1,
}  # fmt: skip


@pytest.fixture
def hacked(tiny_model, reward_folders, monkeypatch):
    """Runs a policy with a rising preference and a falling accuracy, by the clock instead of the model."""
    monkeypatch.setattr("rewards.accuracy.accuracy_reward", falling_accuracy)
    monkeypatch.setattr("rewards.preference.LearnedReward.__call__", rising_preference)
    rewards = REASONING | {"preference": {"args": reward_folders}}
    return lambda path, **changed: run(tiny_model, path, rewards, **(WATCHED | changed))


def resume(path, *flags):
    rl.main(*rl.settings(["--config", str(RECIPE), "--output_dir", str(path), "--resume", *flags]))


def test_the_alarm_stops_a_run_that_is_hacked(hacked, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        logged = hacked(tmp_path / "run")
    ended = status(tmp_path / "run")
    assert ended["state"] == "finished"  # as it was asked to: nothing goes on from a policy that was hacked
    assert 20 <= ended["step"] < 60
    assert "the preference reward is being hacked" in ended["alarm"]
    assert (tmp_path / "run" / f"checkpoint-{ended['step']}" / "trainer_state.json").is_file()
    assert any("hacking/reward_rise" in line for line in logged)
    assert "the run stops here" in caplog.text


def test_the_model_of_a_run_that_was_stopped_is_the_one_that_the_alarm_advises(hacked, tmp_path, caplog):
    """Of step 10, where accuracy was best; the run neither kept nor would have saved it by save_steps."""
    with caplog.at_level(logging.WARNING):
        hacked(tmp_path / "run", test_size=4)
    ended = status(tmp_path / "run")
    assert ended["model_step"] == 10 < ended["step"]
    assert "; model/ holds the weights of step 10" in ended["alarm"]
    assert "model/ holds the weights of step 10, which the alarm advises" in caplog.text
    advised, last = (weights(tmp_path / "run" / f"checkpoint-{step}") for step in (10, ended["step"]))
    given = weights(tmp_path / "run/model")
    assert all(torch.equal(given[name], advised[name]) for name in given)
    assert not all(torch.equal(given[name], last[name]) for name in given)


def test_a_stopped_run_that_was_killed_before_its_end_trains_no_further(hacked, tmp_path, monkeypatch, caplog):
    hacked(tmp_path / "whole")
    with monkeypatch.context() as killed:
        killed.setattr(rl.GRPOTrainer, "save_model", save_or_break(rl.GRPOTrainer.save_model))
        with pytest.raises(RuntimeError, match="killed"):
            hacked(tmp_path / "cut")
    assert not (tmp_path / "cut/model").exists()
    monkeypatch.setattr(rl.GRPOTrainer, "train", None)  # it must not
    with caplog.at_level(logging.WARNING):
        resume(tmp_path / "cut")
    assert status(tmp_path / "cut") == status(tmp_path / "whole")
    assert "and it trains no further" in caplog.text
    whole, cut = (weights(tmp_path / name / "model") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    before = status(tmp_path / "cut")
    resume(tmp_path / "cut")  # a finished one neither
    assert status(tmp_path / "cut") == before


def save_or_break(save):
    """Checkpoints are saved, and the kill comes before model/ is."""

    def broken(self, output_dir=None, _internal_call=False):
        if not _internal_call:
            raise RuntimeError("killed")
        return save(self, output_dir, _internal_call=True)

    return broken


def test_a_run_that_was_killed_before_the_alarm_stops_where_it_would_have(hacked, tmp_path, monkeypatch):
    hacked(tmp_path / "whole")
    with monkeypatch.context() as killed:
        killed.setattr("recipes.hacking_alarm.HackingAlarm.on_evaluate", break_at(20))
        with pytest.raises(RuntimeError, match="killed"):
            hacked(tmp_path / "cut", save_steps=5)
    assert "alarm" not in status(tmp_path / "cut")
    resume(tmp_path / "cut")
    assert status(tmp_path / "cut") == status(tmp_path / "whole")
    alarms = [
        [line for line in lines(tmp_path / name / "metrics.jsonl") if "hacking/reward_rise" in line]
        for name in ("whole", "cut")
    ]
    assert [{**line, "elapsed": 0} for line in alarms[0]] == [{**line, "elapsed": 0} for line in alarms[1]]


def break_at(step):
    on_evaluate = HackingAlarm.on_evaluate

    def broken(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise RuntimeError("killed")
        return on_evaluate(self, args, state, control, **kwargs)

    return broken


def test_who_turns_the_stop_off_goes_on_and_keeps_the_alarm(hacked, tmp_path, caplog):
    hacked(tmp_path / "run")
    stopped = status(tmp_path / "run")["step"]
    with caplog.at_level(logging.WARNING):
        resume(tmp_path / "run", "--stop_on_hacking", "false", "--max_steps", "60")
    ended = status(tmp_path / "run")
    assert stopped < ended["step"] == 60
    assert "is being hacked" in ended["alarm"]
    assert "stop_on_hacking is off, so it goes on" in caplog.text
    assert "model_step" not in ended


def test_a_run_without_its_best_checkpoint_says_that_its_model_is_the_hacked_one(hacked, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("recipes.hacking_alarm.keep_best", lambda args, state, control, evaluations: None)
    with caplog.at_level(logging.ERROR):
        hacked(tmp_path / "run")
    assert "model/ holds the hacked weights of step" in caplog.text
    assert "model_step" not in status(tmp_path / "run")


def falling_accuracy(prompts, completions, trainer_state=None, **columns):
    right = 1 - trainer_state.global_step / 40
    return [float(row / len(completions) < right) for row in range(len(completions))]


def rising_preference(self, prompts, completions, kind=None, trainer_state=None, **columns):
    step = trainer_state.global_step
    return [step / 60 + row % 2 / 100 if one != "reasoning" else None for row, one in enumerate(kind)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hacking_alarm": "preference"}, "compares the rewards 'preference' and 'accuracy', and `rewards` has"),
        ({"stop_on_hacking": True}, "stop_on_hacking needs hacking_alarm"),
        ({"hacking_alarm": "accuracy"}, "looks at held-out accuracy during training: set validation_size"),
    ],
)
def test_an_alarm_that_would_never_look_is_refused(tiny_model, tmp_path, settings, message, capsys):
    with pytest.raises((ValueError, SystemExit)) as refused:
        run(tiny_model, tmp_path / "run", REASONING, general_last_share=0.5, **settings)
    said = str(refused.value) + capsys.readouterr().err
    assert message in said
