"""A whole training step against the paper in plain loops, against TRL's trainer, and what must not change it."""

import copy
import json
import math
import threading
import time

import pytest
import torch
from references import scalar_advantages, scalar_correction, scalar_process_advantages
from tiny import EOS, PAD, digits, metrics_of, tiny_config, tiny_dataset, tiny_model, tiny_tokenizer
from transformers import TrainerCallback

from grpo.loss import CORRECTION_MODES
from grpo.rollouts import Group, PromptStream
from grpo.sampling import Sampler
from grpo.trainer import GRPOTrainer
from rewards import RewardError, StepRewards

# ---------------------------------------------------------------- the paper in plain loops


def token_logprobs(model, prompt_ids, token_ids, temperature=1.0, kept_ids=None):
    """[T] log-probs in nats of a completion's tokens, by one unpadded forward pass; kept_ids: among those alone."""
    every = distributions(model, prompt_ids, token_ids, temperature)
    logprobs = every[range(len(token_ids)), token_ids]
    if kept_ids is None:
        return logprobs
    kept = [sum(row[v].exp() for v in ids if v >= 0) for row, ids in zip(every, kept_ids.tolist())]
    return logprobs - torch.stack(kept).log()


def distributions(model, prompt_ids, token_ids, temperature=1.0):
    """[T, V] log-probs in nats of every token at each place of a completion."""
    logits = model(torch.tensor([prompt_ids + token_ids])).logits[0, len(prompt_ids) - 1 : -1]
    return (logits / temperature).log_softmax(-1)


def paper_loss(policy, old, reference, groups, rewards, num_minibatches, args, process=None, live=None):
    """DeepSeekMath eq. 3 and 4 over the first update of a rollout, a token at a time; models in float64.

    groups, rewards: those of the whole rollout, rewards as rows of floats or None. Updates take every n-th group.
    process: by group, completion and token what is added to the advantage of the completion; live: where any reward,
    of steps or of the whole, applies.
    """
    judged = [[r is not None for r in row] for row in rewards]
    live = live or judged
    numbers = [[r or 0.0 for r in row] for row in rewards]
    advantages = scalar_advantages(numbers, args.scale_rewards, judged, baseline=args.advantage_baseline)
    high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    update = range(0, len(groups), num_minibatches)
    loss = bonus = 0.0
    for g, c in trained_completions(groups, live, update, args):
        prompt, tokens = groups[g].prompt_ids, groups[g].completions[c].token_ids
        kept = groups[g].completions[c].kept_ids
        now, before, frozen = (
            token_logprobs(m, prompt, tokens, args.temperature, kept) for m in (policy, old, reference)
        )
        log_ratio = now - before.detach()
        if args.importance_sampling_level == "sequence":
            log_ratio = log_ratio.mean().expand(len(tokens))
        weight = [1.0] * len(tokens)
        if args.vllm_importance_sampling_correction:
            sampled = groups[g].completions[c].logprobs
            bounds = args.vllm_importance_sampling_clip_min, args.vllm_importance_sampling_clip_max
            (weight,) = scalar_correction(
                [before.tolist()], [sampled], [[True] * len(tokens)], args.vllm_importance_sampling_mode, *bounds
            )
        row = 0.0
        for t in range(len(tokens)):
            advantage = advantages[g][c] + (process[g][c][t] if process else 0.0)
            unclipped = log_ratio[t].exp() * advantage
            clipped = log_ratio[t].exp().clamp(1 - args.epsilon, 1 + high) * advantage
            row = row - weight[t] * (unclipped if unclipped.item() < clipped.item() else clipped)
            if args.beta:
                log_ref = frozen[t].detach() - now[t]
                row = row + args.beta * (log_ref.exp() - log_ref - 1)
        loss = loss + (row / len(tokens) if args.loss_type == "grpo" else row)
        if args.entropy_coef:
            every = distributions(policy, prompt, tokens, args.temperature)
            bonus = bonus - args.entropy_coef * (every.exp() * every).sum()
    num_rows = sum(len(groups[g].completions) for g in update)
    return (
        loss
        / {
            "grpo": num_rows,
            "dr_grpo": num_rows * args.max_completion_length,
            "bnpo": num_trained_tokens(groups, live, update, args),
            "dapo": num_trained_tokens(groups, live, range(len(groups)), args) / num_minibatches,
        }[args.loss_type]
    ) - bonus / num_trained_tokens(groups, live, update, args)


def trained_completions(groups, live, update, args):
    return [
        (g, c)
        for g in update
        for c, completion in enumerate(groups[g].completions)
        if live[g][c] and not (args.mask_truncated_completions and completion.truncated)
    ]


def num_trained_tokens(groups, live, update, args):
    return sum(len(groups[g].completions[c].token_ids) for g, c in trained_completions(groups, live, update, args))


def nudged(model, seed, by=0.02):
    """A copy of a model in float64 with a little noise on every weight; only values, so that hooks stay behind."""
    other = tiny_model(dtype=torch.float64)
    other.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for parameter in other.parameters():
        parameter.data += by * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return other


def exact(model):
    return nudged(model, seed=0, by=0.0)


def gradient_of(model):
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([grad.double().flatten() for grad in grads])


def relative_error(value, expected):
    return ((value - expected).norm() / expected.norm()).item()


def step_with_moved_policy(trainer, change=None):
    """One training_step whose reference, old and current policy all differ: (loss, gradient, the three models).

    change(groups) may alter what was sampled, before the update."""
    reference = exact(trainer.model)  # the frozen copy was made with the trainer
    old = nudged(trainer.model, seed=1)
    trainer.model.load_state_dict(old.state_dict())
    trainer.buffer.next()  # samples, scores, and keeps the log-probs of old and reference
    if change is not None:
        change(trainer.buffer.groups)
    policy = nudged(trainer.model, seed=2)
    trainer.model.load_state_dict(policy.state_dict())
    loss = trainer.training_step(trainer.model, {})
    return loss.item(), gradient_of(trainer.model), (policy, old, reference)


