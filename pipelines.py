"""Reads a profile from `pipelines.yaml`: strict names and types, errors with the line and a suggestion.

Nothing runs here and no network is loaded; a profile that comes out of `load` can be started. What stands behind a
stage's name is found by its path, so this file imports no stage.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

import renamed

ROOT = Path(__file__).resolve().parent
PIPELINES = ROOT / "pipelines.yaml"


# Types of settings beside pydantic's own (PositiveInt, NonNegativeFloat, ...); what breaks them is refused with a line.
Seconds = Annotated[float, Field(ge=1 / 25)]  # at least a frame
Gigabytes = Annotated[float, Field(ge=0.04)]
Expansion = Annotated[float, Field(ge=0.04)]
Pixels = Annotated[int, Field(ge=2)]  # of the side of a picture
EvenPixels = Annotated[int, Field(ge=2, multiple_of=2)]  # H.264 halves the colours
Device = Literal["cpu", "cuda"]

T = TypeVar("T")


class ProfileError(ValueError):
    """A profile that cannot be run; the text says where, what was found and what to do."""


@dataclass(frozen=True)
class SourceLimits:
    """See media.probe.Limits."""

    max_duration_s: Seconds
    max_pixels: PositiveInt
    max_bytes: PositiveInt


@dataclass(frozen=True)
class WorkerSettings:
    """How work is handed out. None of it can change a result, so it is no part of the recipe."""

    gpus: NonNegativeFloat  # of each worker, on cuda
    deadline_s: Seconds  # a source has this long, and
    deadline_factor: NonNegativeFloat  # this many seconds for each of its own
    max_gb: Gigabytes  # memory of a worker before it ends itself, and its source is tried once more
    recycle_gb: Gigabytes  # memory of a worker above which it is replaced when a source is done
    recycle_sources: PositiveInt  # sources after which it is replaced


NESTED: dict[str, type] = {"limits": SourceLimits, "workers": WorkerSettings}
MAX_NODES = 100_000  # of a document; pipelines.yaml has some 500
OTHER_HALF = "training"  # the section that `load` leaves to `load_section`


@dataclass(frozen=True)
class Profile:
    name: str
    device: Device
    seed: NonNegativeInt
    shard_bytes: PositiveInt
    workers: WorkerSettings
    limits: SourceLimits
    stages: tuple[tuple[str, dict[str, Any]], ...]  # (name, every setting, defaults included)

    def as_dict(self) -> dict[str, Any]:
        """What decides the result, as plain data, for the recipe."""
        stages = [{name: settings} for name, settings in self.stages]
        plain_fields = {**dataclasses.asdict(self), "stages": stages}
        del plain_fields["workers"]
        return plain_fields


def names(path: Path = PIPELINES) -> list[str]:
    return list(plain(compose(path), path))


def load(name: str, overrides: Sequence[str] = (), path: Path = PIPELINES) -> Profile:
    """The profile `name` with `--set` overrides such as `filters/niqe.max_niqe=7.5`.

    Raises ProfileError for unknown names and wrong types, with the line in the file or the override.
    """
    values, where = profile_of(name, path)
    trained = settings_listed(values.pop(OTHER_HALF, None))
    stages = stage_list(values.pop("stages", []), where)
    known = {field.name: field for field in dataclasses.fields(Profile) if field.name not in ("name", "stages")}
    for override in overrides:
        apply(override, values, stages, {"training/train.py": trained})
    for key in values:
        if key not in known:
            raise ProfileError(f"{where(key)}: unknown setting {key!r}{suggestion(key, known)}")
    for key in known.keys() - values.keys():
        raise ProfileError(f"{where()}: profile {name!r} lacks the setting {key!r}")
    for key, cls in NESTED.items():
        values[key] = cls(**check_settings(settings_in(values[key], where, key), fields_of(cls), where, key))
    hints = typing.get_type_hints(Profile, include_extras=True)
    for key in known.keys() - NESTED.keys():
        values[key] = check_value(values[key], hints[key], where(key), key)
    checked_names = tuple(check_stages(stages, where))
    check_order([stage for stage, _ in checked_names], where)
    return Profile(name=name, stages=checked_names, **values)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A run's recipe.yaml with overrides of its profile applied and checked, and its hash made new."""
    values, where = profile_of("profile", path)
    stages = stage_list(values.pop("stages", []), where)
    for override in overrides:
        apply(override, values, stages)
    hints = typing.get_type_hints(Profile, include_extras=True)
    for key in values.keys() - NESTED.keys():
        values[key] = check_value(values[key], hints[key], where(key), key)
    recipe = plain(compose(path), path)
    recipe["profile"] = {**values, "stages": [{name: settings} for name, settings in check_stages(stages, where)]}
    return {**recipe, "hash": recipe_hash(recipe)}


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """sha256 over all that decides a result."""
    deciding = {key: recipe[key] for key in ("profile", "score_only", "weights", "code")}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def load_section(name: str, section: str, cls: type[T], overrides: Sequence[str] = (), path: Path = PIPELINES) -> T:
    """A section of a profile whose groups are the fields of the dataclass `cls`, each a dataclass of settings itself.

    Overrides are written `group.setting=value`. Raises ProfileError as `load` does.
    """
    values, where = profile_of(name, path)
    if section not in values:
        raise ProfileError(f"{where()}: profile {name!r} has no section {section!r}")
    where = Where(path, where.child(where.node, section) or where.node)
    groups = settings_in(values[section], where, section)
    types = typing.get_type_hints(cls)
    for key in groups:
        if key not in types:
            raise ProfileError(f"{where(key)}: {section} has no group {key!r}{suggestion(key, types)}")
    groups = {key: settings_in(groups.get(key), where, key) for key in types}
    for override in overrides:
        dotted, value = parse_override(override, "optimizer.learning_rate=1.0e-5")
        group, _, key = dotted.partition(".")
        if group not in types or key not in fields_of(types[group]):
            choices = [f"{group}.{field}" for group, kind in types.items() for field in fields_of(kind)]
            listed = values.get("stages") or []
            curated = settings_listed({name: settings_of(name) for name, _ in stage_list(listed, where)})
            raise unknown_setting(override, dotted, choices, {"curation/run.py": curated})
        groups[group][key] = value
    return cls(**{key: kind(**check_settings(groups[key], fields_of(kind), where, key)) for key, kind in types.items()})


