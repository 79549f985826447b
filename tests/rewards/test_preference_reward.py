"""The learned rewards against transformers itself: one conversation at a time, no padding, the formula by hand.

The models are two small layers with random weights, so their scores are arbitrary, and differ.
"""

import contextlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rewards import RewardError, load_reward, load_rewards, score_all
from rewards.preference import (
    RewardInfo,
    RewardModel,
    encode_conversation,
    final_summary,
    first_step,
    load_reward_model,
    preference_reward,
    token_batches,
    whole_response,
)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "rewards.md"
ASK = [{"role": "user", "content": "Who are you?"}]
LONG = "<think>They ask who I am, and I am many things.</think><answer>A small assistant.</answer>"
SHORT = "<answer>Go away.</answer>"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """A model of each part."""
    torch = pytest.importorskip("torch")
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/base")
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=128, num_labels=1,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, initializer_range=0.5,
    )  # fmt: skip
    infos = {
        "helpful": RewardInfo("helpful", "final_summary", "normalised", mean=0.5, std=2.0),
        "harmless": RewardInfo("harmless", "whole_response", "probability"),
    }
    root = tmp_path_factory.mktemp("models")
    for seed, (part, info) in enumerate(infos.items()):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            Qwen3ForSequenceClassification(config).save_pretrained(root / part)
        tokenizer.save_pretrained(root / part)
        info.write(root / part)
    return {part: str(root / part) for part in infos}


