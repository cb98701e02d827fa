"""What a server is told when it starts, and how it says that a request cannot be answered."""

from dataclasses import dataclass

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError, require_above_zero, require_positive


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where a server listens and how much it takes."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    """What /v1 asks for; None: nothing."""
    max_new_tokens: int = DecodeParams.max_new_tokens
    """Of requests that name no number: at most so many, and no more than fit."""
    max_body_bytes: int = 2**20
    max_requests: int = 256
    """Requests that are read, decoded or answered at the same time."""
    max_choices: int = 128
    """Of one request: its prompts times its n."""
    time_limit_s: float = 600.0
    """Of a request, from its first byte to the last of its answer."""
    grace_s: float = 5.0
    """How long answers may go on when the server is told to stop."""

    def __post_init__(self) -> None:
        require_positive(self, "max_new_tokens", "max_body_bytes", "max_requests", "max_choices")
        require_above_zero(self, "time_limit_s", "grace_s")
        if not 0 <= self.port < 2**16:
            raise InputError("port", self.port, "no port", "use 0 (any that is free) to 65535")
        if self.api_key is not None and not (self.api_key.isascii() and len(self.api_key.split()) == 1):
            problem = "empty, with a blank, or not of ASCII characters"
            raise InputError("api_key", "...", problem, "use letters and digits")


class Refusal(Exception):
    """A request that is not answered: its HTTP status, and what OpenAI's clients show."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param

    @classmethod
    def of_input(cls, error: InputError) -> "Refusal":
        """For a field of the body: its name, its value and the fix."""
        return cls(400, "invalid_value", str(error), error.field)

    def body(self) -> dict[str, object]:
        """As OpenAI writes it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