def profile_of(name: str, path: Path) -> tuple[dict[str, Any], "Where"]:
    """The settings of a profile as plain data, and what finds their lines."""
    profiles = {key.value: node for key, node in compose(path).value}
    if name not in profiles:
        raise ProfileError(f"profile {name!r} is not in {path.name}{suggestion(name, profiles)}")
    where = Where(path, profiles[name])
    values = plain(profiles[name], path)
    if not isinstance(values, dict):
        raise ProfileError(f"{where()}: profile {name!r} needs settings such as `name: value`, found {values!r}")
    return values, where


def weights_of(profile: str | Profile) -> list[str]:
    """The names in `weights.yaml` (or paths) of every network that a profile uses."""
    loaded = load(profile) if isinstance(profile, str) else profile
    return list(dict.fromkeys(settings["weights"] for _, settings in loaded.stages if settings.get("weights")))


def compose(path: Path) -> yaml.MappingNode:
    """Return the YAML document as nodes, which have their line numbers. Raises ProfileError."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise ProfileError(f"{path}: a mapping of profiles was expected")
        check_nodes(node, path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ProfileError(f"{path}: is nested too deeply, or an alias in it stands for itself") from error
    return node


def check_nodes(document: yaml.Node, path: Path) -> None:
    """Give stages the names that they have today, and raise ProfileError for what YAML allows and a profile cannot be.

    That is a key that is no text, or is given twice, of which YAML would take the last; and aliases of aliases that
    stand for more than MAX_NODES values.
    """
    count = 0

    def check(node: yaml.Node) -> None:
        nonlocal count
        count += 1
        if count > MAX_NODES:
            line = f"{path.name}:{node.start_mark.line + 1}"
            raise ProfileError(f"{line}: aliases in aliases stand for more than {MAX_NODES} values")
        if isinstance(node, yaml.ScalarNode):
            node.value = renamed.stage_today(node.value)
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                check(child)
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                line = f"{path.name}:{key.start_mark.line + 1}"
                if not isinstance(key, yaml.ScalarNode):
                    raise ProfileError(f"{line}: a name is needed before the colon, found a list or a mapping")
                check(key)
                if key.value in keys:
                    raise ProfileError(f"{line}: {key.value!r} is given twice")
                keys.add(key.value)
                check(value)

    check(document)


def plain(node: yaml.Node, path: Path) -> Any:
    """Return a node as plain Python data. Raises ProfileError for a tag that stands for anything else."""
    try:
        return yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, ValueError, TypeError) as error:  # `!!python/object`, `!!int many`, `!!binary {}`
        raise ProfileError(f"{path.name}:{node.start_mark.line + 1} and below: {error}") from error


class Where:
    """Finds the line of a dotted path such as `filters/niqe.max_niqe` inside a profile's nodes."""

    def __init__(self, path: Path, node: yaml.Node) -> None:
        self.path, self.node = path, node

    def __call__(self, dotted: str = "") -> str:
        node = self.node
        for part in dotted.split("."):
            node = self.child(node, part) or node
        return f"{self.path.name}:{node.start_mark.line + 1}"

    def child(self, node: yaml.Node, part: str) -> yaml.Node | None:
        if isinstance(node, yaml.MappingNode):
            pairs = node.value
            if "/" in part:  # a stage: an entry of the list `stages`
                pairs = [p for key, stages in node.value if key.value == "stages" for p in entries(stages)]
            return next((value for key, value in pairs if key.value == part), None)
        return None


