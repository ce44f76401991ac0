"""Objects that a configuration chooses by name, their options checked with everything else.

:class:`Choice` is a section that chooses one object, :class:`Choices` one that chooses several:

    algorithm: {name: grpo, clip_low: 0.2}                    # a Choice: the name, then the options
    rewards: {accuracy: {weight: 1.0}, format: {weight: 1.0}}    # Choices: name -> options

A table of names and modules lists the known ones. A module holds a class under a name that all
modules of the table share (``ALGORITHM``, ``REWARD``): a frozen pydantic model, its fields are the
options and its methods do the work. A name with a dot is the module of a class of the user's own,
imported from the folder that the run is started in. A section of each kind looks so:

    class AlgorithmConfig(Choice):
        table: ClassVar[Mapping[str, str]] = ALGORITHMS
        attribute: ClassVar[str] = "ALGORITHM"
        chosen: Algorithm

    class RewardsConfig(Choices):
        table: ClassVar[Mapping[str, str]] = REWARDS
        attribute: ClassVar[str] = "REWARD"
        chosen: dict[str, Reward]

``config.algorithm.chosen`` is then a Grpo, ``config.rewards.chosen["accuracy"]`` an accuracy
reward. Both sections are written back as the YAML that they were read from, defaults included.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, get_args

from pydantic import (
    BaseModel,
    Field,
    SerializationInfo,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from engine.config.section import Section

CODE = " (code)"
"""End of the keys of :func:`own_code`; no option is called so."""


class _ByName(Section):
    """What :class:`Choice` and :class:`Choices` share: the table, and a name's class."""

    table: ClassVar[Mapping[str, str]]
    """The known names, and the module of each."""
    attribute: ClassVar[str]
    """What the class is called in its module."""

    @classmethod
    def base(cls) -> type[BaseModel]:
        """Return the class of all objects that can be chosen: what ``chosen`` is declared as."""
        kind: Any = cls.model_fields["chosen"].annotation
        found: type[BaseModel] = get_args(kind)[1] if get_args(kind) else kind
        return found

    @classmethod
    def names(cls) -> str:
        """Say the known names, and how to name one that is not known."""
        known = ", ".join(cls.table)
        return f"one of {known}, or a module with a class {cls.attribute} (a name with a dot)"

    @classmethod
    def class_of(cls, name: object) -> type[BaseModel]:
        """Return the class that ``name`` stands for; its module is imported.

        Raises:
            ValueError: there is none; says what was expected.
        """
        if not isinstance(name, str) or (name not in cls.table and "." not in name):
            close = difflib.get_close_matches(str(name), cls.table, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"expected {cls.names()}, found {json.dumps(name)}{hint}")
        module = _imported(cls.table.get(name, name))
        found = getattr(module, cls.attribute, None)
        if not (inspect.isclass(found) and issubclass(found, cls.base())):
            raise ValueError(
                f"expected {cls.attribute} in module {module.__name__} to be a subclass of "
                f"{cls.base().__module__}.{cls.base().__name__}, found "
                f"{'none' if found is None else repr(found)}"
            )
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise ValueError(
                f"expected {cls.attribute} in module {module.__name__} to define "
                f"{', '.join(missing)}"
            )
        return found

    @classmethod
    def known(cls) -> dict[str, type[BaseModel]]:
        """Return the known names and their classes, in the table's order."""
        return {name: cls.class_of(name) for name in cls.table}


class Choice(_ByName):
    """A section that chooses one object: its ``name``, and beside it the object's options.

    A subclass sets ``table`` and ``attribute`` and declares ``chosen`` as the objects' base class.
    """

    name: str = Field(description="which one; the other keys here are its options")
    chosen: BaseModel = Field(description="made of the options")

    @classmethod
    def keys_for(cls, value: object = None) -> dict[str, FieldInfo]:
        """Return the section's keys: those of the class that ``value`` names, else of all known."""
        try:
            classes = [cls.class_of(value["name"])] if isinstance(value, Mapping) else []
        except (KeyError, ValueError):
            classes = []
        keys = {"name": cls.model_fields["name"]}
        for found in classes or cls.known().values():
            for option, field in found.model_fields.items():
                keys.setdefault(option, field)
        return keys

    @classmethod
    def owners(cls, key: str) -> list[str]:
        """Return the known names whose options include ``key``."""
        return [name for name, found in cls.known().items() if key in found.model_fields]

    @model_validator(mode="before")
    @classmethod
    def _choose(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, Mapping):
            return values
        options = {key: value for key, value in values.items() if key != "name"}
        try:
            name = values["name"]
            found = cls.class_of(name)
            if "name" in found.model_fields:
                raise ValueError(f"expected options of {name} that are not called name")
        except KeyError:
            problem = ValueError(f"missing, expected {cls.names()}")
            raise _refused(cls, [_problem(problem, "name", values)]) from None
        except ValueError as error:
            raise _refused(cls, [_problem(error, "name", name)]) from None
        return {"name": values["name"], "chosen": _validated(found, options, info)}

    @model_serializer
    def _flat(self, info: SerializationInfo) -> dict[str, Any]:
        return {"name": self.name, **self.chosen.model_dump(mode=info.mode)}


