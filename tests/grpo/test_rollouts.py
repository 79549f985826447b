"""The prompts' order, the completions' seeds and the buffer: each against what a reader would write down by hand."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.config import RolloutPlan
from grpo.rollouts import Group, PromptStream, RolloutBuffer, assign_ranks
from grpo.sampling import Completion


def stream(num_rows=7, num_generations=3, seed=0, shuffle=True):
    return PromptStream(num_rows, num_generations, seed, shuffle)


def group(number):
    """A group with awkward floats and a row of every JSON type, as sampling and scoring leave it."""
    completions = [Completion([5, 6 + number, 0], [-0.1, -1 / 3, -1e-30], False), Completion([7], [-math.pi], True)]
    return Group(
        row={"prompt": "1+2=", "numbers": [1, 2], "gold": None, "난이도": number, "share": 0.1 + 0.2},
        prompt_ids=[3, 12, 4],
        completions=completions,
        texts=["a\n“b”", ""],
        rewards={"digits": [0.1, None]},
        totals=[0.1, 0.0],
        live=[True, False],
        advantages=[1 / 7, 0.0],
        token_advantages=[[1 / 7, 1 / 3, -1 / 9], [0.0]] if number % 2 else None,
        teaches=bool(number % 2),
        old_logprobs=[[-0.1, -1 / 3, -1e-30], [-math.pi]],
    )


# ---------------------------------------------------------------- the stream of prompts


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 40), seed=st.integers(0, 9), sizes=st.lists(st.integers(1, 17), min_size=1, max_size=12))
def test_every_epoch_is_a_permutation(rows, seed, sizes):
    """However many prompts a rollout takes, and where it crosses from one epoch into the next."""
    prompts = stream(rows, seed=seed)
    drawn = [draw.index for size in sizes for draw in prompts.draw(size)]
    epochs = [drawn[start : start + rows] for start in range(0, len(drawn), rows)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs[:-1])
    assert len(set(epochs[-1])) == len(epochs[-1])
    assert prompts.epoch == sum(sizes) / rows


def test_epochs_and_seeds_differ_and_unshuffled_order_is_the_data_set_s():
    first, second = ([draw.index for draw in prompts.draw(40)] for prompts in (stream(20), stream(20, seed=1)))
    assert first[:20] != first[20:]
    assert first[:20] != second[:20]
    assert first[:20] != list(range(20))
    assert [draw.index for draw in stream(3, shuffle=False).draw(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_seeds_belong_to_the_draw_and_are_all_different():
    """Not to the rank or to the rollout's size: ranks share a draw out, and then sample the same completions."""
    one = stream(5).draw(24)
    two = stream(5)
    in_parts = [draw for size in (1, 5, 12, 6) for draw in two.draw(size)]
    assert in_parts == one
    ranks = [one[rank::3] for rank in range(3)]
    assert sorted((d for share in ranks for d in share), key=one.index) == one
    seeds = [seed for draw in one for seed in draw.seeds] + [
        s for draw in stream(5, seed=1).draw(24) for s in draw.seeds
    ]
    assert len(set(seeds)) == len(seeds) == 2 * 24 * 3, "also when a problem comes again, and under neighbouring seeds"
    assert all(0 <= seed < 2**63 for seed in seeds), "what torch.Generator takes"


@pytest.mark.parametrize("before", [0, 4, 7, 11, 30])
def test_a_saved_stream_goes_on_in_the_same_order(before):
    straight = stream()
    straight.draw(before)
    state = json.loads(json.dumps(straight.state_dict()))
    resumed = stream()
    resumed.draw(2)  # whatever it did before
    resumed.load_state_dict(state)
    assert resumed.draw(20) == straight.draw(20)
    assert resumed.epoch == straight.epoch


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_rows": 8}, "made with num_rows 7 and this run has 8"),
        ({"seed": 1}, "made with seed 0 and this run has 1"),
        ({"shuffle": False}, "made with shuffle True and this run has False"),
    ],
)
def test_another_order_is_refused(changed, message):
    with pytest.raises(ValueError, match=message + "; resume with"):
        stream(**changed).load_state_dict(stream().state_dict())


# ---------------------------------------------------------------- the buffer


