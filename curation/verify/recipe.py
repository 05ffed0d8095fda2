"""Whether an output says truly how it was made: its recipes against the hashes in them."""

from collections.abc import Iterator
from pathlib import Path

from curation.ledger import LedgerError, read_recipe
from curation.verify.tables import Finding
from pipelines import recipe_hash


def check_recipes(output: Path) -> Iterator[Finding]:
    """Check recipe.yaml, and those that --fork put aside as recipe-<hash>.yaml."""
    newest = output / "recipe.yaml"
    if not newest.is_file():
        yield Finding("recipe", f"{newest}: missing; nobody can tell how this output was made")
    for file in sorted(output.glob("recipe*.yaml")):
        try:
            recipe = read_recipe(file)
            true = recipe_hash(recipe)
        except (LedgerError, OSError, KeyError) as error:
            yield Finding("recipe", str(error) if str(file) in str(error) else f"{file}: cannot be read ({error!r})")
            continue
        if recipe["hash"] != true:
            yield Finding("recipe", f"{file}: was changed since it was written: its hash is not that of its content")
        elif file != newest and file.name != f"recipe-{true[:8]}.yaml":
            yield Finding("recipe", f"{file}: is the recipe {true[:8]}, and its name says another")
