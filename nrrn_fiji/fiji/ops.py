"""The ops ``nrrn.denoise``, ``nrrn.noiseMap`` and ``nrrn.addNoise``, for scripts in any language.

ImageJ Ops finds ops that are annotated Java classes.  They are made when ImageJ runs, one class
for each op; their parameters are the fields of the settings, in the order of the command table,
and what they do is done by Python.  This module must never show anything.

Source: ``net.imagej.ops.AbstractOp`` of imagej-ops 2.2.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jpype

from ..commands import Command, Kind, Option, find_command
from ..models import DEFAULT_MODEL
from ..sentences import sentence
from .jobs import denoise_image, noisy_image

__all__ = ["OPS", "NrrnOp", "register_ops"]

# What an op takes for each kind of option; scripts in Python give numbers of any kind.
JAVA_TYPES = {
    Kind.FLAG: "java.lang.Boolean",
    Kind.INTEGER: "java.lang.Number",
    Kind.NUMBER: "java.lang.Number",
}
TEXT_TYPE = "java.lang.String"


@dataclass(frozen=True)
class NrrnOp:
    """An op: its name, its parameters after the image, and what it does."""

    name: str
    class_name: str
    command: Command
    options: tuple[Option, ...]
    run: Callable[[Any, Mapping[str, Any], Any], Any]
    """Takes the image, the options that are no settings, and the settings."""


def _options(command: Command, *others: str) -> tuple[Option, ...]:
    """Return the named options of a command and all of its settings, in the table's order."""
    return tuple(o for o in command.all_options() if o.setting or o.name in others)


def _denoise(image: Any, values: Mapping[str, Any], settings: Any) -> Any:
    return denoise_image(image, values.get("model", DEFAULT_MODEL), settings).image


def _noise_map(image: Any, values: Mapping[str, Any], settings: Any) -> Any:
    return denoise_image(image, values.get("model", DEFAULT_MODEL), settings, noise=True).noise


def _add_noise(image: Any, values: Mapping[str, Any], settings: Any) -> Any:
    return noisy_image(image, settings)


DENOISE, ADD_NOISE = find_command("denoise"), find_command("add-noise")
OPS = (
    NrrnOp("nrrn.denoise", "nrrn.ops.Denoise", DENOISE, _options(DENOISE, "model"), _denoise),
    NrrnOp("nrrn.noiseMap", "nrrn.ops.NoiseMap", DENOISE, _options(DENOISE, "model"), _noise_map),
    NrrnOp("nrrn.addNoise", "nrrn.ops.AddNoise", ADD_NOISE, _options(ADD_NOISE), _add_noise),
)
"""Every op.  They take an ``ij.ImagePlus``, Dataset or ImgPlus and return a new one of its kind."""

_made: dict[str, tuple[Any, Any]] = {}
"""Of each op its Java class, and what Java calls, which must be kept alive for it."""


def register_ops(gateway: Any) -> None:
    """Add the ops to an ImageJ2; twice does no harm.

    Parameters
    ----------
    gateway
        PyImageJ's ``ij``.  Without ImageJ Ops in it, nothing is added.
    """
    try:
        op_type = jpype.JClass("net.imagej.ops.Op")
    except TypeError:  # JPype's exception for a class that is not there
        return
    plugins = gateway.context().getService(jpype.JClass("org.scijava.plugin.PluginService"))
    for op in OPS:
        if op.name not in _made:
            made, handler = _op_class(op), _handler(op)
            made.handler = handler
            _made[op.name] = made, handler
        kind = _made[op.name][0].class_
        if plugins.getPlugin(kind) is None:
            annotation = kind.getAnnotation(jpype.JClass("org.scijava.plugin.Plugin"))
            info = jpype.JClass("org.scijava.plugin.PluginInfo")
            plugins.addPlugin(info(kind, op_type.class_, annotation))


def _handler(op: NrrnOp) -> Any:
    def apply(arguments: Any) -> Any:
        image, *given = arguments
        try:
            values = {
                option.name: _value(option, value)
                for option, value in zip(op.options, given, strict=True)
                if value is not None
            }
            return op.run(image, values, op.command.make_settings(values))
        except (ValueError, TypeError, OSError) as error:
            # Scripts in Java's languages show this sentence, and no traceback of Python.
            raise jpype.JClass("java.lang.IllegalArgumentException")(sentence(error)) from error

    return jpype.JProxy("java.util.function.Function", {"apply": apply})


def _value(option: Option, value: Any) -> Any:
    """Return what a script gave for an option, checked as a command line is."""
    # A number of a script may be a whole one and yet come as 3.0.
    return option.parse(re.sub(r"\.0$", "", str(value)))


def _op_class(op: NrrnOp) -> Any:
    """Make the Java class of an op, beside the class that it extends."""
    javassist = jpype.JPackage("javassist")
    parent = jpype.JClass("net.imagej.ops.AbstractOp").class_
    pool = javassist.ClassPool(True)
    pool.appendClassPath(javassist.ClassClassPath(parent))
    made = pool.makeClass(op.class_name, pool.get(str(parent.getName())))
    constants = made.getClassFile().getConstPool()

    def annotation(kind: str, **members: Any) -> Any:
        bytecode = javassist.bytecode
        note = bytecode.annotation.Annotation(kind, constants)
        for name, value in members.items():
            note.addMemberValue(name, value)
        attribute = bytecode.AnnotationsAttribute(
            constants, bytecode.AnnotationsAttribute.visibleTag
        )
        attribute.addAnnotation(note)
        return attribute

    values = javassist.bytecode.annotation
    names = ["img", *(option.name for option in op.options)]
    types = ["java.lang.Object", *(JAVA_TYPES.get(o.kind, TEXT_TYPE) for o in op.options)]
    output = values.EnumMemberValue(constants)
    output.setType("org.scijava.ItemIO")
    output.setValue("OUTPUT")
    members: list[dict[str, Any]] = [
        {"type": output},
        {},
        *({"required": values.BooleanMemberValue(False, constants)} for _ in op.options),
    ]
    for kind, name, given in zip(
        ["java.lang.Object", *types], ["out", *names], members, strict=True
    ):
        field = javassist.CtField.make(f"private {kind} {name};", made)
        field.getFieldInfo().addAttribute(annotation("org.scijava.plugin.Parameter", **given))
        made.addField(field)
    made.addField(
        javassist.CtField.make("public static java.util.function.Function handler;", made)
    )
    body = f"{{ out = handler.apply(new Object[] {{{', '.join(names)}}}); }}"
    made.addMethod(javassist.CtNewMethod.make(f"public void run() {body}", made))
    made.addConstructor(javassist.CtNewConstructor.defaultConstructor(made))
    made.getClassFile().addAttribute(
        annotation(
            "org.scijava.plugin.Plugin",
            type=values.ClassMemberValue("net.imagej.ops.Op", constants),
            name=values.StringMemberValue(op.name, constants),
            headless=values.BooleanMemberValue(True, constants),
        )
    )
    loader = parent.getClassLoader()
    made.toClass(loader, parent.getProtectionDomain())
    return jpype.JClass(op.class_name, loader=loader)
