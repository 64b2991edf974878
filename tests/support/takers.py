"""Takers for what is passed on to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Heard(list[T], Generic[T]):
    """What a taker was given."""

    def all(self, what: T) -> bool:
        """Takes it, and wants more."""
        self.append(what)
        return True

    def once(self, what: T) -> bool:
        """Takes it, and wants no more for now."""
        self.append(what)
        return False

    def as_long_as(self, wants: Callable[[], bool]) -> Callable[[T], bool]:
        """Takes it, and wants more as often as `wants` says so."""
        return lambda what: self.all(what) and wants()
