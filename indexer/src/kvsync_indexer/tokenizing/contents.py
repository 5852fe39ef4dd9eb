"""Whether a chat template takes the content of a message as one text or as a list of parts.

vLLM renders a template with lists if the template has a loop over the content of a message, and with texts otherwise
(`--chat-template-content-format auto`). The template is read as a syntax tree and not run. Loops are found behind the
detours that vLLM sees: variables that stand for the messages, filters and slices, and macros that take the content as
an argument. A variable named `content` counts as the content outside macros.
"""

from collections.abc import Iterator
from typing import Literal, TypeAlias

from jinja2 import nodes

ContentFormat: TypeAlias = Literal["string", "openai"]


def content_format(template: nodes.Template) -> ContentFormat:
    """`openai` if the template loops over the parts of a content, else `string`."""
    messages = set(_message_names(template))
    inside: dict[int, set[str]] = {}
    for macro in template.find_all(nodes.Macro):
        names = _content_parameters(template, macro, messages)
        for loop in macro.find_all(nodes.For):
            inside[id(loop)] = names
    for loop in template.find_all(nodes.For):
        if any(_is_field(loop.iter, message, "content") for message in messages):
            return "openai"
        if isinstance(loop.iter, nodes.Name) and loop.iter.name in inside.get(id(loop), {"content"}):
            return "openai"
    return "string"


def _message_names(template: nodes.Template) -> Iterator[str]:
    """Names of loop variables over the messages."""
    lists = {"messages"}
    found = True
    while found:
        found = False
        for assignment in template.find_all(nodes.Assign):
            target = assignment.target
            if isinstance(target, nodes.Name) and target.name not in lists:
                found = any(_is_name(assignment.node, name) for name in lists)
                if found:
                    lists.add(target.name)
                    break
    for loop in template.find_all(nodes.For):
        if isinstance(loop.target, nodes.Name) and any(_is_name(loop.iter, name) for name in lists):
            yield loop.target.name


def _content_parameters(template: nodes.Template, macro: nodes.Macro, messages: set[str]) -> set[str]:
    """Parameters of the macro that some call gives the content of a message."""
    names = [argument.name for argument in macro.args]
    taking: set[str] = set()
    for call in template.find_all(nodes.Call):
        if not isinstance(call.node, nodes.Name) or call.node.name != macro.name:
            continue
        given = [*zip(names, call.args, strict=False)]
        given += [(each.key, each.value) for each in call.kwargs if isinstance(each, nodes.Keyword)]
        for name, value in given:
            if name in names and any(_is_field(value, message, "content") for message in messages):
                taking.add(name)
    return taking


def _bare(node: nodes.Node | None) -> nodes.Node | None:
    """The expression without filters, tests and slices around it."""
    while True:
        if isinstance(node, nodes.Filter | nodes.Test) or (
            isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        ):
            node = node.node
        else:
            return node


def _is_name(node: nodes.Node | None, name: str) -> bool:
    bare = _bare(node)
    return isinstance(bare, nodes.Name) and bare.name == name


def _is_field(node: nodes.Node | None, name: str, field: str) -> bool:
    bare = _bare(node)
    if isinstance(bare, nodes.Getattr):
        known = bare.attr == field
    elif isinstance(bare, nodes.Getitem):
        known = isinstance(bare.arg, nodes.Const) and bare.arg.value == field
    else:
        return False
    return known and isinstance(bare.node, nodes.Name) and bare.node.name == name
