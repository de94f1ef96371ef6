"""Completions for bash, zsh and fish as plain data of the shell: a TAB must not wait for a Python to start."""
# ruff: noqa: INP001 - the folder is run as a program

from __future__ import annotations

from typing import TYPE_CHECKING

from verbs import PROGRAM, Option, Value, Verb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MADE = "made from the command line itself by packaging/generate"

_BASH = """\
# bash completion for {program}, {made}

_scpln_backup() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} path= value= words= word index
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${{COMP_WORDS[index]}}
        [[ $word != = ]] || continue  # readline makes a word of it
        if [[ -n $value ]]; then
            value=
            continue
        fi
        case "$path:$word" in
{steps}
        esac
    done
    case $value in
        file)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return
            ;;
        anything) return ;;
        ?*) words=$value ;;
        *)
            case $path in
{words}
            esac
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}

complete -F _scpln_backup {program}
"""


def bash(command: Verb) -> str:
    steps = []
    words = []
    for verb in command.every():
        for names, value in _values(verb):
            patterns = " | ".join(f'"{verb.name}:{name}"' for name in names)
            steps.append(f"            {patterns}) value={_quoted(value)} ;;")
        steps.extend(f'            "{verb.name}:{below.path[-1]}") path="{below.name}" ;;' for below in verb.verbs)
        offered = [below.path[-1] for below in verb.verbs] + [name for option in verb.options for name in option.names]
        words.append(f'                "{verb.name}") words="{" ".join(offered)}" ;;')
    return _BASH.format(program=PROGRAM, made=_MADE, steps="\n".join(steps), words="\n".join(words))


def _values(verb: Verb) -> Iterator[tuple[tuple[str, ...], str]]:
    """The options of a verb that take a value, and what bash is to offer for it."""
    for option in verb.options:
        if option.metavar:
            yield option.names, " ".join(option.choices) or option.value.name.lower()


def zsh(command: Verb) -> str:
    functions = "\n".join(_zsh_function(verb) for verb in command.every())
    return f'#compdef {PROGRAM}\n# zsh completion, {_MADE}\n\n{functions}\n_scpln_backup "$@"\n'


def _zsh_function(verb: Verb) -> str:
    specs = [_quoted(spec) for option in verb.options for spec in _zsh_specs(option)]
    name = _zsh_name(verb)
    if not verb.verbs:
        specs.append(_quoted("*:: :"))
        return f"{name}() {{\n    {_zsh_arguments(specs)}\n}}\n"
    specs += [_quoted("1: :->verb"), _quoted("*:: :->rest")]
    described = [_quoted(f"{below.path[-1]}:{below.summary}") for below in verb.verbs]
    cases = [f"                {below.path[-1]}) {_zsh_name(below)} ;;" for below in verb.verbs]
    return "\n".join(
        [
            f"{name}() {{",
            "    local curcontext=$curcontext state line",
            "    typeset -A opt_args",
            f"    {_zsh_arguments(specs, '-C')}",
            "    case $state in",
            "        verb)",
            f"            local -a verbs=({_continued(described)})",
            "            _describe verb verbs",
            "            ;;",
            "        rest)",
            "            case $line[1] in",
            *cases,
            "            esac",
            "            ;;",
            "    esac",
            "}\n",
        ]
    )


def _zsh_arguments(specs: list[str], *options: str) -> str:
    return " ".join(["_arguments", *options, "-S", ":"]) + _continued(specs)


def _continued(words: Iterable[str]) -> str:
    return "".join(f" \\\n        {word}" for word in words)


def _zsh_name(verb: Verb) -> str:
    return "_".join(["_scpln_backup", *verb.path])


def _zsh_specs(option: Option) -> Iterator[str]:
    """What _arguments takes (zshcompsys(1)); a name excludes itself and its synonyms."""
    text = "".join(f"\\{letter}" if letter in "[]:\\" else letter for letter in option.help)
    action = {
        Value.FILE: "_files",
        Value.CHOICE: f"({' '.join(option.choices)})",
        Value.ANYTHING: " ",
    }[option.value]
    value = f":{option.metavar.strip('[]').lower()}:{action}" if option.metavar else ""
    for name in option.names:
        yield f"({' '.join(option.names)}){name}[{text}]{value}"


_FISH = """\
# fish completion for {program}, {made}

# Whether the words so far lead to the verb that is given ("" for none).
function __scpln_backup_at
    set -l path
    set -l value
    for word in (commandline -opc)[2..]
        if set -q value[1]
            set -e value
            continue
        end
        switch "$path:$word"
{steps}
        end
    end
    test "$path" = "$argv[1]"
end

complete -c {program} -f
{lines}
"""


def fish(command: Verb) -> str:
    steps = []
    lines = []
    for verb in command.every():
        names = [name for option in verb.options if option.metavar for name in option.names]
        if names:
            patterns = " ".join(f"'{verb.name}:{name}'" for name in names)
            steps += [f"            case {patterns}", "                set value $word"]
        at = f"complete -c {PROGRAM} -n '__scpln_backup_at \"{verb.name}\"'"
        for below in verb.verbs:
            steps += [
                f"            case '{verb.name}:{below.path[-1]}'",
                f"                set path {_quoted(below.name)}",
            ]
            lines.append(f"{at} -a {below.path[-1]} -d {_fish_quoted(below.summary)}")
        lines.extend(f"{at} {_fish_option(option)}" for option in verb.options)
    return _FISH.format(program=PROGRAM, made=_MADE, steps="\n".join(steps), lines="\n".join(lines))


def _fish_option(option: Option) -> str:
    words = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    if option.metavar:
        words.append("-r")
        words.append("-F" if option.value is Value.FILE else f"-f -a {_fish_quoted(' '.join(option.choices))}")
    return " ".join([*words, f"-d {_fish_quoted(option.help)}"])


def _quoted(text: str) -> str:
    """For bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
