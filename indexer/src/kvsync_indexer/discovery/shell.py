"""Splits a shell script into simple commands, as far as that is possible without running it.

It is for containers that start their engine with `sh -c "… exec vllm serve … --port 8200"`. Quotes, escapes, comments,
redirections, assignments and references to variables follow POSIX. What only a running shell knows, such as the output
of a command or a variable from a Secret, leaves a mark in the word, and the reader of the arguments refuses a setting
that carries one.
"""

import re
from collections.abc import Mapping, Sequence

from kvsync_indexer.discovery.limits import MAX_ARGUMENT_BYTES, ArgumentsError

UNKNOWN = "\0"
"""Begins and ends the mark of an unknown value, with the name of its source in between."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_BRACED = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*|[0-9@*])(?:(:?-)([^}'\"$`\\]*))?\}")
_OPENING = frozenset({"if", "while", "until", "for", "case", "{"})
_CLOSING = frozenset({"fi", "done", "esac", "}"})
_KEYWORDS = _OPENING | {"then", "else", "elif", "do", "!"}
_EXPORTS = frozenset({"export", "readonly", "declare", "local", "typeset"})
_OPAQUE = frozenset({".", "source", "eval", "read"})


def mark(source: str) -> str:
    """The mark of a value that comes from `source`."""
    return f"{UNKNOWN}{source}{UNKNOWN}"


def unknown_source(text: str) -> str | None:
    """The source of the first unknown value in the text, None if all of it is known."""
    return text.split(UNKNOWN, 2)[1] if UNKNOWN in text else None


class Script:
    """One script with the variables and positional parameters that are known when it starts."""

    def __init__(self, text: str, variables: Mapping[str, str], positional: Sequence[str] = ()) -> None:
        self._text = text
        self._at = 0
        self._variables = dict(variables)
        self._positional = list(positional)
        self._all_unknown = False
        self._written = 0
        self._commands: list[list[str]] = []
        self._words: list[str] = []
        self._word: list[str] | None = None
        self._skip_word = False
        self._operator = ""
        self._depth = 0
        self._chained: set[str] = set()

    def commands(self) -> list[list[str]]:
        """The words of every simple command, in order. Raises ArgumentsError for a script that cannot be split."""
        while self._at < len(self._text):
            self._step(self._take())
        self._end_command("")
        return self._commands

    def _take(self) -> str:
        character = self._text[self._at]
        self._at += 1
        return character

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _step(self, character: str) -> None:
        if character == "\\":
            following = self._take() if self._next() else ""
            self._add("" if following == "\n" else following)
        elif character == "'":
            self._add(self._until("'"))
        elif character == '"':
            self._double_quotes()
        elif character in "$`":
            self._expand(character, split=True)
        elif character == "#" and self._word is None:
            end = self._text.find("\n", self._at)
            self._at = len(self._text) if end < 0 else end
        elif character in "<>" or (character == "&" and self._next() == ">"):
            self._redirect(character)
        elif character in "\n;&|()":
            double = character in "&|" and self._next() == character
            self._at += double
            self._end_command(character * (1 + double))
        elif character.isspace():
            self._end_word()
        else:
            self._add(character)

    def _add(self, text: str) -> None:
        self._written += len(text)
        if self._written > MAX_ARGUMENT_BYTES:
            raise ArgumentsError(f"the shell command expands to more than {MAX_ARGUMENT_BYTES} bytes")
        if self._word is None:
            self._word = []
        self._word.append(text)

    def _until(self, end: str) -> str:
        found = self._text.find(end, self._at)
        if found < 0:
            raise ArgumentsError(f"the shell command has no closing {end}")
        text = self._text[self._at : found]
        self._at = found + 1
        return text

    def _double_quotes(self) -> None:
        self._add("")
        while True:
            character = self._take() if self._next() else ""
            if not character:
                raise ArgumentsError('the shell command has no closing "')
            if character == '"':
                return
            if character == "\\" and self._next() in ("$", "`", '"', "\\", "\n"):
                following = self._take()
                self._add("" if following == "\n" else following)
            elif character in "$`":
                self._expand(character, split=False)
            else:
                self._add(character)

    def _expand(self, character: str, *, split: bool) -> None:
        if character == "`":
            self._until("`")
            self._add(mark("a command substitution"))
            return
        following = self._next()
        if following == "(":
            self._skip_parentheses()
            self._add(mark("a command substitution"))
        elif following == "{":
            match = _BRACED.match(self._text, self._at)
            if match is None:
                self._until("}")
                self._add(mark("a parameter expansion"))
                return
            self._at = match.end()
            self._variable(match[1], match[3] if match[2] else None, split=split, empty=match[2] == ":-")
        elif following and following in "0123456789@*":
            self._at += 1
            self._variable(following, None, split=split, empty=False)
        elif match := _NAME.match(self._text, self._at):
            self._at = match.end()
            self._variable(match[0], None, split=split, empty=False)
        elif following == "'" or (following and following in "?$!#-"):
            self._at += 1
            self._add(mark(f"${following}"))
        else:
            self._add("$")

    def _skip_parentheses(self) -> None:
        depth = 0
        while self._next():
            character = self._take()
            if character == "'":
                self._until("'")
            depth += (character == "(") - (character == ")")
            if depth == 0:
                return
        raise ArgumentsError("the shell command has no closing )")

    def _variable(self, name: str, default: str | None, *, split: bool, empty: bool) -> None:
        if name in ("@", "*"):
            self._words_of(self._positional)
            return
        if name.isdigit():
            at = int(name) - 1
            value = "" if not 0 <= at < len(self._positional) else self._positional[at]
        elif name in self._variables and not self._all_unknown:
            value = self._variables[name]
        else:
            value = mark(f"${name}")
        if default is not None and (value.startswith(UNKNOWN) or (empty and not value)):
            value = mark(f"${name}") if value else default
        if split and UNKNOWN not in value:
            self._split(value)
        else:
            self._add(value)

    def _split(self, value: str) -> None:
        parts = value.split()
        if value[:1].isspace():
            self._end_word()
        for number, part in enumerate(parts):
            if number:
                self._end_word()
            self._add(part)
        if parts and value[-1].isspace():
            self._end_word()

    def _words_of(self, words: Sequence[str]) -> None:
        for number, word in enumerate(words):
            if number:
                self._end_word()
            self._add(word)

    def _redirect(self, character: str) -> None:
        if character == "<" and self._next() == "<":
            raise ArgumentsError("the shell command has a here-document")
        if self._word is not None and "".join(self._word).isdigit():
            self._word = None  # the number of a file descriptor
        self._end_word()
        while self._next() and self._next() in "<>&|":
            self._at += 1
        self._skip_word = True

    def _end_word(self) -> None:
        if self._word is None:
            return
        word, self._word = "".join(self._word), None
        if self._skip_word:
            self._skip_word = False
        else:
            self._words.append(word)

    def _end_command(self, operator: str) -> None:
        self._end_word()
        words, self._words, self._skip_word = self._words, [], False
        if words:
            self._assign(words)
            self._commands.append(words)
        elif operator == "\n":
            return  # a line break after an operator, or an empty line
        if operator != "&&":
            for name in self._chained:  # whether the chain got as far as the assignment is unknown from here on
                self._variables.pop(name, None)
            self._chained.clear()
        self._operator = operator

    def _assign(self, words: list[str]) -> None:
        """Keep what the command does to variables. What it does under a condition is unknown afterwards."""
        self._depth += (words[0] in _OPENING) - (words[0] in _CLOSING)
        first = next((at for at, word in enumerate(words) if word not in _KEYWORDS), len(words))
        rest = words[first:]
        if not rest:
            return
        certain = not first and not self._depth and self._operator not in ("||", "|", "(")
        if words[0] == "for":
            self._variables.pop(rest[0], None)
        if rest[0] in _OPAQUE:
            self._all_unknown = True
        if rest[0] == "set" and len(rest) > 1 and not rest[1].startswith(("-e", "-u", "-x", "-o", "+")):
            self._positional = rest[2:] if rest[1] == "--" and certain else [mark("the command set")]
        exported = rest[0] in _EXPORTS
        pairs = [_ASSIGNMENT.fullmatch(word) for word in (rest[1:] if exported else rest)]
        if not exported and not all(pairs):
            return
        for name, value in (pair.groups() for pair in pairs if pair is not None):
            self._variables.pop(name, None)
            if certain:
                self._variables[name] = value
                if self._operator == "&&":
                    self._chained.add(name)