def buffer(num_minibatches, num_iterations, num_groups=6):
    """A buffer, and the list of what every filling gave: groups are numbered through."""
    filled = []
    plan = RolloutPlan(num_prompts=num_groups, num_minibatches=num_minibatches, num_iterations=num_iterations)

    def fill():
        filled.append([group(len(filled) * num_groups + i) for i in range(num_groups)])
        for number, one in enumerate(filled[-1]):
            one.part = number % num_minibatches
        return filled[-1]

    return RolloutBuffer(plan, fill), filled


def updates(rollouts, count):
    taken = []
    for _ in range(count):
        taken.append([g.row["난이도"] for g in rollouts.next()])
        rollouts.advance()
    return taken


def test_one_rollout_serves_minibatches_times_iterations():
    rollouts, filled = buffer(num_minibatches=3, num_iterations=2)
    first, second = updates(rollouts, 6), updates(rollouts, 6)
    assert len(filled) == 2
    assert first[:3] == first[3:] == [[0, 3], [1, 4], [2, 5]], "each group once a pass"
    assert second == [[n + 6 for n in update] for update in first]


def test_an_update_that_did_not_finish_comes_again():
    rollouts, filled = buffer(num_minibatches=3, num_iterations=1)
    assert rollouts.next() == rollouts.next()
    rollouts.advance()
    assert rollouts.next() == filled[0][1::3]


def test_a_filling_that_fails_leaves_the_buffer_as_it_was():
    plan = RolloutPlan(num_prompts=2, num_minibatches=1, num_iterations=1)
    answers = iter([[group(0)], RuntimeError("no reward"), [group(1)]])

    def fill():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    rollouts = RolloutBuffer(plan, fill)
    assert updates(rollouts, 1) == [[0]]
    before = rollouts.state_dict()
    with pytest.raises(RuntimeError, match="no reward"):
        rollouts.next()
    assert rollouts.state_dict() == before
    assert updates(rollouts, 1) == [[1]]


@pytest.mark.parametrize("done", range(5))
def test_a_saved_buffer_goes_on_with_the_same_groups(done):
    rollouts, filled = buffer(num_minibatches=2, num_iterations=2)
    updates(rollouts, done)
    text = json.dumps(rollouts.state_dict())
    resumed, refilled = buffer(num_minibatches=2, num_iterations=2)
    resumed.load_state_dict(json.loads(text))
    if 0 < done < 4:
        assert resumed.groups == filled[0], "every float to the last bit"
        assert updates(resumed, 4 - done) == updates(rollouts, 4 - done)
        assert not refilled
    else:
        assert json.loads(text)["groups"] == [], "a rollout that is used up need not be saved"
        resumed.next()
        assert len(refilled) == 1


def test_another_number_of_updates_is_refused():
    saved, _ = buffer(num_minibatches=2, num_iterations=2)
    other, _ = buffer(num_minibatches=2, num_iterations=1)
    with pytest.raises(ValueError, match="serve 4 updates and this run's 2; resume with the batch settings"):
        other.load_state_dict(saved.state_dict())


# ---------------------------------------------------------------- groups over ranks


@given(
    work=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 3)), max_size=20),
    tolerance=st.sampled_from([0.0, 0.05]),
)
def test_ranks_get_even_work(work, tolerance):
    """No group that could still move would help, and none moves that need not."""
    costs, homes = [cost for cost, _ in work], [home for _, home in work]
    ranks = assign_ranks(costs, homes, 4, tolerance)
    before, after = (
        [sum(c for c, r in zip(costs, where) if r == rank) for rank in range(4)] for where in (homes, ranks)
    )
    assert max(after) <= max(before)
    assert sum(x * x for x in after) <= sum(x * x for x in before)
    gap = max(after) - min(after)
    fullest = after.index(max(after))
    movable = [c for c, r in zip(costs, ranks) if r == fullest and 0 < c < gap]
    assert gap <= tolerance * sum(costs) / 4 or not movable
    if max(before) - min(before) <= tolerance * sum(costs) / 4:
        assert ranks == homes


def test_a_group_without_work_stays_where_it_is():
    assert assign_ranks([0, 0, 8, 8], [0, 0, 0, 0], 2) == [0, 0, 1, 0]
