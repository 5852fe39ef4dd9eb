"""`kvsync match`."""

import click
import msgspec
from rich.console import Console
from rich.table import Table

from kvsync.index_commands import ask, choose_model, index_option
from kvsync_indexer.api import MatchAnswer, MatchRequest
from kvsync_indexer.client import AsyncIndexClient


def _token_ids(_ctx: click.Context, _param: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    try:
        return [int(part) for part in value.replace(",", " ").split()]
    except ValueError:
        raise click.BadParameter(f"{value!r}: integers with commas or spaces between are needed") from None


@click.command("match")
@click.argument("prompt", required=False)
@click.option("--tokens", callback=_token_ids, metavar="IDS", help="Token ids instead of a prompt: 1,2,3.")
@click.option("--model", help="Model [default: the only one the index follows].")
@click.option("--lora", help="Adapter.")
@click.option("--cache-salt", help="Cache salt of the request.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the index as JSON.")
@index_option
def command(
    prompt: str | None,
    tokens: list[int] | None,
    model: str | None,
    lora: str | None,
    cache_salt: str | None,
    as_json: bool,
    index_url: str | None,
) -> None:
    """Ask an index which engines hold how much of PROMPT, best first."""
    if (prompt is None) == (tokens is None):
        raise click.UsageError("give a prompt or --tokens")

    async def put(index: AsyncIndexClient) -> MatchAnswer:
        chosen = await choose_model(index, model)
        return await index.match(
            MatchRequest(chosen, token_ids=tokens, prompt=prompt, lora=lora, cache_salt=cache_salt)
        )

    answer = ask(index_url, put)
    if as_json:
        click.echo(msgspec.json.encode(answer).decode())
    else:
        _print(answer)


def _print(answer: MatchAnswer) -> None:
    size, blocks = answer.block_size, answer.query_blocks
    click.echo(f"{blocks} blocks of {size} tokens" if size else "no engine has said how large its blocks are yet")
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    table.add_column("publisher", no_wrap=True)
    table.add_column("state")
    table.add_column("epoch", overflow="fold")
    for name in ("blocks", "tokens", "of prompt", "tiers", "age"):
        table.add_column(name, justify="right")
    for row in answer.matches:
        tiers = " ".join(f"{tier}:{count}" for tier, count in row.tiers.items())
        share = f"{row.matched_blocks / blocks:.0%}" if blocks else "-"
        age = "-" if row.age_s is None else f"{row.age_s:.2f} s"
        matched = (str(row.matched_blocks), str(row.matched_tokens), share)
        table.add_row(row.publisher, row.state, row.epoch, *matched, tiers or "-", age)
    Console().print(table)
