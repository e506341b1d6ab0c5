"""What was asked of whom, by the minute; and the figures of runs added up."""

import collections

MINUTE_S = 60.0


class Tally:
    """Calls and refusals, by who was asked: how many in all, and in the worst minute."""

    def __init__(self):
        self.began = None
        self.calls = collections.Counter()  # of each
        self.verbs = collections.Counter()
        self.most = collections.Counter()  # in any 60 s; refusals as (who, "refused")
        self._recent = collections.defaultdict(collections.deque)

    def asked(self, who, now, verb=""):
        self._count(who, now)
        if verb:
            self.verbs[who, verb] += 1

    def refused(self, who, now):
        self._count((who, "refused"), now)

    def line(self, now):
        self._count("log", now)

    def recent(self, what, now):
        """Return how many there were in the last 60 s."""
        times = self._recent[what]
        while times and times[0] <= now - MINUTE_S:
            times.popleft()
        return len(times)

    def _count(self, what, now):
        self.calls[what] += 1
        self._recent[what].append(now)
        self.most[what] = max(self.most[what], self.recent(what, now))