def sometimes_none(prompts, completions, completion_ids, **columns):
    """No reward for completions that begin with an even token; digits for the others."""
    shares = digits(prompts, completions)
    return [None if ids[0] % 2 == 0 else share for ids, share in zip(completion_ids, shares)]


def constant(prompts, completions, **columns):
    return [0.5] * len(completions)


@pytest.mark.parametrize(
    ("settings", "reward"),
    [
        ({"loss_type": "dapo"}, digits),
        ({"loss_type": "dapo", "epsilon": 0.02, "epsilon_high": 0.03}, digits),
        ({"loss_type": "dapo", "steps_per_generation": 2, "beta": 0.1}, digits),
        ({"loss_type": "grpo", "beta": 0.1, "temperature": 0.7}, digits),
        ({"loss_type": "grpo", "mask_truncated_completions": True, "scale_rewards": "none"}, digits),
        ({"loss_type": "bnpo", "beta": 0.1, "scale_rewards": "batch"}, sometimes_none),
        ({"loss_type": "dr_grpo", "importance_sampling_level": "sequence", "temperature": 1.3}, digits),
        ({"loss_type": "dapo", "beta": 0.2, "mask_truncated_completions": True}, sometimes_none),
        ({"loss_type": "bnpo", "beta": 0.3}, constant),
        ({"loss_type": "grpo", "advantage_baseline": "leave_one_out", "scale_rewards": "none"}, sometimes_none),
        ({"loss_type": "grpo", "entropy_coef": 0.3, "temperature": 0.7}, sometimes_none),
        ({"beta": 0.1, "temperature": 0.7, "keep_sampling_mask": True, "top_k": 5, "top_p": 0.8}, digits),
        ({"entropy_coef": 0.1, "keep_sampling_mask": True, "top_k": 3, "share_prompts": False}, digits),
        ({"loss_type": "dapo", "entropy_coef": 0.3}, constant),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value.__name__,
)
def test_a_step_is_the_paper_s_formula(make_trainer, settings, reward):
    trainer = make_trainer(rewards=reward, num_iterations=2, max_tokens_per_pack=30, **settings)
    loss, gradient, (policy, old, reference) = step_with_moved_policy(trainer)
    groups = trainer.buffer.groups
    ids = [[c.token_ids for c in group.completions] for group in groups]
    rewards = [reward([None] * 4, group.texts, completion_ids=row) for group, row in zip(groups, ids)]
    expected = paper_loss(policy, old, reference, groups, rewards, trainer.plan.num_minibatches, trainer.args)
    expected.backward()
    assert gradient_of(policy).norm() > 1e-3
    assert loss == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert relative_error(gradient, gradient_of(policy)) < 1e-4


def halves(prompts, completions, completion_ids, **columns):
    """A step every third token and at the end, worth more the larger its last token is; none after an odd start."""

    def judged(ids):
        ends = sorted({*range(2, len(ids), 3), len(ids) - 1})
        return None if ids[0] % 2 else StepRewards(ends, [ids[end] / 10 for end in ends])

    return [judged(ids) for ids in completion_ids]


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
@pytest.mark.parametrize("outcome", [[digits], [sometimes_none], []], ids=["digits", "sometimes_none", "alone"])
def test_rewards_of_steps_are_the_paper_s_process_supervision(make_trainer, outcome, loss_type):
    weights = [1.0] * len(outcome) + [0.4]
    trainer = make_trainer(
        rewards=[*outcome, halves], reward_weights=weights, num_iterations=2, beta=0.1, loss_type=loss_type,
        max_tokens_per_pack=30,
    )  # fmt: skip
    loss, gradient, (policy, old, reference) = step_with_moved_policy(trainer)
    groups = trainer.buffer.groups
    process, rewards, live = [], [], []
    for group in groups:
        ids = [c.token_ids for c in group.completions]
        judged = halves([None] * 4, group.texts, completion_ids=ids)
        steps = [(some.ends, some.rewards) if some else ((), ()) for some in judged]
        values = scalar_process_advantages(steps, [len(row) for row in ids])
        process.append([[0.4 * value for value in row] for row in values])
        rewards.append(outcome[0]([None] * 4, group.texts, completion_ids=ids) if outcome else [None] * 4)
        live.append([reward is not None or some is not None for reward, some in zip(rewards[-1], judged)])
        assert group.live == live[-1]
        assert group.rewards["halves"] == [some and sum(some.rewards) / len(some.rewards) for some in judged]
        assert Group.from_json(json.loads(json.dumps(group.to_json()))).token_advantages == group.token_advantages
    expected = paper_loss(
        policy, old, reference, groups, rewards, trainer.plan.num_minibatches, trainer.args, process, live
    )
    expected.backward()
    assert any(value for group in process for row in group for value in row)
    assert loss == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert relative_error(gradient, gradient_of(policy)) < 1e-4


@pytest.mark.parametrize("mode", CORRECTION_MODES)
def test_a_sampler_that_differs_is_corrected_for(make_trainer, mode):
    """Its log-probs are moved after sampling, so that they are no longer the trainer's."""
    trainer = make_trainer(
        num_iterations=2, beta=0.1, max_tokens_per_pack=30, vllm_importance_sampling_correction=True,
        vllm_importance_sampling_mode=mode, vllm_importance_sampling_clip_min=0.5,
        vllm_importance_sampling_clip_max=1.3,
    )  # fmt: skip
    noise = torch.Generator().manual_seed(7)

    def change(groups):
        for completion in (c for group in groups for c in group.completions):
            drift = 0.3 * torch.randn(len(completion.logprobs), generator=noise)
            completion.logprobs[:] = (torch.tensor(completion.logprobs) + drift).tolist()

    loss, gradient, (policy, old, reference) = step_with_moved_policy(trainer, change)
    groups = trainer.buffer.groups
    rewards = [digits(None, group.texts) for group in groups]
    expected = paper_loss(policy, old, reference, groups, rewards, trainer.plan.num_minibatches, trainer.args)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert relative_error(gradient, gradient_of(policy)) < 1e-4
    assert trainer._sums["sampling/sampling_logp_difference/mean"] > 0.1


def test_the_sampler_is_corrected_for_where_it_computes_otherwise(make_trainer):
    """Where that is asked for; with a sampler that is the trainer's equal the log-probs agree."""
    cases = {
        "plain": {},
        "asked": {"vllm_importance_sampling_correction": True},
        "mixed": {"bf16": True, "vllm_importance_sampling_correction": True},
    }
    groups, difference = None, {}
    for name, settings in cases.items():
        _, trainer = one_sgd_step(make_trainer, name, groups, **settings)
        groups = groups or trainer.buffer.groups
        difference[name] = metrics_of(trainer)[0].get("sampling/sampling_logp_difference/mean")
        assert trainer.loss_config.vllm_importance_sampling_correction is (name != "plain")
    assert difference["plain"] is None
    assert difference["asked"] < 1e-5 < 1e-3 < difference["mixed"] < 0.1


@pytest.mark.parametrize("kept", [False, True])
def test_a_cut_distribution_is_compared_as_it_was_sampled(make_trainer, kept):
    """With the mask the log-probs are those of what sampling chose from: of few tokens, so larger ones."""
    trainer = make_trainer(
        max_steps=2, num_iterations=2, top_k=3, keep_sampling_mask=kept, vllm_importance_sampling_correction=True
    )
    start = exact(trainer.model)
    trainer.train()
    lines = metrics_of(trainer)
    assert lines[0]["ratio/mean"] == pytest.approx(1, abs=1e-6)
    assert lines[0]["sampling/sampling_logp_difference/mean"] < 1e-5, "the sampler means the same distribution"
    for group in trainer.buffer.groups:
        for c in range(len(group.completions)):
            whole = torch.tensor(logprobs_of(start, group, c, 1.0))
            assert (torch.tensor(group.old_logprobs[c]) > whole + 1e-3).all() == kept


def test_the_clip_cases_do_clip(make_trainer):
    """Else the second case above would say nothing about clipping."""
    trainer = make_trainer(num_iterations=2, epsilon=0.02, epsilon_high=0.03)
    step_with_moved_policy(trainer)
    assert trainer._sums["clip_ratio/low_mean"] > 0.05 < trainer._sums["clip_ratio/high_mean"]


# ---------------------------------------------------------------- TRL's trainer on the same completions


@pytest.mark.parametrize("settings", [{"loss_type": "dapo"}, {"loss_type": "grpo", "beta": 0.1, "temperature": 0.7}])
def test_a_step_is_trl_s(make_trainer, tmp_path, settings):
    """The same model, completions and advantages through GRPOTrainer of TRL: log-probs, loss and gradient."""
    import trl

    trainer = make_trainer(num_iterations=2, **settings)
    loss, gradient, (policy, old, reference) = step_with_moved_policy(trainer)
    args = trl.GRPOConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to="none", num_generations=4,
        per_device_train_batch_size=8, max_completion_length=8, use_bias_correction_kl=False,
        gradient_checkpointing=False, **settings | {"beta": 0.0},
    )  # fmt: skip
    model = tiny_model()
    model.load_state_dict(policy.state_dict())
    theirs = trl.GRPOTrainer(model, digits, args, tiny_dataset(), processing_class=tiny_tokenizer())
    rows = [(g, c) for g in trainer.buffer.groups for c in range(4)]
    prompt_length = max(len(g.prompt_ids) for g, _ in rows)
    inputs = {
        "prompt_ids": torch.tensor([[0] * (prompt_length - len(g.prompt_ids)) + g.prompt_ids for g, _ in rows]),
        "prompt_mask": torch.tensor(
            [[0] * (prompt_length - len(g.prompt_ids)) + [1] * len(g.prompt_ids) for g, _ in rows]
        ),
        "completion_ids": padded([g.completions[c].token_ids for g, c in rows]),
        "completion_mask": padded([[1] * len(g.completions[c].token_ids) for g, c in rows]),
        "old_per_token_logps": padded([logprobs_of(old, g, c, args.temperature) for g, c in rows]),
        "ref_per_token_logps": padded([logprobs_of(reference, g, c, args.temperature) for g, c in rows]),
        "advantages": torch.tensor([g.advantages[c] for g, c in rows]),
        "num_items_in_batch": torch.tensor(sum(len(g.completions[c].token_ids) for g, c in rows)),
    }
    theirs.beta = trainer.args.beta  # set late, as it would load the reference from a path
    theirs.current_gradient_accumulation_steps = 1
    their_loss = theirs._compute_loss(theirs.model, inputs)
    their_loss.backward()
    assert loss == pytest.approx(their_loss.item(), rel=1e-4, abs=1e-6)
    assert relative_error(gradient, gradient_of(theirs.model)) < 1e-4


