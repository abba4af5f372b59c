"""What nothing points to any more, and who gets it back when no program can still hold it."""

from collections import deque
from collections.abc import Callable, Sequence

GRACE_S = 1.0  # how long what was freed stays as it is: far longer than a program runs


class Grace:
    """`clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._freed: deque[tuple[float, Callable[[Sequence[int]], None], Sequence[int]]] = deque()

    def free(self, numbers: Sequence[int], give_back: Callable[[Sequence[int]], None]) -> None:
        """`give_back` is called with these numbers a second from now."""
        if numbers:
            self._freed.append((self._clock() + GRACE_S, give_back, numbers))

    def end(self, now: float) -> None:
        """Gives back what was freed a second ago. OSError: it is tried again the next time."""
        while self._freed and self._freed[0][0] <= now:
            _, give_back, numbers = self._freed[0]
            give_back(numbers)
            self._freed.popleft()

    def forget(self) -> None:
        """All of it: whoever gave it out has started anew."""
        self._freed.clear()

    def __len__(self) -> int:
        return len(self._freed)
