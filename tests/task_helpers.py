"""A task without real content."""

from t3d.grading.verdict import Verdict
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


class ReasonTask(EvenTask):
    """Says why, and grades by a second rule."""

    def assess(self, problem, response):
        number = problem.id.rpartition("/")[2]
        late, is_even = number == "3", len(response) % 2 == 0
        reason = "time limit" if late else "equal" if is_even else "unparsed"
        others = {"flexible-extract": number != "0"}
        return Verdict(correct=is_even and not late, extracted=response[:1], reason=reason, others=others)

    def settings(self):
        return {"grader": {"name": "reasons"}}