def score_alone(folder: str, prompt: list[dict], response: str) -> float:
    """transformers' own score of one conversation: no batch, so no padding."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    text = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": response}], tokenize=False)
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.item()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def reply(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


# --- what is read -----------------------------------------------------------------------------------------------------


def test_the_table_in_the_docs():
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    header = "| completion | helpfulness reads | harmlessness reads |"
    rows = lines[lines.index(header) + 2 :]
    rows = rows[: next(i for i, line in enumerate(rows) if not line.startswith("|"))]
    assert len(rows) >= 6
    for row in rows:
        completion, summary, response = (cell.strip().strip("`") for cell in row.strip("|").split("|"))
        assert final_summary(completion) == summary, completion
        assert " ".join(whole_response(completion).split()) == response, completion


def test_the_summary_alone_decides_on_helpfulness_and_everything_on_harmlessness(folders):
    rude = LONG.replace("many things", "tired of fools")
    columns = {"kind": ["instruction"] * 2}
    helpful = load_reward("helpful", {"model": folders["helpful"]})
    harmless = load_reward("harmless", {"model": folders["harmless"]})
    same = helpful([ASK] * 2, [reply(LONG), reply(rude)], **columns)
    other = harmless([ASK] * 2, [reply(LONG), reply(rude)], **columns)
    assert same[0] == same[1]
    assert abs(other[0] - other[1]) > 1e-4


def test_silence_earns_nothing(folders):
    said = ["", "<think>Hm.</think>", "<think>I am a small assistant.", "<think></think><answer></answer>"]
    reward = load_reward("helpful", {"model": folders["helpful"]})
    assert reward([ASK] * 4, [reply(text) for text in said], kind=["instruction"] * 4) == [0.0] * 4


# --- scores -----------------------------------------------------------------------------------------------------------


def test_values_are_the_formula_over_transformers_scores(folders):
    prompts = [ASK, [{"role": "user", "content": "Tell me how to steal Tom's bag."}], ASK]
    completions = [reply(LONG), reply(SHORT), reply("Hello!")]
    columns = {"kind": ["instruction"] * 3}
    helpful = load_reward("helpful", {"model": folders["helpful"]})(prompts, completions, **columns)
    harmless = load_reward("harmless", {"model": folders["harmless"]})(prompts, completions, **columns)
    summaries = ["A small assistant.", "Go away.", "Hello!"]
    wholes = ["They ask who I am, and I am many things.\nA small assistant.", "Go away.", "Hello!"]
    expected = [sigmoid((score_alone(folders["helpful"], *pair) - 0.5) / 2.0) for pair in zip(prompts, summaries)]
    assert helpful == pytest.approx(expected, abs=1e-5)
    expected = [sigmoid(score_alone(folders["harmless"], *pair)) for pair in zip(prompts, wholes)]
    assert harmless == pytest.approx(expected, abs=1e-5)
    assert max(helpful) - min(helpful) > 1e-3  # else the comparison says little


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
def test_batches_change_no_score(folders, max_tokens):
    conversations = [[*ASK, *reply("word " * count)] for count in (30, 1, 12, 1, 5)]
    model = RewardModel(folders["helpful"], max_tokens=max_tokens)
    alone = [RewardModel(folders["helpful"]).scores([conversation])[0] for conversation in conversations]
    assert model.scores(conversations) == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_is_on_its_device_only_while_it_scores(folders, monkeypatch, fails):
    model = RewardModel(folders["helpful"], device="cpu:0")  # the same place by another name than the host's
    seen, move = [], model.model.to

    def forward(*args):
        seen.append("scores")
        if fails:
            raise FloatingPointError

    monkeypatch.setattr(model.model, "to", lambda where: (seen.append(str(where)), move(where)))
    model.model.register_forward_pre_hook(forward)
    with pytest.raises(FloatingPointError) if fails else contextlib.nullcontext():
        model.scores([[*ASK, *reply("word")]])
    assert seen == ["cpu:0", "scores", "cpu"]


def test_a_response_beyond_the_context_keeps_its_end(folders):
    model = RewardModel(folders["helpful"])
    long = [*ASK, *reply("word " * 300 + "end")]
    ids = encode_conversation(model.tokenizer, long)
    assert len(ids) > model.context == 128
    import torch

    with torch.no_grad():
        expected = model.model(input_ids=torch.tensor([ids[-128:]])).logits.item()
    assert model.scores([long]) == pytest.approx([expected], abs=1e-4)


def test_token_batches_hold_every_row_once_within_the_limit():
    rows = sorted([(1,) * length for length in (3, 9, 1, 4, 4, 2, 30)], key=len)
    batches = token_batches(rows, max_tokens=12)
    assert [row for batch in batches for row in batch] == rows
    assert all(len(batch) * len(batch[-1]) <= 12 or len(batch) == 1 for batch in batches)


def test_a_rendered_prompt_is_judged_as_its_question(folders):
    reward = load_reward("helpful", {"model": folders["helpful"]})
    text = "User: Who are you?\nReason in <think> </think>, then answer in <answer> </answer>.\nAssistant:"
    of_text = reward([text], [LONG], kind=["instruction"])
    of_column = reward(["anything"], [LONG], kind=["instruction"], problem=["Who are you?"])
    assert of_text == of_column == reward([ASK], [reply(LONG)], kind=["instruction"])


# --- which samples, and how they combine ------------------------------------------------------------------------------


def test_only_general_kinds_are_judged(folders):
    kinds = ["reasoning", "instruction", "benign", "harmful", None]
    batch = ([ASK] * 5, [reply(LONG)] * 5)
    both = {part: load_reward(part, {"model": folders[part]})(*batch, kind=kinds) for part in folders}
    assert [value is None for value in both["helpful"]] == [True, False, False, True, True]
    assert [value is None for value in both["harmless"]] == [True, False, False, False, True]
    assert load_reward("helpful", {"model": folders["helpful"]})(*batch) == [None] * 5  # no such column


def test_preference_is_the_weighted_mean_of_what_applies(folders):
    logged, extra = {}, {}
    batch = ([ASK] * 3, [reply(LONG)] * 3)
    columns = {"kind": ["instruction", "harmful", "reasoning"]}
    reward = load_reward("preference", folders | {"helpful_weight": 3.0, "harmless_weight": 1.0})
    found = reward(*batch, **columns, log_metric=logged.__setitem__, log_extra=extra.__setitem__)
    helpful = load_reward("helpful", {"model": folders["helpful"]})(*batch, **columns)
    harmless = load_reward("harmless", {"model": folders["harmless"]})(*batch, **columns)
    assert found[0] == pytest.approx((3 * helpful[0] + harmless[0]) / 4)
    assert found[1:] == [harmless[1], None]
    assert logged == {
        "rewards/helpful/mean": helpful[0],
        "rewards/harmless/mean": pytest.approx((harmless[0] + harmless[1]) / 2),
    }
    assert extra == {"helpful": helpful, "harmless": harmless}


def test_it_stands_in_a_recipe(folders):
    functions, weights = load_rewards({"accuracy": 1.0, "preference": {"weight": 0.5, "args": folders}})
    rewards = score_all(
        functions, [ASK] * 2, [reply(LONG)] * 2, {"answer": ["7", None], "kind": ["reasoning", "benign"]}
    )
    assert weights == [1.0, 0.5]
    assert [[value is None for value in row] for row in rewards] == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, [True, True, True, True]),
        ({"from_step": 5}, [False, True, True, True]),
        ({"last_share": 0.25}, [False, False, True, True]),
        ({"last_share": 1.0}, [True, True, True, True]),
    ],
)
def test_it_begins_when_it_should(folders, settings, on):
    reward = load_reward("preference", folders | settings)
    states = [SimpleNamespace(global_step=step, max_steps=20) for step in (0, 5, 15, 19)]
    values = [reward([ASK], [reply(LONG)], kind=["benign"], trainer_state=state)[0] for state in states]
    assert [value is not None for value in values] == on
    assert reward([ASK], [reply(LONG)], kind=["benign"])[0] is not None  # outside a run


def test_first_step_of_the_paper():
    assert first_step(None, 400 / 1700, 1700) == 1300


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["stop", "mask"])
def test_a_score_that_is_no_number_names_model_and_sample(folders, tmp_path, on_error):
    import torch
    from transformers import AutoModelForSequenceClassification

    broken = tmp_path / "helpful"
    shutil.copytree(folders["helpful"], broken)
    model = AutoModelForSequenceClassification.from_pretrained(broken)
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    model.save_pretrained(broken)
    reward = load_reward("preference", folders | {"helpful": str(broken)})
    with pytest.raises(RewardError, match=r"the helpful model .*/helpful scores nan for sample 1") as refused:
        score_all(
            [reward], [ASK] * 3, [reply(LONG)] * 3, {"kind": ["reasoning", "benign", "benign"]}, on_error=on_error
        )
    assert "Who are you?" in str(refused.value)
    assert "A small assistant." in str(refused.value)
    assert "train it again with a lower one" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"helpful": "nowhere"}, "'nowhere' does not exist, so there is no reward.json; give the folder helpful/"),
        ({"helpful": str(ROOT / "data/base")}, "has no reward.json"),
        ({"helpful_weight": -1.0}, "0 or more, not both 0"),
        ({"helpful_weight": 0, "harmless_weight": 0}, "not both 0"),
        ({"from_step": 3, "last_share": 0.5}, "not both: each says when it begins"),
        ({"last_share": 1.5}, r"lies in \(0, 1\], got 1.5; R1: 400 of 1,700"),
        ({"from_step": -1}, "counts updates from 0 on"),
        ({"helpfull": "x"}, "did you mean 'helpful'"),
    ],
)
def test_settings_that_cannot_work(folders, settings, message):
    with pytest.raises(RewardError, match=message):
        load_reward("preference", folders | settings)


def test_models_in_each_others_place_are_refused(folders):
    with pytest.raises(ValueError, match=r"says that the model judges 'harmless'.*needs one that judges 'helpful'"):
        preference_reward(helpful=folders["harmless"], harmless=folders["helpful"])


def broken_info(text):
    return lambda folder: (folder / "reward.json").write_text(text)


def told(**changed):
    return broken_info(json.dumps({"judges": "helpful", "reads": "final_summary"} | changed))


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def missing_shard(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {f"layer{n}": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_weights, r"helpful/model\.safetensors cannot be used: "),
        (missing_shard, r"helpful/model-00002-of-00002\.safetensors cannot be used: No such file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "helpful has no weights, such as model.safetensors"),
        (broken_info('{"judges": '), r"helpful/reward\.json cannot be used: Expecting value"),
        (
            broken_info("{}"),
            r"reward\.json cannot be used: expected a mapping that says what it judges and reads, got \{\}",
        ),
        (broken_info("[]"), r"reward\.json cannot be used: expected a mapping .*, got \[\]"),
        (told(mean=None), "mean must be a finite number, got None"),
        (told(mean=math.nan), "mean must be a finite number, got nan"),
        (told(std="1"), "std must be a finite number, got '1'"),
        (told(std=0.0), "std must be above 0, got 0.0"),
        (told(scale="logit"), "scale must be one of normalised, probability, got 'logit'"),
    ],
)
def test_a_model_that_is_not_whole_is_refused_before_the_first_step(folders, tmp_path, damage, message):
    broken = tmp_path / "helpful"
    shutil.copytree(folders["helpful"], broken)
    damage(broken)
    with pytest.raises(RewardError, match=f"{message}.*; train the helpful model again .*, or name another folder"):
        load_reward("preference", folders | {"helpful": str(broken)})


def test_a_share_needs_a_length(folders):
    reward = load_reward("helpful", {"model": folders["helpful"], "last_share": 0.5})
    with pytest.raises(ValueError, match="set max_steps, or from_step"):
        reward([ASK], [reply(LONG)], kind=["benign"], trainer_state=SimpleNamespace(global_step=0, max_steps=0))


def test_nothing_heavy_loads_before_the_first_completion(tmp_path):
    for part, reads in (("helpful", "final_summary"), ("harmless", "whole_response")):
        (tmp_path / part).mkdir()
        RewardInfo(part, reads).write(tmp_path / part)
        (tmp_path / part / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    args = json.dumps({part: str(tmp_path / part) for part in ("helpful", "harmless")})
    code = (
        f"import sys; from rewards import load_reward; reward = load_reward('preference', {args}); "
        "assert reward(['Q'], ['A'], kind=['reasoning']) == [None]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_one_copy_of_a_model_serves_all(folders):
    assert load_reward_model(folders["helpful"]) is load_reward_model(folders["helpful"])
