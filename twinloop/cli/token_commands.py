"""`tokens`: bearer tokens of the admin API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twinloop.api_tokens import (
    TOKEN_ROLES,
    TOKENS_FILE,
    add_token,
    read_tokens,
    revoke_token,
)
from twinloop.cli.connection import HomeOption, JsonOption
from twinloop.cli.output import print_json, print_table, say
from twinloop.clock import SystemClock
from twinloop.errors import ConfigError
from twinloop.signing import load_signer
from twinloop.stack.home import Home

FileOption = Annotated[
    Path | None, typer.Option("--file", help="The token file; `keys/tokens.yaml` of the home by default.")
]
tokens = typer.Typer(help="Bearer tokens of the admin API.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    tokens.command("add", epilog="Example: twinloop tokens add ada --role operator --key operator-1")(add)
    tokens.command("list", epilog="Example: twinloop tokens list")(show)
    tokens.command("revoke", epilog="Example: twinloop tokens revoke ada")(revoke)
    app.add_typer(tokens, name="tokens")


def add(
    name: Annotated[str, typer.Argument(help="Who will hold it: the actor of every order given with it.")],
    role: Annotated[str, typer.Option(help="viewer, operator or approver.")] = "viewer",
    key: Annotated[
        str | None,
        typer.Option(help="Key that signs its orders; the key called like its holder, else ROLE-1."),
    ] = None,
    file: FileOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and show it, once: only its SHA-256 is kept."""
    if role not in TOKEN_ROLES:
        raise ConfigError(f"--role {role!r}: use one of {', '.join(TOKEN_ROLES)}")
    place, path = _where(home, file)
    wanted = None if role == "viewer" else key or _key_for(place, name, role)
    token = add_token(path, name, role, key_id=wanted, now_ms=SystemClock().now_ms())
    if as_json:
        print_json({"id": name, "role": role, "key_id": wanted, "token": token, "file": str(path)})
        return
    say(token)
    say(f"  {name}, {role}{f', orders are signed with {wanted}' if wanted else ''}; it is not shown again")


def show(file: FileOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Who holds a token, with which role; never the tokens."""
    rows = [entry.model_dump(mode="json") for entry in read_tokens(_where(home, file)[1]).entries]
    if as_json:
        for row in rows:
            print_json(row)
    else:
        print_table("tokens", [{**row, "sha256": f"{row['sha256'][:12]}…"} for row in rows])


def revoke(
    name: Annotated[str, typer.Argument(help="Whose token.")],
    file: FileOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw a token; a running API refuses it from its next call on."""
    path = _where(home, file)[1]
    revoke_token(path, name)
    if as_json:
        print_json({"id": name, "revoked": True, "file": str(path)})
    else:
        say(f"the token of {name} is withdrawn")


def _where(home: Path | None, file: Path | None) -> tuple[Home, Path]:
    place = Home(home) if home is not None else Home.default()
    return place, file or place.keys / TOKENS_FILE


def _key_for(place: Home, name: str, role: str) -> str:
    """A key of the same name is taken where there is one, so that two approvers sign with two keys."""
    for key_id in (name, f"{role}-1"):
        if (place.keys / f"{key_id}.pem").exists():
            load_signer(place.keys, key_id)
            return key_id
    raise ConfigError(
        f"{place.keys}: neither {name}.pem nor {role}-1.pem is there to sign orders with; name a key with --key"
    )