def padded(rows):
    width = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


@torch.no_grad()
def logprobs_of(model, group, completion, temperature):
    return token_logprobs(model, group.prompt_ids, group.completions[completion].token_ids, temperature).tolist()


# ---------------------------------------------------------------- groups that teach nothing


def test_equal_rewards_give_no_policy_gradient(make_trainer):
    trainer = make_trainer(rewards=constant, skip_equal_groups=False, num_iterations=2)
    loss, gradient, _ = step_with_moved_policy(trainer)
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient)), "of the packs that were run all the same"


def digits_of_even_prompts(prompts, completions, number, **columns):
    """Every second problem gives all of its completions the same reward."""
    return [share if n % 2 == 0 else 1.0 for share, n in zip(digits(prompts, completions), number)]


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "bnpo", "dr_grpo"])
def test_leaving_out_equal_groups_changes_no_gradient(make_trainer, loss_type):
    results, tokens = [], []
    for skip in (True, False):
        trainer = make_trainer(
            f"skip-{skip}", rewards=digits_of_even_prompts, skip_equal_groups=skip, loss_type=loss_type,
            shuffle_dataset=False, num_iterations=2,
        )  # fmt: skip
        forwards = counted_tokens(trainer)
        trainer.buffer.next()
        forwards.clear()  # those of the old log-probs
        loss, gradient, _ = step_with_moved_policy(trainer)
        assert [group.teaches for group in trainer.buffer.groups] == [True, False]
        results.append((loss, gradient))
        tokens.append(sum(forwards))
    assert tokens[0] < 0.7 * tokens[1], "and saves the time"
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert relative_error(results[0][1], results[1][1]) < 1e-6


