"""Completion for bash, zsh and fish, made from the command line's own parser.

So it knows what the parser knows, in every version, and needs nothing installed beside the shell.
A script completes commands, options, choices and files, and the names of agents by asking the
running broker. Refuses to know a command.
"""

import argparse
import enum
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import evolve, frozen

AGENT = "AGENT"
"""A positional of this metavar is the name of an agent."""
_FILES = frozenset({"FILE", "PATH"})


class Wanted(enum.Enum):
    """What stands at a place, if not one of a few words."""

    NOTHING = "nothing"  # an option without a value
    ANYTHING = "anything"
    FILE = "file"
    AGENT = "agent"


@frozen(kw_only=True)
class Argument:
    """An option, or without ``flags`` a positional."""

    flags: tuple[str, ...]
    wanted: Wanted
    words: tuple[str, ...] = ()
    may_be_left_out: bool = False  # the value of an option
    repeated: bool = False
    text: str = ""


@frozen(kw_only=True)
class Shape:
    """One command, or all: ``commands`` by name."""

    text: str
    options: tuple[Argument, ...]
    positionals: tuple[Argument, ...]
    commands: "Mapping[str, Shape]"


def shape(parser: argparse.ArgumentParser) -> Shape:
    """Return what a parser takes."""
    options, positionals, commands = [], [], {}
    for action in parser._actions:  # noqa: SLF001 -- argparse shows it no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 -- as above
            commands = {name: _flat(shape(sub)) for name, sub in action.choices.items()}
        elif action.option_strings:
            options.append(_place(action))
        else:
            positionals.append(_place(action))
    return Shape(
        text=str(parser.description or "").rstrip("."),
        options=tuple(options),
        positionals=tuple(positionals),
        commands=commands,
    )


def _flat(one: Shape) -> Shape:
    """Return a command whose own commands are the words of its first place.

    Each of their options stands for all of them.
    """
    if not one.commands:
        return one
    inner = one.commands.values()
    options = {place.flags: place for sub in inner for place in sub.options}
    ways = Argument(flags=(), wanted=Wanted.ANYTHING, words=tuple(one.commands), text=one.text)
    return evolve(one, options=tuple(options.values()), positionals=(ways,), commands={})


def _place(action: argparse.Action) -> Argument:
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if action.nargs == 0:
        wanted = Wanted.NOTHING
    elif metavar in _FILES:
        wanted = Wanted.FILE
    elif metavar == AGENT:
        wanted = Wanted.AGENT
    else:
        wanted = Wanted.ANYTHING
    text = action.help if action.help not in {None, argparse.SUPPRESS} else ""
    return Argument(
        flags=tuple(action.option_strings),
        wanted=wanted,
        words=tuple(map(str, action.choices or ())),
        may_be_left_out=action.nargs == "?",
        repeated=isinstance(action, argparse._AppendAction),  # noqa: SLF001 -- as above
        text=str(text).partition(" (")[0].partition(";")[0],
    )


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the script for one of ``SHELLS``."""
    return SHELLS[shell](parser.prog, shape(parser))


def _function(name: str) -> str:
    return "_" + re.sub(r"\W", "_", name)


def _flags(one: Shape) -> list[str]:
    return [flag for place in one.options for flag in place.flags]


# --- bash --------------------------------------------------------------------------------------

_BASH = """\
# bash completion for {name}; made by: {name} completion bash
{function}_agents() {{
    "${{COMP_WORDS[0]}}" status --names "${{config[@]}}" 2>/dev/null
}}
{function}() {{
    local IFS=$' \\t\\n' current=${{COMP_WORDS[COMP_CWORD]}}
    local command= option= place=0 wanted= words= i word before=
    local -a config=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        case $before in --config | -c) config+=(--config "$word") ;; esac
        if [[ $word == '=' ]]; then
            continue
        elif [[ -n $option && $word != -* ]]; then
            option=
        elif [[ $word == -* ]]; then
            option=
            case $command:$word in
                {valued}) option=$word ;;
            esac
        elif [[ -z $command ]]; then
            command=$word
        else
            place=$((place + 1))
        fi
        before=$word
    done
    [[ $current == '=' ]] && current=
    if [[ -n $option && $current != -* ]]; then
        case $command:$option in
{values}
        esac
    elif [[ $current == -* ]]; then
        case $command in
{options}
        esac
    else
        case $command:$place in
{places}
        esac
    fi
    case $wanted in
        file)
            compopt -o filenames 2>/dev/null
            IFS=$'\\n'
            COMPREPLY=($(compgen -f -- "$current"))
            return ;;
        agent) words=$({function}_agents) ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F {function} {name}
