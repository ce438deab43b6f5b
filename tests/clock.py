"""A clock that tests set."""

from dataclasses import dataclass


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def minutes(self, passed: float) -> None:
        self.now += 60.0 * passed

    def days(self, passed: float) -> None:
        self.now += 86400.0 * passed