def counted_tokens(trainer):
    """A list that grows by the tokens of every forward pass with gradients."""
    forwards = []

    def hook(module, args, kwargs):
        if torch.is_grad_enabled():
            forwards.append(kwargs["input_ids"].numel())

    trainer.model.register_forward_pre_hook(hook, with_kwargs=True)
    return forwards


def test_a_rollout_without_anything_to_learn_is_a_step_like_any_other(make_trainer):
    """Every reward equal; and, after the first step, none at all: finite metrics, and the weights stay."""

    def equal_then_none(prompts, completions, **columns):
        return [1.0 if columns["trainer_state"].global_step == 0 else None] * len(completions)

    for reward in (constant, equal_then_none):
        trainer = make_trainer(rewards=reward, max_steps=2, weight_decay=0.0)
        before = exact(trainer.model).state_dict()
        trainer.train()
        assert all(torch.equal(value.double(), before[name]) for name, value in trainer.model.state_dict().items())
        lines = metrics_of(trainer)
        assert len(lines) == 2
        assert all(math.isfinite(value) for line in lines for value in line.values())
        for line in lines:
            assert line["loss"] == line["grad_norm"] == 0
            assert line["frac_reward_zero_std"] == 1
        assert [line["frac_masked"] for line in lines] == [0, 0 if reward is constant else 1]


# ---------------------------------------------------------------- what an update compares with


def test_packs_of_any_size_give_the_same_step(make_trainer):
    results = []
    for max_tokens in (1, 40, 10_000):
        trainer = make_trainer(f"pack-{max_tokens}", max_tokens_per_pack=max_tokens, num_iterations=2, beta=0.1)
        results.append(step_with_moved_policy(trainer)[:2])
    for loss, gradient in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        assert relative_error(gradient, results[0][1]) < 1e-5


@pytest.mark.parametrize("settings", [{"num_iterations": 3}, {"steps_per_generation": 2}])
def test_old_logprobs_are_those_at_sampling(make_trainer, settings):
    updates = settings.get("num_iterations", 1) * settings.get("steps_per_generation", 1)
    trainer = make_trainer(max_steps=updates, temperature=0.7, **settings)
    start = exact(trainer.model)
    trainer.train()
    lines = metrics_of(trainer)
    assert len(lines) == updates
    assert lines[0]["ratio/mean"] == pytest.approx(1, abs=1e-6)
    assert abs(lines[-1]["ratio/mean"] - 1) > 1e-4, "the policy did move"
    assert trainer.stream.drawn == trainer.plan.num_prompts == 2 * settings.get("steps_per_generation", 1)
    for group in trainer.buffer.groups:
        for c, completion in enumerate(group.completions):
            expected = logprobs_of(start, group, c, 0.7)
            assert group.old_logprobs[c] == pytest.approx(expected, abs=2e-5)
            assert completion.logprobs == pytest.approx(expected, abs=2e-5), "and those that the sampler saw"


def test_one_update_a_rollout_needs_no_old_logprobs(make_trainer):
    trainer = make_trainer(max_steps=1)
    trainer.train()
    assert all(group.old_logprobs is None and group.ref_logprobs is None for group in trainer.buffer.groups)
    assert metrics_of(trainer)[0]["ratio/mean"] == 1


class Snapshots(TrainerCallback):
    """The weights after every step; steps count from 1, and 0 is the start."""

    def __init__(self, model):
        self.steps = [copy.deepcopy(model.state_dict())]

    def on_step_end(self, args, state, control, model, **kwargs):
        self.steps.append(copy.deepcopy(model.state_dict()))


@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_the_reference_is_refreshed_every_n_steps(make_trainer, alpha):
    """alpha 1, R1's: the policy of that step replaces it; below, a mixture."""
    trainer = make_trainer(
        max_steps=5, beta=0.05, sync_ref_model=True, ref_model_sync_steps=2, ref_model_mixup_alpha=alpha
    )
    policies = Snapshots(trainer.model)
    trainer.add_callback(policies)
    trainer.train()
    expected = policies.steps[0]
    for step in (2, 4):
        expected = {name: (1 - alpha) * expected[name] + alpha * value for name, value in policies.steps[step].items()}
    for name, value in trainer.reference.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    kl = [line["kl"] for line in metrics_of(trainer)]
    assert kl[0] == pytest.approx(0, abs=1e-7)
    assert kl[1] > 1e-5
    if alpha == 1:
        assert kl[2] == pytest.approx(0, abs=1e-7), "measured against the policy that it is"
    assert kl[3] > 1e-5


def test_without_a_refresh_the_reference_is_the_start(make_trainer):
    trainer = make_trainer(max_steps=3, beta=0.05)
    start = exact(trainer.model)
    trainer.train()
    for group in trainer.buffer.groups:
        for c in range(len(group.completions)):
            assert group.ref_logprobs[c] == pytest.approx(logprobs_of(start, group, c, 1.0), abs=2e-5)


def test_beta_0_loads_no_reference(make_trainer):
    assert make_trainer().reference is None


# ---------------------------------------------------------------- rewards


