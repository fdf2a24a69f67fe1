"""Dataclasses as schemas: plain values from YAML or the command line -> checked values -> objects.

A *component* is a mapping with a `_target_`, the dotted name of a dataclass: that dataclass is its schema.
Every value is converted and checked by its field's type and limits; a mistake is a UserError of one line that
names the key, the value and the nearest valid choice.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import traceback
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablate.types import UserError

COMPONENT = {"component": True}  # metadata of a field that only a mapping with a `_target_` can fill


def limited(default: Any, **limits: float) -> Any:
    """A field with limits: `at_least` (inclusive), `above` and `below` (exclusive)."""
    return dataclasses.field(default=default, metadata=limits)


def build(node: Any) -> Any:
    """The object that a component describes. Raises UserError.

    The only place where configuration becomes objects. Only dataclasses are called, by keyword, with checked
    values; `hydra.utils.instantiate`, which calls whatever a file names, is not involved.
    """
    values: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(values, Mapping) or "_target_" not in values:
        raise UserError(f"{values!r} is not a component: it has no _target_")
    key = str(values["_target_"]).rpartition(".")[2]
    return construct(_read_component(values, key), key)


def read(cls: type, given: Mapping[str, Any], key: str, preset: Any = None) -> dict[str, Any]:
    """A plain value for every field of the dataclass: the given one, checked and converted, or the default.

    key: the dotted key of the whole, "" for the root; preset: an instance whose values are the defaults.
    Raises UserError.
    """
    hints = _hints(cls)
    fields = [each for each in dataclasses.fields(cls) if each.init]
    paths = {each.name: f"{key}.{each.name}" if key else each.name for each in fields}
    for name in given:
        if name not in paths:
            raise unknown_key(f"{key}.{name}" if key else str(name), paths.values())
    values = {}
    for each in fields:
        path, hint = paths[each.name], hints[each.name]
        default = getattr(preset, each.name) if preset is not None else _default(each)
        value = given.get(each.name, default)
        nested = type(default) if dataclasses.is_dataclass(default) else dataclass_in(hint)
        if isinstance(value, Mapping) and "_target_" in value:
            values[each.name] = _read_component(value, path)
        elif "component" in each.metadata:
            raise UserError(f"{path} is not chosen: it needs a choice of its group, or a _target_")
        elif nested and (isinstance(value, Mapping) or dataclasses.is_dataclass(value)):
            mapping = value if isinstance(value, Mapping) else {}
            base = default if dataclasses.is_dataclass(default) else None
            values[each.name] = read(nested, mapping, path, base)
            if nested is not dataclass_in(hint):  # the default's class, not the declared one
                values[each.name]["_target_"] = f"{nested.__module__}.{nested.__qualname__}"
        elif nested and value is not None:
            inner = next(each.name for each in dataclasses.fields(nested))
            raise UserError(f"{path}={value}: {path} has keys of its own, for example {path}.{inner}")
        else:
            values[each.name] = _convert(hint, value, path)
            _check_limits(values[each.name], each.metadata, path)
    return values


def construct(values: Mapping[str, Any], key: str, cls: type | None = None) -> Any:
    """An object from the values that `read` returned; of the class that `_target_` names unless told."""
    cls = cls or _locate(values["_target_"], key)
    hints = _hints(cls)
    arguments = {}
    for name, value in values.items():
        if name == "_target_":
            continue
        if isinstance(value, Mapping) and "_target_" in value:
            value = construct(value, f"{key}.{name}")
        elif isinstance(value, Mapping) and (nested := dataclass_in(hints[name])):
            value = construct(value, f"{key}.{name}", nested)
        arguments[name] = value
    try:
        return cls(**arguments)
    except (UserError, ValueError) as error:
        text = one_line(error)
        raise UserError(text if text.startswith(f"{key}.") else f"{key}: {text}") from error


def keys(cls: type, prefix: str = "") -> dict[str, bool]:
    """Dotted keys of a dataclass and of the dataclasses in it: {key: is it a component}."""
    found: dict[str, bool] = {}
    for each in dataclasses.fields(cls):
        if nested := dataclass_in(_hints(cls)[each.name]):
            found |= keys(nested, f"{prefix}{each.name}.")
        else:
            found[prefix + each.name] = "component" in each.metadata
    return found


def nearest(name: str, choices: Iterable[str]) -> str:
    """Advice for a misspelt name: the nearest choice, then all of them."""
    names = sorted(choices)
    close = difflib.get_close_matches(name, names, n=1)
    close = close or [each for each in names if len(name) > 3 and name.lower() in each.lower()]
    parts = [f"did you mean {close[0]}?"] if close else []
    return "; ".join([*parts, f"choices: {', '.join(names) or 'none'}"])


def unknown_key(key: str, beside: Iterable[str], anywhere: Iterable[str] = ()) -> UserError:
    """The answer to a key that does not exist.

    beside: full keys that could stand in its place; anywhere: keys that are meant if they end alike, or whose
    groups a part of it misspells.
    """
    beside, anywhere = sorted(beside), list(anywhere)
    if better := _respelt(key, anywhere):
        around = [name for name in anywhere if name.rpartition(".")[0] == better.rpartition(".")[0]]
        if nearby := difflib.get_close_matches(better, around, n=1) if around else [better]:
            return UserError(f"unknown key {key}; did you mean {nearby[0]}?")
    leaf = _leaf(key)
    close = difflib.get_close_matches(leaf, map(_leaf, beside), n=len(beside) or 1)
    likely = [other for other in beside if _leaf(other) in close] or [o for o in anywhere if _leaf(o) == leaf]
    if likely:
        best = difflib.get_close_matches(key, likely, n=1, cutoff=0)[0]
        return UserError(f"unknown key {key}; did you mean {best}?")
    few = 0 < len(beside) <= 24
    known = f"known keys: {', '.join(beside)}" if few else "python -m ablate --cfg job lists all"
    return UserError(f"unknown key {key}; {known}")


def _respelt(key: str, known: Iterable[str]) -> str | None:
    """The key with the first of its groups that does not exist spelt as one that does."""
    parts = key.split(".")
    paths = [name.split(".") for name in known]
    for i in range(len(parts) - 1):
        here = {path[i] for path in paths if len(path) > i and path[:i] == parts[:i]}
        if parts[i] not in here:
            close = difflib.get_close_matches(parts[i], here, n=1)
            return ".".join([*parts[:i], *close, *parts[i + 1 :]]) if close else None
    return None


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def dataclass_in(hint: Any) -> type | None:
    """The dataclass in an annotation `D` or `D | None`."""
    classes = (each for each in (hint, *get_args(hint)) if isinstance(each, type))
    return next((each for each in classes if dataclasses.is_dataclass(each)), None)


def one_line(error: BaseException) -> str:
    """An exception's message as one line; its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _read_component(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    cls = _locate(given["_target_"], key)
    rest = {name: value for name, value in given.items() if name != "_target_"}
    return {"_target_": given["_target_"], **read(cls, rest, key)}


