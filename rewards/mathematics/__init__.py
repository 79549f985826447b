"""Mathematical answers: from two texts to a verdict.

    text ─► spelling ─► expressions, units ─► answers (forms) ─► equality, real_sets (algebra) ─► verdict
                                                                 └─► worker, through the pool: what is left

`judging` goes through the stages, cheapest first.
"""

from rewards.mathematics.judging import Question, judge, mathematics_key, read_gold

__all__ = ["Question", "judge", "mathematics_key", "read_gold"]