def test_rewards_follow_trl_s_protocol(make_trainer):
    calls = []

    def reward(prompts, completions, completion_ids, number, answer, **columns):
        calls.append((prompts, completions, completion_ids, number, answer))
        return digits(prompts, completions)

    data = tiny_dataset(answer=[f"gold {i}" for i in range(6)])
    trainer = make_trainer(rewards=reward, dataset=data)
    groups = trainer.buffer.next()
    (prompts, completions, completion_ids, number, answer), = calls  # fmt: skip
    assert len(prompts) == 8
    assert completions == [text for group in groups for text in group.texts]
    assert completion_ids == [c.token_ids for group in groups for c in group.completions]
    assert [data["prompt"][n] for n in number] == prompts
    assert answer == [f"gold {n}" for n in number]
    for group in groups:
        for text, completion in zip(group.texts, group.completions):
            assert text == tiny_tokenizer().decode([t for t in completion.token_ids if t not in (EOS, PAD)])


def test_rewards_are_weighted_and_none_counts_for_nothing(make_trainer):
    def length(prompts, completions, **columns):
        return [float(len(text)) for text in completions]

    trainer = make_trainer(rewards=[sometimes_none, length], reward_weights=[2.0, 0.1], max_steps=1)
    trainer.train()
    applied = []
    for group in trainer.buffer.groups:
        ids = [c.token_ids for c in group.completions]
        shares = sometimes_none([None] * 4, group.texts, ids)
        applied += [share for share in shares if share is not None]
        totals = [(2 * share if share is not None else 0) + 0.1 * len(text) for share, text in zip(shares, group.texts)]
        assert group.totals == pytest.approx(totals)
        assert group.live == [True] * 4
        assert group.advantages == pytest.approx(scalar_advantages([totals])[0])
    assert 0 < len(applied) < 8
    (line,) = metrics_of(trainer)
    assert line["rewards/sometimes_none/mean"] == pytest.approx(sum(applied) / len(applied))
    totals = [total for group in trainer.buffer.groups for total in group.totals]
    assert line["reward"] == pytest.approx(sum(totals) / 8)


def test_conversations_go_through_the_chat_template(make_trainer):
    seen = []

    def reward(prompts, completions, **columns):
        seen.append((prompts, completions))
        return digits(prompts, completions)

    conversations = [[{"role": "user", "content": "1+2"}], [{"role": "user", "content": "9"}]]
    trainer = make_trainer(rewards=reward, dataset=tiny_dataset(conversations), shuffle_dataset=False)
    groups = trainer.buffer.next()
    for group, text in zip(groups, ("u:1+2a:", "u:9a:")):
        assert group.prompt_ids == tiny_tokenizer()(text)["input_ids"]
    prompts, completions = seen[0]
    assert prompts == [conversations[0]] * 4 + [conversations[1]] * 4
    assert completions == [[{"role": "assistant", "content": text}] for group in groups for text in group.texts]


class Flaky:
    """A reward that misbehaves on its second call."""

    __name__ = "flaky"

    def __init__(self, misbehave):
        self.misbehave, self.calls, self.prompts = misbehave, 0, []

    def __call__(self, prompts, completions, **columns):
        self.calls += 1
        self.prompts.append(prompts)
        return self.misbehave(completions) if self.calls == 2 else digits(prompts, completions)


def divides_by_zero(completions):
    return 1 / 0


@pytest.mark.parametrize(
    ("misbehave", "error", "message"),
    [
        (divides_by_zero, RewardError, "reward 'flaky' raised ZeroDivisionError"),
        (lambda completions: [1.0], RewardError, "returned 1 values for 8 completions"),
        (lambda completions: [float("nan")] * 8, RewardError, "returned nan for sample 0"),
    ],
)
def test_a_reward_that_fails_costs_no_prompts(make_trainer, misbehave, error, message):
    reward = Flaky(misbehave)
    trainer = make_trainer(rewards=reward, max_steps=3)
    with pytest.raises(error, match=message):
        trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.stream.drawn == 2, "the prompts of the step that failed come again"
    assert trainer.buffer.used == trainer.plan.num_updates
    trainer.buffer.next()
    assert reward.prompts[-1] == reward.prompts[1] != reward.prompts[0]