def entries(stages: yaml.Node) -> list[tuple[yaml.Node, yaml.Node]]:
    """(name node, settings node) of each stage in the list."""
    found = []
    for item in stages.value:
        found += [(item, item)] if isinstance(item, yaml.ScalarNode) else item.value
    return found


def stage_list(raw: Any, where: Where) -> list[tuple[str, dict[str, Any]]]:
    """The `stages` list, whose entries are a name or a mapping of one name to its settings."""
    stages = []
    for item in raw if isinstance(raw, list) else []:
        if isinstance(item, str):
            stages.append((item, {}))
        elif isinstance(item, dict) and len(item) == 1:
            name, settings = next(iter(item.items()))
            stages.append((name, settings_in(settings, where, name)))
        else:
            raise ProfileError(f"{where('stages')}: a stage is a name, or one name with its settings; found {item!r}")
    if not stages:
        raise ProfileError(f"{where('stages')}: no stages")
    if twice := [name for i, (name, _) in enumerate(stages) if name in dict(stages[:i])]:
        raise ProfileError(f"{where(twice[0])}: {twice[0]} is listed twice")
    return stages


def settings_in(settings: Any, where: Where, owner: str) -> dict[str, Any]:
    if not isinstance(settings, dict | None):
        raise ProfileError(f"{where(owner)}: {owner} needs settings such as `name: value`, found {settings!r}")
    return dict(settings or {})


def settings_listed(section: Any) -> list[str]:
    """Return what a section of groups sets, as `group.setting`; nothing for what is no such section."""
    groups = section if isinstance(section, dict) else {}
    return [f"{group}.{key}" for group, settings in groups.items() if isinstance(settings, dict) for key in settings]