class Choices(_ByName):
    """A section that chooses several objects: a mapping of their names to the options of each.

    A subclass sets ``table`` and ``attribute`` and declares ``chosen`` as a dictionary of names to
    the objects' base class. Its order is the order of the section. A name without options
    (``format:``) takes the defaults; at least one name is asked.
    """

    chosen: dict[str, Any] = Field(description="made of the options of each name")

    @classmethod
    def keys_for(cls, value: object = None) -> dict[str, FieldInfo]:
        """Return the section's keys: the known names, and the names of modules in ``value``."""
        keys = {name: _field_of(found) for name, found in cls.known().items()}
        for name in value if isinstance(value, Mapping) else ():
            try:
                keys.setdefault(name, _field_of(cls.class_of(name)))
            except ValueError:
                continue
        return keys

    @model_validator(mode="before")
    @classmethod
    def _choose(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, Mapping):
            return values
        if not values:
            raise ValueError(f"expected at least {cls.names()}, found none")
        chosen: dict[str, BaseModel] = {}
        problems: list[InitErrorDetails] = []
        for name, options in values.items():
            try:
                found = cls.class_of(name)
                chosen[name] = _validated(found, {} if options is None else options, info)
            except ValidationError as error:
                problems += [_moved(name, details) for details in error.errors()]
            except ValueError as error:
                could_be = name in cls.table or "." in name
                problems.append(_problem(error if could_be else "extra_forbidden", name, options))
        if problems:
            raise _refused(cls, problems)
        return {"chosen": chosen}

    @model_serializer
    def _flat(self, info: SerializationInfo) -> dict[str, Any]:
        return {name: one.model_dump(mode=info.mode) for name, one in self.chosen.items()}


def own_code(config: BaseModel, above: str = "") -> dict[str, str]:
    """Return a digest of the module of each class of the user's own that ``config`` chooses.

    By what chose it, e.g. ``rewards.my_folder.brevity (code)``. What is imported by these modules
    is not looked at.

    Args:
        above: dotted key of ``config``, which may be a section.
    """
    if isinstance(config, Choice):
        own = {above: config.chosen} if "." in config.name else {}
    elif isinstance(config, Choices):
        own = {f"{above}.{name}": one for name, one in config.chosen.items() if "." in name}
    else:
        fields = ((f"{above}.{name}".lstrip("."), value) for name, value in config)
        sections = (own_code(value, key) for key, value in fields if isinstance(value, BaseModel))
        return {key: digest for found in sections for key, digest in found.items()}
    return {f"{key}{CODE}": _digest_of_module(one) for key, one in own.items()}


def _digest_of_module(one: BaseModel) -> str:
    """Return the digest of the file that holds an object's class; of none, the class's name."""
    try:
        content = Path(inspect.getfile(type(one))).read_bytes()
    except (OSError, TypeError):
        content = type(one).__qualname__.encode()
    return blake2b(content, digest_size=16).hexdigest()


def _imported(module: str) -> ModuleType:
    """Import the module of that name.

    Raises:
        ValueError: it cannot be imported; says why.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"expected a module {module} that can be imported: {error}") from None
        raise ValueError(
            f"expected a module {module} under the folder that the run is started in, found none"
        ) from None
    except Exception as error:  # whatever a person's own module does when it is imported
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"expected a module {module} that can be imported: {said}") from error


def _validated(found: type[BaseModel], options: Any, info: ValidationInfo) -> BaseModel:
    """Make an object of class ``found``; JSON has no tuples and paths: those are read from it."""
    if info.mode == "json":
        text = json.dumps(options)
        return found.model_validate_json(text, strict=True, context=info.context)
    return found.model_validate(options, context=info.context)


def _field_of(found: type[BaseModel]) -> FieldInfo:
    return FieldInfo(annotation=found, description=(found.__doc__ or "").partition("\n")[0])


def _problem(kind: str | ValueError, key: str, value: object) -> InitErrorDetails:
    """Describe what is wrong with ``key``: a type of pydantic's errors, or a rule's sentence."""
    if isinstance(kind, ValueError):
        said = PydanticCustomError("value_error", "{error}", {"error": str(kind)})
        return {"type": said, "loc": (key,), "input": value}
    return {"type": kind, "loc": (key,), "input": value}


def _moved(key: str, details: ErrorDetails) -> InitErrorDetails:
    """Return the same problem as found below ``key``."""
    return {
        "type": details["type"],
        "loc": (key, *details["loc"]),
        "input": details["input"],
        "ctx": details.get("ctx", {}),
    }


def _refused(section: type[BaseModel], problems: list[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data(section.__name__, problems)
