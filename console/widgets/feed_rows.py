"""Which item stands on which line of the screen, when some of them take several; knows nothing of what they hold."""

from __future__ import annotations

from collections.abc import Callable


class FeedRows:
    """Scrolls by items, so that only those near the screen have to be measured.

    The scroll position is the number of the item at the top. `last_top` is the greatest: with it the last line of the last
    item is at the bottom, and of the first one shown, some lines may be above the screen.

    Args:
        height_of: Lines of an item, by its number.
    """

    def __init__(self, height_of: Callable[[int], int]) -> None:
        self._height_of = height_of
        self._count = 0
        self._height = 1
        self._wrapped = False
        self.last_top = 0
        self._end: tuple[int, int] = (0, 0)
        self._held: tuple[int, int] | None = None

    def fit(self, count: int, height: int, *, wrapped: bool) -> None:
        """Tell how much there is to show.

        Args:
            count: Items.
            height: Lines of the screen.
            wrapped: Whether an item may take several of them.
        """
        self._count, self._height, self._wrapped = count, max(height, 1), wrapped
        if not wrapped:
            self._held = None
            self.last_top = max(count - height, 0)
            return
        self._end = self._ending_with(count - 1)
        self.last_top = self._end[0] + bool(self._end[1])

    def hold(self, scroll: int, gone: int) -> int:
        """Let what is on the screen stand still, whatever comes.

        Args:
            scroll: Scroll position.
            gone: Items that left at the top since it was scrolled there.

        Returns:
            The scroll position that shows the same.
        """
        top, hidden = self._top(scroll) if self._wrapped else (scroll, 0)
        # What it stood on is gone: the oldest there is then.
        self._held = (top - gone, hidden) if top >= gone else (0, 0)
        return self._held[0]

    def page(self, scroll: int) -> int:
        """How many items a page goes on by."""
        first, last = self.at(0, scroll, 0)[0], self.at(self._height - 1, scroll, 0)[0]
        return max(last - first, 1)

    def forget(self) -> None:
        """Items have other heights now."""
        self._held = None

    def at(self, y: int, scroll: int, moved: int) -> tuple[int, int]:
        """The item on a line of the screen, and which of its lines.

        Args:
            y: Line of the screen.
            scroll: Scroll position.
            moved: Items that left at the top since it was scrolled there.
        """
        if not self._wrapped:
            return scroll - moved + y, 0
        at, hidden = self._top(scroll)
        at -= moved
        y += hidden
        while 0 <= at < self._count and y >= (height := self._height_of(at)):
            y -= height
            at += 1
        return (at, y) if 0 <= at < self._count else (self._count, 0)

    def bring_into_view(self, at: int, scroll: int) -> int:
        """The scroll position that shows an item, the one there is if it does."""
        if not self._wrapped:
            return min(max(scroll, at - self._height + 1), at)
        top, hidden = self._top(scroll)
        if at < top or (at == top and hidden):
            self._held = (at, 0)
            return at
        rows = -hidden
        for each in range(top, at + 1):
            rows += self._height_of(each)
            if rows > self._height:
                self._held = self._ending_with(at)
                return self._held[0]
        return scroll

    def nearest_visible(self, at: int, scroll: int) -> int:
        """The item itself if it is on the screen, else the first or last that is."""
        first = self.at(0, scroll, 0)[0]
        last = min(self.at(self._height - 1, scroll, 0)[0], max(self._count - 1, 0))
        return min(max(at, first), max(last, first))

    def _top(self, scroll: int) -> tuple[int, int]:
        if self._held is not None and scroll == self._held[0]:
            return self._held
        return self._end if scroll >= self.last_top else (scroll, 0)

    def _ending_with(self, at: int) -> tuple[int, int]:
        """The item at the top, and how many of its lines are above the screen, when one ends at the bottom."""
        rows = 0
        while at >= 0:
            rows += self._height_of(at)
            if rows >= self._height or at == 0:
                break
            at -= 1
        return max(at, 0), max(rows - self._height, 0)