def apply(
    override: str,
    values: dict[str, Any],
    stages: list[tuple[str, dict[str, Any]]],
    elsewhere: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Sets one value from the command line; the path must exist. `elsewhere` has other commands' settings."""
    dotted, value = parse_override(override, "filters/niqe.max_niqe=7.5")
    owner, _, key = dotted.rpartition(".")
    owner = renamed.stage_today(owner)
    by_name = dict(stages)
    if owner in by_name:
        by_name[owner][key] = value
    elif owner in NESTED:
        values[owner] = {**(values.get(owner) or {}), key: value}
    elif not owner and key in values:
        values[key] = value
    else:
        choices = [*values, *(f"{name}.{field}" for name in by_name for field in settings_of(name))]
        choices += [f"{name}.{field}" for name, cls in NESTED.items() for field in fields_of(cls)]
        raise unknown_setting(override, dotted, choices, elsewhere)


def unknown_setting(
    override: str, dotted: str, known: Sequence[str], elsewhere: Mapping[str, Sequence[str]]
) -> "ProfileError":
    """Return the error about a `--set` of nothing, which names the closest setting of any section."""
    for command, settings in elsewhere.items():
        if dotted in settings or (not closest(dotted, known) and closest(dotted, settings)):
            found = closest(dotted, settings)
            return ProfileError(f"--set {override}: no setting of this command; did you mean {found!r} of {command}?")
    return ProfileError(f"--set {override}: nothing is called {dotted!r}{suggestion(dotted, known)}")


def parse_override(override: str, example: str) -> tuple[str, Any]:
    """`path=value` as path and value."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ProfileError(f"--set {override}: expected path=value, such as {example}")
    try:
        return dotted, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ProfileError(f"--set {override}: {text!r} is not a value ({error})") from error


def check_stages(stages: list[tuple[str, dict[str, Any]]], where: Where) -> typing.Iterator[tuple[str, dict[str, Any]]]:
    known = stage_names()
    for name, settings in stages:
        if name not in known:
            raise ProfileError(f"{where(name)}: no stage {name!r} in curation/{suggestion(name, known)}")
        values = check_settings(settings, settings_of(name), where, name)
        if values.get("weights") and Path(values["weights"]).is_file():  # a worker may run in another folder
            values["weights"] = str(Path(values["weights"]).absolute())
        yield name, values


def check_order(names: Sequence[str], where: Where) -> None:
    """Raises ProfileError if a stage comes before what gives it what it needs, or behind what ends that."""
    given: set[str] = set()
    ended: dict[str, str] = {}  # what -> the stage that ended it
    for name in names:
        stage = stage_class(name)
        for need in stage.NEEDS:
            if need in ended:
                raise ProfileError(f"{where(name)}: {name} needs {need}; put it before {ended[need]}, which ends that")
            if need not in given | stage.AT_START:
                givers = [other for other in stage_names() if need in stage_class(other).GIVES]
                raise ProfileError(f"{where(name)}: {name} needs {need}; put {' or '.join(givers)} before it")
        given |= set(stage.GIVES)
        ended |= dict.fromkeys(stage.ENDS, name)


def stage_names() -> list[str]:
    """`steps/crop`, `filters/niqe` and so on: every stage that there is."""
    files = [file for kind in ("steps", "filters") for file in sorted((ROOT / "curation" / kind).glob("[!_]*.py"))]
    return [f"{file.parent.name}/{file.stem}" for file in files]


def stage_class(name: str) -> Any:
    """The class of a stage, which bears the name of its file: `StableSpans` in curation/steps/stable_spans.py."""
    module = importlib.import_module(f"curation.{name.replace('/', '.')}")
    return getattr(module, "".join(word.capitalize() for word in name.rpartition("/")[2].split("_")))


def settings_of(name: str) -> dict[str, tuple[Any, Any]]:
    """{setting: (type, default)} of a stage."""
    return fields_of(stage_class(name))


def fields_of(cls: type) -> dict[str, tuple[Any, Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: (hints[field.name], field.default) for field in dataclasses.fields(cls)}


def check_settings(
    settings: Mapping[str, Any], fields: Mapping[str, tuple[Any, Any]], where: Where, owner: str
) -> dict[str, Any]:
    """Return settings with defaults filled in. Raises ProfileError for unknown names and wrong types."""
    for key in settings:
        if key not in fields:
            raise ProfileError(f"{where(f'{owner}.{key}')}: {owner} has no setting {key!r}{suggestion(key, fields)}")
    values = {}
    for key, (hint, default) in fields.items():
        if key not in settings and default is dataclasses.MISSING:
            raise ProfileError(f"{where(owner)}: {owner} lacks the setting {key!r}")
        values[key] = check_value(settings.get(key, default), hint, where(f"{owner}.{key}"), f"{owner}.{key}")
    return values


def check_value(value: Any, hint: Any, where: str, name: str) -> Any:
    """Return a value as its type has it. Raises ProfileError if it is of another type, or outside what that allows."""
    try:
        return adapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        raise ProfileError(f"{where}: {name} {explain(value, hint, error.errors()[0])}") from error


@functools.cache
def adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))


def explain(value: Any, hint: Any, error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, and what is needed instead, from the first of pydantic's errors."""
    kind, bounds = error["type"], error.get("ctx", {})
    shown = repr(error["input"]) if error["loc"] else repr(value)
    if kind == "finite_number":
        return f"is {shown}; a finite number is needed"
    if kind in ("greater_than_equal", "greater_than"):
        if "gt" in bounds:
            return f"is {shown}; more than {bounds['gt']} is needed"
        return f"is {shown}; {bounds['ge']:g} is the least that it can be"
    if kind == "multiple_of":
        return f"is {shown}; a multiple of {bounds['multiple_of']} is needed"
    plain_hint = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    if kind == "literal_error" and isinstance(value, str):
        return f"is {shown}{suggestion(value, map(str, typing.get_args(plain_hint)))}"
    wanted = getattr(plain_hint, "__name__", str(plain_hint)).replace("Literal", "str")
    found = f"is {value!r}, which is {'text' if isinstance(value, str) else type(value).__name__}"
    hint_text = " (YAML reads 3e-5 as text; write 3.0e-5)" if isinstance(value, str) and looks_numeric(value) else ""
    return f"{found}; {wanted} is needed{hint_text}"


def looks_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def suggestion(wrong: str, known: typing.Iterable[str]) -> str:
    """`; did you mean 'x'?`, or what there is."""
    options = list(known)
    close = closest(wrong, options)
    return f"; did you mean {close!r}?" if close else f"; there is {', '.join(options)}"


def closest(wrong: str, known: Sequence[str]) -> str:
    """Return the name that is nearest to a wrong one, else one whose last part is; empty if none is near."""
    whole = difflib.get_close_matches(str(wrong), known, n=1)
    last = {name.rpartition(".")[2]: name for name in known}
    parts = difflib.get_close_matches(str(wrong).rpartition(".")[2], last, n=1, cutoff=0.75)
    return whole[0] if whole else last[parts[0]] if parts else ""
