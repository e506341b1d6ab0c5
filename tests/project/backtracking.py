"""A backtracking matcher that counts its steps: what a pattern costs, without a clock.

It runs what ``re`` has parsed, in the order in which ``re`` tries it, without any of its short
cuts: a step for each character compared and each choice made. ``test_every_pattern`` holds that it
finds what ``re`` finds.
"""

import re
import re._compiler as compiler
import re._constants as kinds
import re._parser as parser

import attrs


class TooMuchError(Exception):
    """More steps than were allowed."""


@attrs.define
class Steps:
    """How many there were, and may be."""

    most: int
    taken: int = 0

    def count(self):
        self.taken += 1
        if self.taken > self.most:
            raise TooMuchError


_REPEATS = {kinds.MAX_REPEAT, kinds.MIN_REPEAT}
_AT = {
    kinds.AT_BEGINNING: "^",
    kinds.AT_BEGINNING_STRING: r"\A",
    kinds.AT_END: "$",
    kinds.AT_END_STRING: r"\Z",
    kinds.AT_BOUNDARY: r"\b",
    kinds.AT_NON_BOUNDARY: r"\B",
}


@attrs.define
class Program:
    """A pattern as instructions: what to do, and with what."""

    size: int  # of the longest text: more copies of a repetition are never reached
    flags: int
    empty: str | bytes
    code: list = attrs.field(factory=list)
    slots: int = 0

    def add(self, *instruction):
        self.code.append(instruction)
        return len(self.code) - 1

    def ended(self, *instruction):
        self.add(*instruction)
        return self

    def inner(self, parsed):
        """Return what is matched for itself, and never gone back into."""
        part = Program(size=self.size, flags=self.flags, empty=self.empty)
        part.put(parsed)
        return part.ended("done")

    def put(self, parsed):
        for item in parsed:
            self._put(parsed, *item)

    def _put(self, parsed, kind, value):
        if kind in _REPEATS:
            self._repeat(*value, is_lazy=kind is kinds.MIN_REPEAT)
        elif kind is kinds.POSSESSIVE_REPEAT:
            again = parser.SubPattern(parsed.state, [(kinds.MAX_REPEAT, value)])
            self.add("atomic", self.inner(again))
        elif kind is kinds.ATOMIC_GROUP:
            self.add("atomic", self.inner(value))
        elif kind is kinds.SUBPATTERN:
            self.put(value[3])
        elif kind is kinds.BRANCH:
            self._branch(value[1])
        elif kind is kinds.AT:
            source = _AT[value] if isinstance(self.empty, str) else _AT[value].encode()
            self.add("at", re.compile(source, self.flags))
        elif kind in {kinds.ASSERT, kinds.ASSERT_NOT}:
            direction, part = value
            behind = part.getwidth()[0] if direction < 0 else 0
            self.add("look", self.inner(part), behind, kind is kinds.ASSERT)
        else:
            one = parser.SubPattern(parsed.state, [(kind, value)])
            self.add("char", compiler.compile(one, self.flags).fullmatch)

    def _branch(self, branches):
        ends = []
        for branch in branches[:-1]:
            choice = self.add("choice", 0, 0)
            self.put(branch)
            ends.append(self.add("jump", 0))
            self.code[choice] = ("choice", choice + 1, len(self.code))
        self.put(branches[-1])
        for end in ends:
            self.code[end] = ("jump", len(self.code))

    def _repeat(self, low, high, body, *, is_lazy):
        for _ in range(min(low, self.size + 1)):
            self.put(body)
        if high is kinds.MAXREPEAT:
            slot, self.slots = self.slots, self.slots + 1
            top = self.add("choice", 0, 0)
            self.add("enter", slot)
            self.put(body)
            self.add("again", slot, top)  # if it has got on: else it would never end
            self._choose(top, is_lazy=is_lazy)
            return
        choices = []
        for _ in range(min(high, self.size + 1) - min(low, self.size + 1)):
            choices.append(self.add("choice", 0, 0))
            self.put(body)
        for choice in choices:
            self._choose(choice, is_lazy=is_lazy)

    def _choose(self, choice, *, is_lazy):
        on, over = choice + 1, len(self.code)
        self.code[choice] = ("choice", over, on) if is_lazy else ("choice", on, over)

    def run(self, text, at, steps):
        """Return where a match that begins there ends, or None."""
        stack = [(0, at, (None,) * self.slots)]
        while stack:
            number, at, slots = stack.pop()
            while True:
                steps.count()
                match self.code[number]:
                    case ("char", fits):
                        if at >= len(text) or not fits(text[at : at + 1]):
                            break
                        at += 1
                    case ("choice", first, second):
                        stack.append((second, at, slots))
                        number = first
                        continue
                    case ("jump", there):
                        number = there
                        continue
                    case ("enter", slot):
                        slots = (*slots[:slot], at, *slots[slot + 1 :])
                    case ("again", slot, top):
                        if slots[slot] != at:
                            number = top
                            continue
                    case ("at", pattern):
                        if pattern.match(text, at) is None:
                            break
                    case ("end",):
                        if at != len(text):
                            break
                    case ("atomic", part):
                        at = part.run(text, at, steps)
                        if at is None:
                            break
                    case ("look", part, behind, is_wanted):
                        found = at >= behind and part.run(text, at - behind, steps) is not None
                        if found is not is_wanted:
                            break
                    case ("done",):
                        return at
                number += 1
        return None


@attrs.define
class Matcher:
    """A compiled pattern, asked as its module asks it; every call counts into ``steps``."""

    pattern: re.Pattern
    size: int
    _programs: dict = attrs.field(factory=dict)

    def _program(self, *last):
        if last not in self._programs:
            source, flags = self.pattern.pattern, self.pattern.flags
            program = Program(size=self.size, flags=flags, empty=source[:0])
            program.put(parser.parse(source, flags))
            for instruction in last:
                program.add(instruction)
            self._programs[last] = program.ended("done")
        return self._programs[last]

    def fullmatch(self, text, steps):
        return self._program("end").run(text, 0, steps)

    def match(self, text, steps):
        return self._program().run(text, 0, steps)

    def search(self, text, steps):
        return next(self.finditer(text, steps), None)

    def finditer(self, text, steps):
        """Yield where each match ends."""
        program, at = self._program(), 0
        while at <= len(text):
            end = program.run(text, at, steps)
            if end is not None:
                yield end
            at = end if end is not None and end > at else at + 1
