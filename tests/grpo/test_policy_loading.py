"""What must fail before time is spent, and say why: paths, tokenizers, data sets, contexts."""

import logging

import pytest
import torch
from tiny import CONTEXT, EOS, digits, tiny_config, tiny_dataset, tiny_model, tiny_tokenizer, tiny_trainer

from grpo.loading import (
    check_context,
    check_tokenizer,
    encode_prompt,
    frozen_copy,
    load_policy,
    load_tokenizer,
    stop_tokens,
)
from grpo.trainer import GRPOTrainer


@pytest.fixture
def saved(tmp_path):
    """A folder with the tiny model, in bfloat16 as bases often are, and its tokenizer."""
    folder = tmp_path / "model"
    tiny_model(dtype=torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_policy_is_loaded_in_float32(saved, tmp_path):
    policy = load_policy(saved, tiny_config(tmp_path))
    expected = tiny_model(dtype=torch.bfloat16).state_dict()
    for name, value in policy.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name].float()), name
    args = tiny_config(tmp_path, model_init_kwargs={"dtype": "bfloat16", "attn_implementation": "eager"})
    policy = load_policy(saved, args)
    assert policy.dtype == torch.bfloat16
    assert policy.config._attn_implementation == "eager"
    assert load_policy(policy, args) is policy


def test_dropout_is_turned_off_on_request(tmp_path):
    model = tiny_model()
    model.model.norm = torch.nn.Sequential(model.model.norm, torch.nn.Dropout(0.3))
    assert load_policy(model, tiny_config(tmp_path)).model.norm[1].p == 0.3
    assert load_policy(model, tiny_config(tmp_path, disable_dropout=True)).model.norm[1].p == 0


def test_a_frozen_copy_stays_behind():
    policy = tiny_model().train()
    reference = frozen_copy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 1
    assert policy.training
    assert not reference.training
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    for value, start in zip(reference.parameters(), tiny_model().parameters()):
        assert torch.equal(value, start)


@pytest.mark.parametrize("path", ["./nowhere", "/no/such/model", "~/nowhere", "runs/no-such-run/model"])
def test_a_path_that_does_not_exist_is_an_error_and_no_download(path, tmp_path):
    for load in (load_tokenizer, lambda path: load_policy(path, tiny_config(tmp_path))):
        with pytest.raises(
            ValueError, match=r"does not exist; give a folder with config.json and weights, or a Hub name"
        ):
            load(path)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer could be loaded from"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(ValueError, match="no model could be loaded from"):
        load_policy(str(tmp_path), tiny_config(tmp_path))


def test_the_trainer_takes_a_path(saved, tmp_path):
    trainer = GRPOTrainer(saved, digits, tiny_config(tmp_path, max_steps=1), tiny_dataset())
    trainer.train()
    assert trainer.processing_class.padding_side == "left"
    assert trainer.state.global_step == 1
    with pytest.raises(ValueError, match="does not exist"):
        GRPOTrainer(saved + "/gone", digits, tiny_config(tmp_path), tiny_dataset())


# ---------------------------------------------------------------- tokenizers


def test_a_tokenizer_without_an_end_token_is_an_error():
    with pytest.raises(ValueError, match=r"no end token \(eos_token\).*set tokenizer.eos_token"):
        check_tokenizer(tiny_tokenizer(eos=None))


def test_a_tokenizer_without_a_pad_token_pads_with_its_end(caplog, tmp_path):
    tokenizer = tiny_tokenizer(pad=None)
    with caplog.at_level(logging.WARNING, logger="grpo.loading"):
        check_tokenizer(tokenizer)
    assert tokenizer.pad_token_id == EOS
    assert "padding with its end token '<eos>'" in caplog.text


def test_padding_with_the_end_token_trains_the_same(tmp_path):
    """What is padding follows from lengths, not from the token."""
    weights = []
    for pad in ("<pad>", None):
        args = tiny_config(tmp_path, num_iterations=2)
        trainer = GRPOTrainer(tiny_model(), digits, args, tiny_dataset(), processing_class=tiny_tokenizer(pad=pad))
        trainer.train()
        weights.append([parameter.detach() for parameter in trainer.model.parameters()])
    for mine, other in zip(*weights):
        torch.testing.assert_close(mine, other)


def test_every_end_token_of_the_generation_settings_stops():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    assert stop_tokens(model, tokenizer) == [EOS]
    model.generation_config.eos_token_id = [5, EOS, 9]
    assert stop_tokens(model, tokenizer) == [EOS, 5, 9]
    model.generation_config.eos_token_id = None
    assert stop_tokens(model, tokenizer) == [EOS]


# ---------------------------------------------------------------- data sets


def check(dataset, max_completion_length=8):
    check_context(dataset, tiny_tokenizer(), tiny_model(), max_completion_length, "train_dataset")


def test_an_empty_prompt_is_an_error():
    with pytest.raises(ValueError, match="train_dataset: row 1 has an empty prompt"):
        check(tiny_dataset(["1+2=", ""]))


def test_prompts_must_leave_room_for_a_completion():
    prompts = ["1+2=", "9" * 50, "1" * 60]
    check(tiny_dataset(prompts), max_completion_length=CONTEXT - 60)
    with pytest.raises(ValueError, match="train_dataset: row 2 has a prompt of 60 tokens") as error:
        check(tiny_dataset(prompts), max_completion_length=20)
    assert f"with max_completion_length 20 it exceeds the model's context of {CONTEXT} tokens" in str(error.value)
    assert "lower max_completion_length to 4 or less" in str(error.value)
    assert "2 of 3 rows are too long" in str(error.value)


def test_conversations_count_with_their_template():
    conversation = [{"role": "user", "content": "1" * 50}]
    assert len(encode_prompt(tiny_tokenizer(), conversation)) == 54
    with pytest.raises(ValueError, match="prompt of 54 tokens"):
        check(tiny_dataset([conversation]), max_completion_length=CONTEXT - 53)


def test_a_data_set_needs_prompts_and_rows():
    with pytest.raises(
        ValueError, match=r"train_dataset has no `prompt` column, only \['question'\]; .*render_prompts"
    ):
        check(tiny_dataset().select_columns("prompt").rename_column("prompt", "question"))
    with pytest.raises(ValueError, match="train_dataset is empty"):
        check(tiny_dataset().select([]))


def test_the_trainer_checks_both_data_sets(tmp_path):
    bare = tiny_dataset().remove_columns("prompt")
    with pytest.raises(ValueError, match="train_dataset has no `prompt`"):
        tiny_trainer(tmp_path, dataset=bare)
    with pytest.raises(ValueError, match="eval_dataset has no `prompt`"):
        tiny_trainer(tmp_path, eval_dataset=bare)


def test_the_trainer_wants_a_weight_a_reward(tmp_path):
    with pytest.raises(ValueError, match=r"reward_weights has 2 numbers for 1 reward functions \(digits\)"):
        tiny_trainer(tmp_path, reward_weights=[1.0, 2.0])