def test_an_interrupt_while_sampling_costs_no_prompts(make_trainer, monkeypatch):
    trainer = make_trainer()

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("grpo.sampling.Sampler.sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    expected = PromptStream(6, 4, trainer.args.seed).draw(2)
    assert trainer.stream.drawn == 0
    assert [group.row["number"] for group in trainer.buffer.next()] == [draw.index for draw in expected]


# ---------------------------------------------------------------- the same by other means


def one_sgd_step(make_trainer, folder, groups=None, **settings):
    """Weights before minus after one plain gradient step of size 1, over these groups, and the trainer."""
    trainer = make_trainer(folder, max_steps=1, optim="sgd", learning_rate=1.0, max_grad_norm=0.0, **settings)
    if groups is not None:
        trainer.sample = lambda *args: copy.deepcopy(groups)
    before = exact(trainer.model)
    trainer.train()
    after = exact(trainer.model)
    moved = [a.data - b.data for a, b in zip(before.parameters(), after.parameters())]
    return torch.cat([value.flatten() for value in moved]), trainer


def test_gradient_checkpointing_changes_nothing(make_trainer):
    plain, first = one_sgd_step(make_trainer, "plain", beta=0.1)
    saved, second = one_sgd_step(make_trainer, "saved", beta=0.1, gradient_checkpointing=True)
    assert second.model.is_gradient_checkpointing > first.model.is_gradient_checkpointing
    assert plain.norm() > 1e-2
    assert relative_error(saved, plain) < 1e-6


def test_bf16_mixed_precision_is_close(make_trainer):
    full, trainer = one_sgd_step(make_trainer, "full")
    half, mixed = one_sgd_step(make_trainer, "half", groups=trainer.buffer.groups, bf16=True)
    assert all(p.dtype == torch.float32 for p in mixed.model.parameters()), "the weights stay in float32"
    assert 1e-4 < relative_error(half, full) < 0.1, "bfloat16 was used, and it rounds"


@pytest.mark.parametrize("cast", [False, True])
def test_the_head_is_computed_in_float32_on_request(make_trainer, cast):
    """Of both models: the log-probs are those of a float32 projection of the layers' bfloat16 output."""
    _, full = one_sgd_step(make_trainer, "full")
    settings = {"bf16": True, "beta": 0.1, "temperature": 0.7, "cast_lm_head_to_fp32": cast}
    _, trainer = one_sgd_step(make_trainer, "half", full.buffer.groups, **settings)
    groups = trainer.buffer.groups
    for model, name in ((trainer.model, "old_logprobs"), (trainer.reference, "ref_logprobs")):
        seen = []
        hook = model.model.register_forward_hook(lambda *call, seen=seen: seen.append(call[-1].last_hidden_state))
        trainer.keep_logprobs(model, groups, name)
        hook.remove()
        errors = []
        for pack, hidden in zip(trainer.pack_all(groups), seen, strict=True):
            logprobs = (hidden.float() @ model.lm_head.weight.T / 0.7).log_softmax(-1)
            exact_ones = pack.by_completion(logprobs.gather(-1, pack.labels.clamp(min=0)[..., None])[..., 0])
            for (g, c), row, scored in zip(pack.places, exact_ones, pack.scored):
                errors.append((torch.tensor(getattr(groups[g], name)[c]) - row[scored]).abs().max().item())
        assert (max(errors) < 1e-5) == cast


def test_training_raises_the_reward(make_trainer):
    """From half of the characters digits to nearly all, in 40 steps."""
    trainer = make_trainer(max_steps=40, learning_rate=3e-3, num_generations=8, per_device_train_batch_size=32)
    trainer.train()
    reward = [line["reward"] for line in metrics_of(trainer)]
    assert sum(reward[:3]) / 3 < 0.55
    assert sum(reward[-3:]) / 3 > 0.85


# ---------------------------------------------------------------- evaluation


def test_evaluate_gives_the_mean_rewards(make_trainer):
    data = tiny_dataset(["1+1=", "22-9=", "5="])
    trainer = make_trainer(eval_dataset=data, num_generations_eval=2, eval_temperature=1e-4)
    metrics = trainer.evaluate()
    rewards, lengths = [], []
    for prompt in data["prompt"]:
        ids = torch.tensor([tiny_tokenizer()(prompt)["input_ids"]])
        mask = torch.ones_like(ids)
        output = tiny_model().generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        rewards += digits(None, [tiny_tokenizer().decode(output, skip_special_tokens=True)])
        lengths.append(len(output))
    assert metrics["eval_greedy/digits"] == pytest.approx(sum(rewards) / 3)
    assert metrics["eval_rewards/digits/mean"] == pytest.approx(sum(rewards) / 3), "at almost temperature 0, the same"
    assert metrics["eval_completions/mean_length"] == pytest.approx(sum(lengths) / 3)
    assert trainer.state.log_history[-1].items() >= metrics.items()


def test_evaluate_samples_by_seed(make_trainer):
    def sampled(seed):
        trainer = make_trainer(eval_dataset=tiny_dataset(), num_generations_eval=4, eval_temperature=1.0, seed=seed)
        values = [trainer.evaluate()["eval_rewards/digits/mean"] for _ in range(2)]
        assert values[0] == values[1]
        return values[0]

    assert sampled(0) != sampled(1)


def test_evaluation_does_not_disturb_training(make_trainer):
    runs = [
        make_trainer("plain"),
        make_trainer("evaluated", eval_dataset=tiny_dataset(), eval_strategy="steps", eval_steps=1),
    ]
    for trainer in runs:
        trainer.train()
    assert sum("eval_greedy/digits" in line for line in runs[1].state.log_history) == 3
    assert metrics_of(runs[0]) == metrics_of(runs[1])
    for mine, other in zip(runs[0].model.parameters(), runs[1].model.parameters()):
        assert torch.equal(mine, other)


# ---------------------------------------------------------------- metrics


def test_metrics_describe_the_rollout(make_trainer):
    trainer = make_trainer(max_steps=1)
    trainer.train()
    (line,) = metrics_of(trainer)
    groups = trainer.buffer.groups
    completions = [c for g in groups for c in g.completions]
    lengths = [len(c.token_ids) for c in completions]
    finished = [len(c.token_ids) for c in completions if not c.truncated]
    totals = [g.totals for g in groups]
    assert 0 < len(finished) < 8
    assert line["completions/mean_length"] == sum(lengths) / 8
    assert (line["completions/min_length"], line["completions/max_length"]) == (min(lengths), max(lengths))
    assert line["completions/mean_terminated_length"] == pytest.approx(sum(finished) / len(finished))
    assert line["completions/clipped_ratio"] == 1 - len(finished) / 8
    assert line["reward"] == pytest.approx(sum(map(sum, totals)) / 8)
    assert line["reward_std"] == pytest.approx(torch.tensor(totals).std(dim=1).mean().item())
    assert line["num_tokens"] == sum(lengths) + 4 * sum(len(g.prompt_ids) for g in groups)
    assert line["epoch"] == pytest.approx(2 / 6)
    start = tiny_model(dtype=torch.float64)
    entropies = []
    for group in groups:
        for completion in group.completions:
            ids = torch.tensor([group.prompt_ids + completion.token_ids])
            logprobs = start(ids).logits[0, len(group.prompt_ids) - 1 : -1].log_softmax(-1)
            entropies += (-(logprobs.exp() * logprobs).sum(-1)).tolist()
    assert line["entropy"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)


def test_a_log_line_is_the_mean_of_its_steps(make_trainer):
    every, third = make_trainer("every", max_steps=6), make_trainer("third", max_steps=6, logging_steps=3)
    for trainer in (every, third):
        trainer.train()
    steps, lines = metrics_of(every), metrics_of(third)
    assert [line["step"] for line in lines] == [3, 6]
    for name in ("reward", "loss", "entropy", "completions/mean_length", "frac_reward_zero_std"):
        assert lines[0][name] == pytest.approx(sum(step[name] for step in steps[:3]) / 3), name
        assert lines[1][name] == pytest.approx(sum(step[name] for step in steps[3:]) / 3), name
    assert [line["num_tokens"] for line in lines] == [steps[2]["num_tokens"], steps[5]["num_tokens"]], "a total"


def test_callbacks_see_every_rollout(make_trainer):
    seen = []

    class Watcher(TrainerCallback):
        def on_rollout(self, args, state, control, groups, **kwargs):
            seen.append((state.global_step, [group.texts for group in groups], [g.advantages for g in groups]))

    trainer = make_trainer(max_steps=4, num_iterations=2)
    trainer.add_callback(Watcher())
    trainer.train()
    assert [step for step, _, _ in seen] == [0, 2]
    assert seen[1][1] == [group.texts for group in trainer.buffer.groups]
    assert all(len(row) == 4 for row in seen[1][2])


# ---------------------------------------------------------------- adapters


def test_an_adapter_s_reference_is_the_base_below_it(tmp_path):
    """With a peft_config no second model is loaded; the weights of the base stay, and the KL is measured to it."""
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    args = tiny_config(tmp_path, max_steps=3, beta=0.05)
    trainer = GRPOTrainer(
        tiny_model(), digits, args, tiny_dataset(), processing_class=tiny_tokenizer(), peft_config=adapter
    )
    assert trainer.reference is None
    trainer.train()
    kl = [line["kl"] for line in metrics_of(trainer)]
    assert kl[0] == pytest.approx(0, abs=1e-7)
    assert kl[2] > 1e-5, "the adapter has moved"
    start = tiny_model()
    for group in trainer.buffer.groups:
        for c in range(len(group.completions)):
            assert group.ref_logprobs[c] == pytest.approx(logprobs_of(start, group, c, 1.0), abs=2e-5)
    base = dict(trainer.model.get_base_model().named_parameters())
    for name, value in start.named_parameters():
        (kept,) = [base[other] for other in base if other.replace(".base_layer", "") == name]
        assert torch.equal(kept, value)


def test_an_adapter_trains_the_same_with_shared_prompts(tmp_path):
    """LoRA over packs, with a KL and gradient checkpointing, beside one padded row a completion."""
    peft = pytest.importorskip("peft")
    runs = []
    for name, settings in {"shared": {"gradient_checkpointing": True}, "padded": {"share_prompts": False}}.items():
        torch.manual_seed(0)
        adapter = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights="gaussian")
        args = tiny_config(
            tmp_path / name, max_steps=4, beta=0.1, num_iterations=2, optim="sgd", learning_rate=0.5,
            max_grad_norm=0.0, **settings,
        )  # fmt: skip
        trainer = GRPOTrainer(
            tiny_model(), digits, args, tiny_dataset(), processing_class=tiny_tokenizer(), peft_config=adapter
        )
        trainer.train()
        runs.append([(line["loss"], line["grad_norm"], line["kl"]) for line in metrics_of(trainer)])
    shared, padded = runs
    assert padded[-1][1] > 0.1
    for mine, theirs in zip(shared, padded):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5)