def _locate(target: Any, key: str) -> type:
    """The dataclass that a `_target_` names."""
    module_name, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if not module_name:
        raise UserError(f"{key}._target_={target} is not of the form package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(f"{key}._target_={target}: {_import_failure(module_name, error)}") from error
    found = getattr(module, name, None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and dataclasses.is_dataclass(v)]
        what = f"{name} is not a dataclass" if found is not None else f"{module_name} has no {name}"
        raise UserError(f"{key}._target_={target}: {what}; {nearest(name, classes)}")
    return found


def _import_failure(module_name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if f"{module_name}.".startswith(f"{error.name}."):
            return f"there is no module {error.name}, in the working directory or installed"
        return f"{module_name} needs {error.name}, which is not installed"
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}"
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}, line {last.lineno}"
    return f"{place}: {type(error).__name__}: {one_line(error)}"


def _convert(hint: Any, value: Any, key: str) -> Any:
    """The value in the field's type, by OmegaConf's rules ("3e-4" is a number, 1.5 is no whole number)."""
    if value is dataclasses.MISSING or (isinstance(value, str) and value == MISSING):
        raise UserError(f"{key} has no value: set {key}=...")
    choices = get_args(hint)
    if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
        raise UserError(f"{key}={value} is not a choice; {nearest(str(value), choices)}")
    try:
        holder = OmegaConf.structured(_holder(hint))
    except OmegaConfBaseException as error:
        raise UserError(f"{key}: a configuration cannot hold values of type {hint}") from error
    try:
        OmegaConf.update(holder, "value", value)
        return OmegaConf.to_object(holder.value) if OmegaConf.is_config(holder.value) else holder.value
    except OmegaConfBaseException as error:
        listed = get_origin(hint) in (list, tuple) and isinstance(value, str | int | float)
        wanted = f"a list, as in {key}=[{value}]" if listed else _describe(hint)
        raise UserError(f"{key}={'null' if value is None else value} is not {wanted}") from error


@cache
def _holder(hint: Any) -> type:
    """A schema of one value: OmegaConf converts only what sits in a dataclass."""
    return dataclasses.make_dataclass("Value", [("value", hint, MISSING)])


def _describe(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    words[type(None)] = "null"
    kinds = [hint] if hint in words else list(get_args(hint))
    if kinds and all(kind in words for kind in kinds):
        return " or ".join(words[kind] for kind in kinds)
    return f"of type {hint}"


def _check_limits(value: Any, limits: Mapping[str, Any], key: str) -> None:
    if value is None or not limits:
        return
    if not math.isfinite(value):
        raise UserError(f"{key}={value} is not a finite number")
    if "at_least" in limits and value < limits["at_least"]:
        raise UserError(f"{key}={value} is too small: the smallest valid value is {limits['at_least']}")
    if "above" in limits and value <= limits["above"]:
        raise UserError(f"{key}={value} is too small: it must be larger than {limits['above']}")
    if "below" in limits and value >= limits["below"]:
        raise UserError(f"{key}={value} is too large: it must be smaller than {limits['below']}")


@cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except NameError as error:  # an annotation imported for type checkers only
        raise UserError(f"{cls.__module__}.{cls.__qualname__}: {one_line(error)} in an annotation") from error


def _default(each: dataclasses.Field) -> Any:
    return each.default if each.default_factory is dataclasses.MISSING else each.default_factory()


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in nested mappings; an empty one has nothing in it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
