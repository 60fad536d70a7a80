"""``put``, ``get`` and ``keygen``: values that the Grapes keep, and keys to sign them with."""

from __future__ import annotations

import sys
from dataclasses import asdict
from hashlib import sha1
from pathlib import Path

import click

from ..errors import KeyFileError
from ..put_report import PutReport
from .options import Network, network_options
from .status import ExitStatus
from .terminal import Failure, as_json, json_option, printable, run, tell

PUBLIC_KEY_DIGITS = 64


def default_key() -> Path:
    """The file of the key that is used unless another one is named."""
    return Path(click.get_app_dir("grenache-py")) / "key.pem"


def salt_bytes(salt: str | None) -> bytes | None:
    return None if salt is None else salt.encode()


salt_option = click.option(
    "-s", "--salt", metavar="TEXT", help="Tells apart several items of one key; 1 to 64 bytes."
)
key_option = click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="GRENACHE_KEY",
    metavar="FILE",
    help="File of the key to sign with, as keygen makes it; implies --mutable.",
)


@click.command(short_help="Store a value.")
@click.argument("value")
@click.option("-m", "--mutable", is_flag=True, help="Sign it, so that it can be replaced by a newer version.")
@key_option
@salt_option
@click.option(
    "-n",
    "--seq",
    "--number",
    "seq",
    type=click.IntRange(min=0),
    metavar="N",
    help="Number of this version.  [default: one more than the present one]",
)
@click.option(
    "-c",
    "--cas",
    type=click.IntRange(min=0),
    metavar="N",
    help="Only if the present version has this number (compare and swap).",
)
@json_option
@network_options()
def put(
    network: Network,
    value: str,
    mutable: bool,
    key_file: Path | None,
    salt: str | None,
    seq: int | None,
    cas: int | None,
    json_output: bool,
) -> None:
    """Store VALUE and show its key; with --json also how many Grapes stored it, refused it, stayed silent.

    VALUE is a text of at most 999 bytes; -: standard input. What is stored can't be changed, unless it is
    --mutable: signed with your key (grenache-py keygen), it is found under the same key in each version.

    \b
    Examples:
      grenache-py put 'hello world'
      grenache-py put --mutable --salt sys:uptime "$(uptime -p)"
    """
    mutable = mutable or key_file is not None
    for name, given in (("--salt", salt), ("--seq", seq), ("--cas", cas)):
        if given is not None and not mutable:
            raise click.UsageError(f"{name} needs --mutable")
    text = sys.stdin.read() if value == "-" else value

    async def work() -> tuple[str, PutReport | None]:
        async with network.link() as link:
            if not mutable:
                return await link.put_report(text)
            from ..keyfile import load_key

            path = key_file or default_key()
            if key_file is None and not path.exists():
                raise KeyFileError(f"there is no key {path} yet: make one with `grenache-py keygen`")
            return await link.put_report(text, load_key(path), salt=salt_bytes(salt), seq=seq, cas=cas)

    key, report = run(work())
    if json_output:
        click.echo(as_json({"key": key, "report": None if report is None else asdict(report)}))
    else:
        click.echo(key)


@click.command(short_help="Show a stored value.")
@click.argument("key")
@salt_option
@click.option("--fresh", is_flag=True, help="Ask other Grapes even if this one holds a copy.")
@click.option("--no-verify", is_flag=True, help="Show it even if it is not what KEY stands for.")
@click.option(
    "-r", "--raw", is_flag=True, help="Write the value as it is, also what a terminal would act on."
)
@json_option
@network_options()
def get(
    network: Network,
    key: str,
    salt: str | None,
    fresh: bool,
    no_verify: bool,
    raw: bool,
    json_output: bool,
) -> None:
    """Show the value stored under KEY.

    KEY is 40 hexadecimal digits, as put shows them, or the public key (64 digits) that signs the value. It is
    verified: that the value is the one KEY stands for, and signed where it is mutable.
    """
    hash = key
    if len(key) == PUBLIC_KEY_DIGITS:
        try:
            hash = sha1(bytes.fromhex(key) + (salt_bytes(salt) or b"")).hexdigest()
        except ValueError:
            pass  # refused as what it is

    async def work() -> None:
        async with network.link() as link:
            item = await link.get(hash, salt=salt_bytes(salt), fresh=fresh, verify=not no_verify)
        if json_output:
            fields = None
            if item is not None:
                fields = {
                    "value": item.value,
                    "seq": item.seq,
                    "k": item.k.hex() if item.k is not None else None,
                    "sig": item.sig.hex() if item.sig is not None else None,
                }
            click.echo(as_json(fields))
        elif item is not None:
            sys.stdout.write(item.value if raw else printable(item.value) + "\n")
        else:
            tell("Error: nothing is stored under this key\na value with a salt needs --salt")
        if item is None:
            raise click.exceptions.Exit(ExitStatus.NOT_FOUND)

    run(work())


@click.command(short_help="Make a key to sign values with.")
@click.option(
    "-o",
    "--out",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The new file; an existing one is left alone.  [default: the one that put --mutable uses]",
)
@json_option
def keygen(path: Path | None, json_output: bool) -> None:
    """Make a key to sign values with, in a file that only you can read, and show its public half.

    Whoever has the file can replace your values. It is ed25519 in PEM, which OpenSSL, Node and
    `orderbook peer --key` read as well.
    """
    from ..keyfile import create_key

    try:
        if path is None:
            path = default_key()
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise KeyFileError(f"{path.parent} can't be made: {error.strerror}") from error
        public = create_key(path).public_key().public_bytes_raw().hex()
    except KeyFileError as error:
        raise Failure(error) from error
    if json_output:
        click.echo(as_json({"key": public, "file": str(path)}))
    else:
        click.echo(public)
        tell(f"kept in {printable(str(path))}")