# ---------------------------------------------------------------- rollouts that are filled, and sampled ahead


def test_groups_that_teach_nothing_are_replaced(make_trainer):
    """DAPO's dynamic sampling: odd problems never teach, so the next even ones of the stream take their place."""
    settings = {"refill_prompts": 6, "shuffle_dataset": False, "num_iterations": 2}
    trainer = make_trainer("refilled", rewards=digits_of_even_prompts, **settings)
    loss, gradient, (policy, old, reference) = step_with_moved_policy(trainer)
    groups = trainer.buffer.groups
    assert trainer.plan.num_prompts == len(groups) == 2
    assert [group.row["number"] for group in groups] == [0, 2]
    assert all(group.teaches for group in groups)
    rewards = [digits(None, group.texts) for group in groups]
    expected = paper_loss(policy, old, reference, groups, rewards, trainer.plan.num_minibatches, trainer.args)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert relative_error(gradient, gradient_of(policy)) < 1e-4


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_refilling_stays_within_its_budget(make_trainer, budget):
    """No problem teaches anything: the rollout keeps its size, and the next one begins behind all that was drawn."""
    trainer = make_trainer("budget", rewards=lambda completions, **_: [1.0] * len(completions), refill_prompts=budget)
    assert len(trainer.buffer.next()) == 2
    assert trainer.stream.drawn == 2 + budget
    assert trainer._sums.get("refill/prompts", 0) == budget


def test_what_is_replaced_counts_in_the_metrics_and_not_in_the_divisors(make_trainer):
    trainer = make_trainer("counted", rewards=digits_of_even_prompts, refill_prompts=6, shuffle_dataset=False)
    groups = trainer.buffer.next()
    assert trainer._sums["frac_reward_zero_std"] == 0.5, "of the four problems that were sampled"
    tokens = sum(len(c.token_ids) for group in groups for c in group.completions)
    assert trainer.count(groups).num_tokens == tokens


class WeightsOfEachStep(TrainerCallback):
    def __init__(self):
        self.weights = []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append(copy.deepcopy(model.state_dict()))


