"""The micro world's task families. A new one is a module with a Task and a line here."""

from data.tasks.arithmetic import ArithmeticTask
from data.tasks.base import Task
from data.tasks.countdown import CountdownTask
from data.tasks.equations import EquationTask
from data.tasks.ordering import OrderingTask
from data.tasks.sequences import SequenceTask
from data.tasks.word_problems import WordProblemTask

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        ArithmeticTask(),
        CountdownTask(),
        WordProblemTask(),
        EquationTask(),
        SequenceTask(),
        OrderingTask(),
    )
}

__all__ = ["TASKS", "Task"]
