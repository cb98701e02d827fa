"""A task without real content."""

from t3d.problems.problem import Problem


class EvenTask:
    """Right if the response has an even number of characters."""

    def __init__(self, name="even"):
        self.name = name

    def problems(self, split, limit, seed):
        return [Problem(id=f"{self.name}/{index}", question=f"how many {index}") for index in range(limit)]

    def check(self, problem):
        assert problem.question

    def grade(self, problem, response):
        return len(response) % 2 == 0