def test_the_next_rollout_is_sampled_with_the_weights_before_this_one(make_trainer):
    """One rollout off-policy, whatever the threads do; and the ratios are to the policy that sampled."""
    trainer = make_trainer("ahead", rollouts_ahead=True, max_steps=4, shuffle_dataset=False)
    recorder, rollouts = WeightsOfEachStep(), []
    trainer.add_callback(recorder)
    fill = trainer.buffer.fill
    trainer.buffer.fill = lambda: rollouts.append(fill()) or rollouts[-1]
    trainer.train()
    stream = PromptStream(len(trainer.train_dataset), 4, trainer.args.seed, shuffle=False)
    assert len(rollouts) == len(recorder.weights) == 4
    for step, groups in enumerate(rollouts):
        policy = tiny_model()
        policy.load_state_dict(recorder.weights[max(step - 1, 0)])
        sampler = Sampler(policy, [EOS], PAD)
        draws = stream.draw(2)
        prompts, seeds = [g.prompt_ids for g in groups], [d.seeds for d in draws]
        completions = sampler.sample(prompts, seeds, trainer.args.sampling_config)
        assert [[c.token_ids for c in g.completions] for g in groups] == [[c.token_ids for c in g] for g in completions]
        for group in groups:
            for completion, old in zip(group.completions, group.old_logprobs):
                expected = token_logprobs(policy, group.prompt_ids, completion.token_ids)
                torch.testing.assert_close(torch.tensor(old), expected, rtol=1e-4, atol=1e-4)
    lines = metrics_of(trainer)
    assert lines[0]["ratio/mean"] == pytest.approx(1, abs=1e-5)
    assert all(abs(line["ratio/mean"] - 1) > 1e-4 for line in lines[1:])


def test_evaluation_waits_for_the_rollout_ahead(make_trainer, monkeypatch):
    """It refreshes the copy of the weights that the thread samples from, however late the thread comes to it."""
    runs = {}
    for name in ("undisturbed", "late"):
        settings = {"rollouts_ahead": True, "max_steps": 4, "eval_dataset": tiny_dataset(["1+1="])}
        trainer = make_trainer(name, eval_strategy="steps", eval_steps=1, **settings)
        if name == "late":
            sample = trainer.sample

            def late(*args, sample=sample, **keywords):
                if threading.current_thread() is not threading.main_thread():
                    time.sleep(0.2)
                return sample(*args, **keywords)

            monkeypatch.setattr(trainer, "sample", late)
        trainer.train()
        runs[name] = [(line["reward"], line["ratio/mean"]) for line in metrics_of(trainer)]
    assert runs["late"] == runs["undisturbed"]


def test_what_rewards_see_and_log_ahead_of_their_step_is_their_step_s(make_trainer):
    seen = []

    def watched(completions, trainer_state, log_metric, **columns):
        seen.append(trainer_state.global_step)
        log_metric("calls", len(seen))
        return digits(None, completions)

    trainer = make_trainer("seen", rewards=watched, rollouts_ahead=True, max_steps=4)
    trainer.train()
    assert seen == [0, 1, 2, 3]
    assert [line["calls"] for line in metrics_of(trainer)] == [1, 2, 3, 4]


def test_weights_that_are_no_numbers_stop_the_run(make_trainer):
    trainer = make_trainer("nan", max_steps=3)
    with torch.no_grad():
        trainer.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="older checkpoint"):
        trainer.train()


def test_rewards_that_apply_to_the_first_prompts_alone_may_be_refilled(make_trainer):
    """Equal rewards of those, none of the prompts that were to take their place: there were rewards."""

    def first_alone(completions, number, **columns):
        return [1.0 if n < 2 else None for n in number]

    trainer = make_trainer("first", rewards=first_alone, refill_prompts=2, shuffle_dataset=False)
    assert len(trainer.buffer.next()) == 2


def test_a_reward_that_breaks_ahead_of_its_step_leaves_its_prompts_to_come(make_trainer):
    calls = []

    def breaks_at_the_third(completions, **columns):
        calls.append(len(completions))
        if len(calls) == 3:
            raise RuntimeError("no more")
        return digits(None, completions)

    trainer = make_trainer("broken", rewards=breaks_at_the_third, rollouts_ahead=True, max_steps=5)
    with pytest.raises(RewardError, match="no more"):
        trainer.train()
    assert trainer.state.global_step == 2, "two rollouts were whole"
    assert trainer.stream.drawn == 4
    assert trainer.ahead is None


def test_rollouts_ahead_and_vllm_do_not_go_together(tmp_path):
    with pytest.raises(ValueError, match="rollouts_ahead"):
        tiny_config(tmp_path, rollouts_ahead=True, use_vllm=True)
    with pytest.raises(ValueError, match="nothing left for"):
        tiny_config(tmp_path, rollouts_ahead=True, vllm_importance_sampling_correction=True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"refill_prompts": -1}, "refill_prompts must be 0"),
        ({"refill_prompts": 2.5}, "refill_prompts must be a whole number, got 2.5"),
        ({"entropy_coef": "0.1"}, "entropy_coef must be a number, got '0.1'"),
        ({"rollouts_ahead": "false"}, "rollouts_ahead must be True or False, got 'false'"),
        ({"temperature": float("nan")}, "temperature must be a number, got nan"),
    ],
)
def test_settings_of_a_wrong_kind(tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(tmp_path, **setting)


def test_the_log_says_how_much_was_not_computed(make_trainer):
    """Against a count by hand: half the groups left out, each prompt but its last token once for four completions."""
    trainer = make_trainer("saved", rewards=digits_of_even_prompts, shuffle_dataset=False, max_tokens_per_pack=1000)
    trainer.train()
    groups = trainer.buffer.groups  # of the last step
    rows = [len(g.prompt_ids) + len(c.token_ids) - 1 for g in groups for c in g.completions]
    skipped = sum(len(g.prompt_ids) + len(c.token_ids) - 1 for g in groups if not g.teaches for c in g.completions)
    shared = sum(3 * (len(g.prompt_ids) - 1) for g in groups if g.teaches)
    line = metrics_of(trainer)[-1]
    assert 0 < skipped < sum(rows)
    assert line["compute/skipped_groups"] == pytest.approx(skipped / sum(rows))
    assert line["compute/shared_prompts"] == pytest.approx(shared / sum(rows))
