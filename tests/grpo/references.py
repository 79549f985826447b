"""Scalar references for advantages and losses: plain loops over floats, written from the papers, sharing no code."""

import math
from itertools import combinations


def scalar_advantages(rewards, scale="group", live=None, eps=1e-4, baseline="group"):
    """rewards: rows of floats; live: rows of bools. Bessel's std plus eps, as in TRL; 0 where not live.

    baseline "leave_one_out": RLOO (arXiv:2402.14740), the mean of the others, one by one."""
    live = live or [[True] * len(row) for row in rewards]
    every = [r for row, row_live in zip(rewards, live) for r, alive in zip(row, row_live) if alive]
    out = []
    for row, row_live in zip(rewards, live):
        alive = [r for r, is_live in zip(row, row_live) if is_live]
        if len(alive) < 2 or max(alive) == min(alive):
            out.append([0.0] * len(row))
            continue
        divisor = {"group": _std(alive) + eps, "batch": _std(every) + eps, "none": 1.0}[scale]
        out.append([0.0] * len(row))
        for i in range(len(row)):
            if row_live[i]:
                others = [row[j] for j in range(len(row)) if row_live[j] and (j != i or baseline == "group")]
                out[-1][i] = (row[i] - sum(others) / len(others)) / divisor
    return out


def scalar_process_advantages(steps, lengths, scale="group", eps=1e-4):
    """DeepSeekMath (arXiv:2402.03300) section 4.1.3, a token at a time. steps: for each completion (ends, rewards)."""
    every = [reward for _, rewards in steps for reward in rewards]
    if len(every) < 2 or max(every) == min(every):
        return [[0.0] * length for length in lengths]
    mean, std = sum(every) / len(every), 1.0 if scale == "none" else _std(every) + eps
    return [
        [sum(((r - mean) / std for end, r in zip(ends, rewards) if end >= t), 0.0) for t in range(length)]
        for (ends, rewards), length in zip(steps, lengths)
    ]


def scalar_loss(policy, old, ref, advantages, mask, divisors, cfg, weights_policy=None, correction=None):
    """The loss of one pack, from DeepSeekMath eq. 3 and 4. policy, old, ref, mask: rows; advantages: one a row.

    weights_policy: the log-probs that cispo's weights are taken from, as they are no function of the policy.
    correction: what the policy's part of each token is weighed with, rows."""
    total = 0.0
    for i in range(len(policy)):
        tokens = [t for t in range(len(policy[i])) if mask[i][t]]
        if not tokens:
            continue
        log_ratios = {t: policy[i][t] - old[i][t] for t in tokens}
        weights = {t: (weights_policy or policy)[i][t] - old[i][t] for t in tokens}
        if cfg.importance_sampling_level == "sequence":
            weights = dict.fromkeys(tokens, sum(weights.values()) / len(tokens))
        weights = {t: math.exp(weight) for t, weight in weights.items()}
        if cfg.importance_sampling_level == "sequence":
            mean = sum(log_ratios.values()) / len(tokens)
            log_ratios = dict.fromkeys(tokens, mean)
        row = 0.0
        for t in tokens:
            ratio = math.exp(log_ratios[t])
            if cfg.loss_type == "cispo":
                gain = min(weights[t], cfg.upper_epsilon) * advantages[i] * policy[i][t]
            elif cfg.loss_type == "sapo":
                heat = cfg.sapo_temperature_pos if advantages[i] > 0 else cfg.sapo_temperature_neg
                gain = 4 / heat / (1 + math.exp(-heat * (ratio - 1))) * advantages[i]
            else:
                gain = _surrogate(ratio, advantages[i], cfg)
            row -= gain if correction is None else gain * correction[i][t]
            if cfg.beta:
                kl = math.exp(ref[i][t]) / math.exp(policy[i][t]) - math.log(math.exp(ref[i][t] - policy[i][t])) - 1
                row += cfg.beta * kl * (ratio if cfg.use_bias_correction_kl else 1.0)
        total += row / len(tokens) if cfg.loss_type in ("grpo", "sapo") else row
    if cfg.loss_type in ("grpo", "sapo"):
        return total / divisors.num_rows
    if cfg.loss_type == "bnpo":
        return total / divisors.num_tokens
    if cfg.loss_type in ("dapo", "cispo"):
        return total / divisors.rollout_tokens_per_update
    return total / (divisors.num_rows * cfg.max_completion_length)


def scalar_correction(old, sampling, mask, mode, lowest=None, highest=3.0):
    """A weight for each token of each row, case by case; None in `sampling`: the sampler gave that token none."""
    out = []
    for old_row, sampling_row, mask_row in zip(old, sampling, mask):
        ratios = [
            1.0 if s is None or not trained else math.exp(o) / math.exp(s)
            for o, s, trained in zip(old_row, sampling_row, mask_row)
        ]
        if mode.startswith("sequence"):
            ratios = [math.prod(ratios)] * len(ratios)
        row = []
        for ratio in ratios:
            if highest is not None and ratio > highest:
                row.append(highest if mode.endswith("truncate") else 0.0)
            elif lowest is not None and ratio < lowest:
                row.append(lowest if mode.endswith("truncate") else 0.0)
            else:
                row.append(ratio)
        out.append(row)
    return out


def scalar_entropy_bonus(entropy, mask, divisors, cfg):
    """Coefficient times the mean entropy of the update's trained tokens: a pack's share of it."""
    tokens = [value for row, row_mask in zip(entropy, mask) for value, trained in zip(row, row_mask) if trained]
    return cfg.entropy_coef * sum(tokens) / divisors.num_tokens


def numeric_gradient(function, rows, step=1e-5):
    """Central differences of function(rows) over every float of rows, in the same layout."""

    def moved(i, j, by):
        return function([[x + by * (a == i and b == j) for b, x in enumerate(row)] for a, row in enumerate(rows)])

    return [
        [(moved(i, j, step) - moved(i, j, -step)) / (2 * step) for j in range(len(row))] for i, row in enumerate(rows)
    ]


def enumerated_pass_at_k(correct, k):
    """Share of the k-subsets of one problem's samples that hold a right one, by listing them all."""
    subsets = list(combinations(correct, k))
    return sum(any(subset) for subset in subsets) / len(subsets)


def exact_binomial_interval(successes, n, level=0.95):
    """Clopper and Pearson (1934): the success rates that make neither tail rarer than (1 - level) / 2."""
    tail = (1 - level) / 2

    def at_most(p, count):
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(count + 1))

    low = 0.0 if successes == 0 else _bisect(lambda p: 1 - at_most(p, successes - 1) < tail)
    high = 1.0 if successes == n else _bisect(lambda p: at_most(p, successes) > tail)
    return low, high


def _surrogate(ratio, advantage, cfg):
    """The clipped objective case by case, as PPO describes it in words: no min, no clamp."""
    highest = 1 + (cfg.epsilon if cfg.epsilon_high is None else cfg.epsilon_high)
    if advantage >= 0:
        return highest * advantage if ratio > highest else ratio * advantage
    if ratio < 1 - cfg.epsilon:
        return (1 - cfg.epsilon) * advantage
    if cfg.delta is not None and ratio > cfg.delta:
        return cfg.delta * advantage
    return ratio * advantage


def _std(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _bisect(is_below):
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return low
