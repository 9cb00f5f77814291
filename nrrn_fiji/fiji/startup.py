"""What Fiji says when it starts and nobody needs to read.

Fiji tries all languages for scripts, and some of them need another Java; nothing of ours uses
them.  Users took these lines for errors.  This module must never hold back any other line.
"""

from __future__ import annotations

import jpype

__all__ = ["leave_out_known_errors"]

CLASS = "org.scijava.NrrnErrors"
# As patterns of Java, in a literal of Java.
KNOWN = (
    r"(?s)\\[ERROR\\] Cannot create plugin: org\\.scijava\\.plugins\\.scripting\\..*",
    r"(?s)ScriptEngineManager providers\\.next\\(\\): .* could not be instantiated\\s*",
)


def leave_out_known_errors() -> None:
    """Put a filter before Java's standard error; once, before Fiji starts."""
    system = jpype.JClass("java.lang.System")
    beside = jpype.JClass("org.scijava.Context").class_
    loader = beside.getClassLoader()
    pool = jpype.JClass("javassist.ClassPool")(True)
    pool.appendClassPath(jpype.JClass("javassist.ClassClassPath")(beside))
    made = pool.makeClass(CLASS, pool.get("java.io.OutputStream"))
    field, method = jpype.JClass("javassist.CtField"), jpype.JClass("javassist.CtNewMethod")
    made.addField(field.make("private java.io.OutputStream to;", made))
    line = "java.io.ByteArrayOutputStream"
    made.addField(field.make(f"private {line} line = new {line}();", made))
    constructor = jpype.JClass("javassist.CtNewConstructor").make
    made.addConstructor(
        constructor("public NrrnErrors(java.io.OutputStream whole) { to = whole; }", made)
    )
    known = " || ".join(f'line.toString().matches("{pattern}")' for pattern in KNOWN)
    for source in (
        f"private boolean isKnown() {{ return {known}; }}",
        "private void pass() { if (!isKnown()) { line.writeTo(to); to.flush(); } line.reset(); }",
        "public synchronized void write(int b) { line.write(b); if (b == 10) pass(); }",
        # A known line waits for its end; any other text is shown at once.
        "public synchronized void flush() { if (!isKnown()) pass(); }",
    ):
        made.addMethod(method.make(source, made))
    made.toClass(loader, beside.getProtectionDomain())
    filtered = jpype.JClass(CLASS, loader=loader)(system.err)
    system.setErr(jpype.JClass("java.io.PrintStream")(filtered, True))
