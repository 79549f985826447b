"""What an evaluation says: pass@1 over k samples a problem, pass@k, the majority's answer, and how sure each number is.

Protocol: DeepSeek-R1 (arXiv:2501.12948) section 3: k samples a problem at temperature 0.6, pass@1 = their mean
correctness, cons@k = the majority vote. pass@k is the unbiased estimator of Chen et al. (arXiv:2107.03374) eq. 1.
Intervals resample problems, because the samples of one problem are not independent of each other.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

_DRAWS_AT_ONCE = 1 << 22
"""Problems drawn in one block of the bootstrap: bounds its memory to some 64 MiB."""

_PER_SAMPLE = ("correct", "lenient", "formatted", "answers", "lengths", "truncated")


def pass_at_k(correct: ArrayLike, k: int) -> Floats:
    """correct [N, n] bool -> [N]: the chance that k of the n samples, drawn without replacement, hold a right one.

    1 - C(n - c, k) / C(n, k) with c right samples, as a product so that nothing overflows. Raises ValueError unless
    1 <= k <= n.

    >>> pass_at_k([[True, False, False, False]], k=2).tolist()
    [0.5]
    """
    correct = _matrix(correct)
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ValueError(
            f"pass@k needs 1 <= k <= the samples a problem, got k = {k} with {n} samples; draw more samples"
        )
    wrong = n - correct.sum(axis=1)
    i = np.arange(1, n + 1)
    factors = np.where(i > wrong[:, None], 1 - k / i, 1.0)
    return np.where(wrong < k, 1.0, 1 - factors.prod(axis=1))


def majority_correct(answers: Sequence[Sequence[str | None]], correct: ArrayLike) -> Floats:
    """answers [N][n] (keys; None: no answer), correct [N, n] bool -> [N]: 1.0 where the most frequent answer is right.

    None never wins, and a problem without any answer scores 0. Of equally frequent answers the one given first wins:
    samples come in random order, so this favours none. The winner is right if most of its samples were judged right
    (equal keys are judged alike, save for a checker's time-out).

    >>> majority_correct([["7", None, "8", "8"]], [[True, False, False, False]]).tolist()
    [0.0]
    """
    correct = _matrix(correct)
    if [len(row) for row in answers] != [correct.shape[1]] * correct.shape[0]:
        raise ValueError(
            f"answers must have the shape of correct, {correct.shape}; got {[len(row) for row in answers]}"
        )
    return np.array([_majority_row(row, verdicts) for row, verdicts in zip(answers, correct)], dtype=float)


def bootstrap_ci(values: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """values [N], one a problem -> (low, high) of their mean: the percentile bootstrap (Efron, 1979) over problems.

    The same seed gives the same interval. One problem, or equal values, give an interval of no width: then the data say
    nothing about the spread; of shares, `share_interval` does. Raises ValueError without values, or with a NaN.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not values.size or np.isnan(values).any():
        raise ValueError(
            f"an interval needs one number a problem and 1 problem or more, got shape {values.shape} {values}"
        )
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(
            f"level must lie between 0 and 1, resamples be 1 or more; got level={level}, resamples={resamples}"
        )
    rng = np.random.default_rng(seed)
    block = max(1, _DRAWS_AT_ONCE // values.size)
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    means = np.concatenate([values[rng.integers(values.size, size=(size, values.size))].mean(axis=1) for size in sizes])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_interval(shares: ArrayLike) -> Interval:
    """shares [N], one a problem -> the 95 % interval of their mean: `bootstrap_ci`, and where all are 0 or all are 1,
    of which that can tell nothing, the exact one (Clopper and Pearson, 1934) for as many coins as there are problems.

    >>> low, high = share_interval([1.0] * 332)
    >>> round(low, 3), high
    (0.989, 1.0)
    """
    shares = np.asarray(shares, dtype=float)
    if not shares.size or shares.min() < shares.max() or shares[0] not in (0, 1):
        return bootstrap_ci(shares)
    rest = 0.025 ** (1 / shares.size)
    return (rest, 1.0) if shares[0] == 1 else (0.0, 1 - rest)


def paired_gain_ci(
    base: ArrayLike, trained: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """base [N], trained [N], the same problems in the same order -> (low, high) of the mean of trained - base.

    Paired, so the difficulty of the problems cancels: much narrower than two intervals side by side. Raises ValueError
    when the lengths differ, and as `bootstrap_ci`.
    """
    base, trained = np.asarray(base, dtype=float), np.asarray(trained, dtype=float)
    if base.shape != trained.shape:
        raise ValueError(
            f"a paired gain needs the same problems twice, got {base.shape} and {trained.shape}; match by id"
        )
    return bootstrap_ci(trained - base, level, resamples, seed)


def summarize(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Evaluated problems -> the numbers of eval.json: shares in 0..1, lengths in tokens, 95 % intervals over problems.

    Each dict is a problem with k samples: correct, lenient (right, however it was marked), formatted and truncated [k]
    bool; answers [k] (keys, or None); lengths [k] in tokens; greedy_correct, a bool or None. "greedy" is None when no
    problem was decoded greedily. Raises ValueError without problems, when k differs between them, or when a field is
    missing.
    """
    k = _samples_per_problem(samples)
    correct, lenient = _field(samples, "correct"), _field(samples, "lenient")
    greedy = [problem["greedy_correct"] for problem in samples if problem.get("greedy_correct") is not None]
    majority = majority_correct([problem["answers"] for problem in samples], correct)
    return {
        "num_problems": len(samples),
        "k": k,
        **_with_interval("pass@1", correct.mean(axis=1), "ci95"),
        **_with_interval(f"cons@{k}", majority),
        **_with_interval(f"pass@{k}", pass_at_k(correct, k)),
        **_with_interval("lenient_pass@1", lenient.mean(axis=1), "lenient_ci95"),
        **_with_interval(f"lenient_pass@{k}", pass_at_k(lenient, k)),
        "format": float(_field(samples, "formatted").mean()),
        "mean_length": float(np.mean([problem["lengths"] for problem in samples])),
        "truncated": float(_field(samples, "truncated").mean()),
        "greedy": float(np.mean(greedy)) if greedy else None,
    }


def summarize_by(samples: list[dict[str, Any]], key: str) -> dict[Any, dict[str, Any]]:
    """{value: summary of the problems with that value} for key "task", "difficulty" or "language"; values in order."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for problem in samples:
        if key not in problem:
            raise ValueError(f"problem {problem.get('id')!r} has no {key!r} to group by; it has {sorted(problem)}")
        groups.setdefault(problem[key], []).append(problem)
    in_order = sorted(groups, key=lambda value: (value is None, value))
    return {value: summarize(groups[value]) for value in in_order}


def _majority_row(answers: Sequence[str | None], verdicts: NDArray[np.bool_]) -> bool:
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return False
    winner = counts.most_common(1)[0][0]  # of equal counts, the one seen first
    return verdicts[[answer == winner for answer in answers]].mean() > 0.5


def _with_interval(name: str, values: Floats, interval_name: str | None = None) -> dict[str, Any]:
    return {name: float(values.mean()), interval_name or f"{name}_ci95": list(share_interval(values))}


def _samples_per_problem(samples: list[dict[str, Any]]) -> int:
    if not samples:
        raise ValueError("got no evaluated problems to summarize; check the evaluation set and its filters")
    for problem in samples:
        missing = [name for name in _PER_SAMPLE if name not in problem]
        if missing:
            raise ValueError(f"problem {problem.get('id')!r} lacks {', '.join(missing)}")
    counts = {len(problem[name]) for problem in samples for name in _PER_SAMPLE}
    if len(counts) > 1 or 0 in counts:
        raise ValueError(
            f"every problem needs the same number of samples, 1 or more, in every field; got {sorted(counts)}"
        )
    return counts.pop()


def _field(samples: list[dict[str, Any]], name: str) -> NDArray[np.bool_]:
    return np.array([problem[name] for problem in samples], dtype=bool)


def _matrix(correct: ArrayLike) -> NDArray[np.bool_]:
    correct = np.asarray(correct, dtype=bool)
    if correct.ndim != 2:
        raise ValueError(f"correct must be [problems, samples], got shape {correct.shape}")
    return correct
