"""The commands for sites and settings: parsed here, done in `site_shows` and `site_probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pilotflow.cli.in_words import CONFIG_WRONG, INFRASTRUCTURE_FAILED, errors_in_words
from pilotflow.cli.options import BASE, SITES, Base, Json, RunName

site_app = typer.Typer(name="site", help="What is known of this machine and of others.", no_args_is_help=True)
config_app = typer.Typer(name="config", help="What holds here, and who says so.", no_args_is_help=True)

Name = Annotated[str | None, typer.Argument(metavar="SITE", help="A site; this one by default.", show_default=False)]


@site_app.command("list")
def list_sites(json: Json = False) -> None:
    """List the sites that are known here; this one is marked."""
    from pilotflow.cli.site_shows import show_list

    with errors_in_words():
        show_list(json)


@site_app.command("show")
def show(name: Name = None, json: Json = False) -> None:
    """Show a site: partitions, limits, snippets, and which facts nobody has verified."""
    from pilotflow.cli.site_shows import show_site

    with errors_in_words():
        show_site(name, json)


@site_app.command("detect")
def detect(json: Json = False) -> None:
    """Say which site this is, and what tells so."""
    from pilotflow.cli.site_shows import show_detected

    with errors_in_words():
        if not show_detected(json):
            raise typer.Exit(CONFIG_WRONG)


@site_app.command("match")
def match(
    name: Name = None,
    num_cpus: Annotated[float | None, typer.Option(help="Cores a node.")] = None,
    memory: Annotated[str | None, typer.Option(help='Memory a node, such as "4g".')] = None,
    num_gpus: Annotated[float | None, typer.Option(help="GPUs a node.")] = None,
    num_nodes: Annotated[int | None, typer.Option(help="Nodes.")] = None,
    runtime: Annotated[str | None, typer.Option(help='How long it runs, such as "2h".')] = None,
    json: Json = False,
) -> None:
    """Say which partitions a request fits into, and why it does not fit into the others."""
    from pilotflow.cli.site_shows import show_matches

    asked: dict[str, Any] = {
        "num_cpus": num_cpus,
        "memory": memory,
        "num_gpus": None if num_gpus is None else num_gpus if num_gpus % 1 else int(num_gpus),
        "num_nodes": num_nodes,
        "runtime": runtime,
    }
    with errors_in_words():
        if not show_matches(name, asked, json):
            raise typer.Exit(CONFIG_WRONG)


@site_app.command("generate")
def generate(
    name: Annotated[str | None, typer.Option(help="What the site is called; the cluster's name by default.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to this file, which must not exist.")
    ] = None,
) -> None:
    """Write a site file from what this machine's Slurm says of itself."""
    from pilotflow.cli.site_probe import generate_site

    with errors_in_words():
        generate_site(name, output)


@site_app.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A site file.", show_default=False)],
    run: Annotated[bool, typer.Option("--run", help="Also run a task on one node of each partition.")] = False,
    account: Annotated[str | None, typer.Option(help="The account to try with.")] = None,
    partition: Annotated[list[str] | None, typer.Option(help="Try only this one; may be given again.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a task may take to come back.")] = 300.0,
    json: Json = False,
) -> None:
    """Check a site file and try on this machine what it says; prints what passes and what fails."""
    from pilotflow.cli.site_probe import Trial, probe_site

    with errors_in_words("Interrupted. All batch jobs of the trial have been cancelled."):
        trial = Trial(run, account, tuple(partition or ()), timeout)
        if not probe_site(file, trial, json):
            raise typer.Exit(INFRASTRUCTURE_FAILED)


@config_app.command("show")
def show_config(
    origin: Annotated[bool, typer.Option("--origin", help="Show where each value was set.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="As if it were said; may be given again.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the settings that hold for runs started here, and the executors that they amount to."""
    from pilotflow.cli.site_shows import show_settings

    with errors_in_words():
        show_settings(settings or [], origin, json)


def support_bundle(
    run: RunName = "last",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to this file, which must not exist.")
    ] = None,
    run_dir: Base = BASE,
) -> None:
    """Put what an admin needs to help with a run into one file, without its secrets, arguments and results."""
    from pilotflow.cli.support_bundle import write_bundle

    with errors_in_words():
        target = write_bundle(run, run_dir, output)
        print(f"{target} written. Look through it before you send it: tar -tzf {target}")


def add_site_commands(app: typer.Typer) -> None:
    """Add the commands of sites to the command line."""
    app.add_typer(site_app, rich_help_panel=SITES)
    app.add_typer(config_app, rich_help_panel=SITES)
    app.command("support-bundle", rich_help_panel=SITES)(support_bundle)