"""


def _bash(name: str, top: Shape) -> str:
    every = {"": top, **top.commands}
    valued = [
        f"{command}:{flag}"
        for command, one in every.items()
        for place in one.options
        if place.wanted is not Wanted.NOTHING
        for flag in place.flags
    ]
    values = [
        f"            {command}:{flag}) {_bash_says(place)} ;;"
        for command, one in every.items()
        for place in one.options
        if place.wanted is not Wanted.NOTHING
        for flag in place.flags
    ]
    options = [
        f"            {command or quoted(command)}) words={quoted(' '.join(_flags(one)))} ;;"
        for command, one in every.items()
    ]
    places = [f"            :0) words={quoted(' '.join((*top.commands, *_flags(top))))} ;;"]
    places += [
        f"            {command}:{number}) {_bash_says(place)} ;;"
        for command, one in top.commands.items()
        for number, place in enumerate(one.positionals)
    ]
    return _BASH.format(
        name=name,
        function=_function(name),
        valued=" | ".join(valued),
        values="\n".join(values),
        options="\n".join(options),
        places="\n".join(places),
    )


def _bash_says(place: Argument) -> str:
    if place.words:
        return f"words={quoted(' '.join(place.words))}"
    return f"wanted={place.wanted.value}"


def quoted(text: str) -> str:
    """Return a text as a shell reads it back."""
    return shlex.quote(text)


# --- zsh ---------------------------------------------------------------------------------------

_ZSH = """\
#compdef {name}
# zsh completion for {name}; made by: {name} completion zsh
{function}_agents() {{
    local -a names
    names=(${{(f)"$({name} status --names 2>/dev/null)"}})
    compadd -a names
}}
{function}() {{
    local context state state_descr line
    typeset -A opt_args
    _arguments -C {top} ': :->command' '*:: :->rest'
    case $state in
        command)
            local -a commands
            commands=(
{commands}
            )
            _describe command commands ;;
        rest)
            case $words[1] in
{cases}
            esac ;;
    esac
}}
if [[ $funcstack[1] == {function} ]]; then
    {function} "$@"
else
    compdef {function} {name}
fi
"""


def _zsh(name: str, top: Shape) -> str:
    commands = [
        f"                {quoted(f'{command}:{_plain(one.text)}')}"
        for command, one in top.commands.items()
    ]
    cases = [
        f"                {command}) _arguments {' '.join(_zsh_places(one, name))} ;;"
        for command, one in top.commands.items()
    ]
    return _ZSH.format(
        name=name,
        function=_function(name),
        top=" ".join(_zsh_places(top, name)),
        commands="\n".join(commands),
        cases="\n".join(cases),
    )


def _zsh_places(one: Shape, name: str) -> Iterator[str]:
    for place in one.options:
        others = "*" if place.repeated else f"({' '.join(place.flags)})"
        for flag in place.flags:
            yield quoted(f"{others}{flag}[{_plain(place.text)}]{_zsh_value(place, name)}")
    for place in one.positionals:
        yield quoted(f":{_plain(place.text) or 'value'}:{_zsh_says(place, name)}")


def _zsh_value(place: Argument, name: str) -> str:
    if place.wanted is Wanted.NOTHING:
        return ""
    return f"{'::' if place.may_be_left_out else ':'}value:{_zsh_says(place, name)}"


def _zsh_says(place: Argument, name: str) -> str:
    if place.words:
        return f"({' '.join(place.words)})"
    return {Wanted.FILE: "_files", Wanted.AGENT: f"{_function(name)}_agents"}.get(
        place.wanted, " "
    )


def _plain(text: str) -> str:
    """Return a help without what means something in a specification of zsh."""
    return re.sub(r"[\[\]:\\']", "", text)


# --- fish --------------------------------------------------------------------------------------


def _fish(name: str, top: Shape) -> str:
    agents = f"{_function(name)}_agents"
    lines = [
        f"# fish completion for {name}; made by: {name} completion fish",
        f"function {agents}",
        f"    {name} status --names 2>/dev/null",
        "end",
        f"complete -c {name} -f",
    ]
    first = "__fish_use_subcommand"
    lines += [_fish_option(name, first, place, agents) for place in top.options]
    for command, one in top.commands.items():
        lines.append(f"complete -c {name} -n {first} -a {command} -d {quoted(one.text)}")
        here = f"__fish_seen_subcommand_from {command}"
        lines += [_fish_option(name, here, place, agents) for place in one.options]
        lines += [
            f"complete -c {name} -n {quoted(here)} {says}"
            for place in one.positionals
            if (says := _fish_says(place, agents))
        ]
    return "\n".join(lines) + "\n"


def _fish_option(name: str, here: str, place: Argument, agents: str) -> str:
    flags = [f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in place.flags]
    is_needed = place.wanted is not Wanted.NOTHING and not place.may_be_left_out
    value = " -r" if place.wanted is Wanted.FILE else " -x" if is_needed else ""
    says = _fish_says(place, agents)
    text = f" -d {quoted(place.text)}" if place.text else ""
    return (
        f"complete -c {name} -n {quoted(here)} {' '.join(flags)}{value}"
        f"{' ' + says if says else ''}{text}"
    )


def _fish_says(place: Argument, agents: str) -> str:
    if place.words:
        return f"-a {quoted(' '.join(place.words))}"
    return {Wanted.FILE: "-F", Wanted.AGENT: f"-a '({agents})'"}.get(place.wanted, "")


SHELLS: Mapping[str, Callable[[str, Shape], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
NAMES: Sequence[str] = tuple(SHELLS)
