"""The paper's experiments on any clean volume, each from one call.

``levels`` says what is looked at, ``budgets`` how much work that is, ``candidates`` which methods
take part; ``context`` holds what all experiments share and ``opening`` opens the files.  Every
experiment is a function from a :class:`~nrrn_fiji.study.context.Study` to a
:class:`~nrrn_fiji.study.parts.Part` in a module of its own, ``jobs`` runs one or all of them and
``report`` makes a page of the parts.

Nothing in this package may tune, train or choose anything on the slices it scores.

Source: nrrn.md of the method, the tables, the figures and the notes beside them.
"""
