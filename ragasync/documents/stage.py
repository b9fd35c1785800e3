"""Stage: the function of a pipeline stage, with its settings; what counts as a change of it."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from hashlib import blake2b
from types import ModuleType
from typing import Any, Final, Literal, TypeAlias

from ragasync._function_fingerprint import (
    FunctionFingerprint,
    Sources,
    differences,
    fingerprint_of,
    is_same_digest,
    module_of,
)
from ragasync._limits.limiter import Limiter
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_process_fn, explains_arguments
from ragasync.documents.models import Document
from ragasync.documents.store import Store
from ragasync.foreign_errors import attribute, is_a
from ragasync.settings import BatchSettings, as_limiters, as_timeout

StageFunction: TypeAlias = Callable[..., object]
"""A stage's function; its parameters and result depend on the stage."""


@explains_arguments
@dataclass(frozen=True, slots=True)
class Stage:
    """
    A stage's function together with settings of its own.

    Settings that are None are taken from the processor.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import HashingEmbedder, Stage
        >>> embed = Stage(HashingEmbedder(), max_concurrency=2, batch_size=100, timeout=30)
        >>> result = AsyncDocumentProcessor(embed=embed).process_sync([("guide", "It refills.")])
        >>> result[0].value.embeddings.shape
        (1, 1024)

    Args:
        fn: the stage's function, sync or async; for the last stage also a Store.
        max_concurrency: the maximum number of concurrent calls; for `embed` also "auto".
        batch_size: the maximum number of chunks in one call of `embed`; for other stages, of
            documents in one group that is sent to `executor`.
        rate_limiter: one limiter or several.
        retry: the retry policy of failed calls.
        timeout: the time limit of one attempt, in seconds.
        executor: where the function runs, instead of on threads.
        weight: a function that weighs a text, for `max_batch_weight`; for `embed` only.
        max_batch_weight: the maximum total weight of the texts in one call.
        resources: as for AsyncBatchProcessor: a function that creates an async context manager,
            which is opened once per run, on the run's own loop. Its value is passed to the stage's
            function as second argument.
        name: a name that identifies the stage in place of its function's code: edited code is
            ignored while name and version stay the same. For `embed`, it is the name of the
            embedder in a store; a store that knew the function by its code adopts the name.
        version: a version that replaces the function's code in the same way, while its own name
            stays. A new version of `load` or `chunk` chunks everything again; a new version of
            `embed` is another embedder. Settings always count: closures, defaults, the arguments of
            a partial, and the constructor arguments of an object.
    """

    fn: StageFunction | Store
    max_concurrency: int | Literal["auto"] | None = None
    batch_size: int | None = None
    rate_limiter: Limiter | Sequence[Limiter] | None = None
    retry: AsyncRetry | None = None
    timeout: float | timedelta | None = None
    executor: Executor | None = None
    weight: Callable[[str], float] | None = None
    max_batch_weight: float | None = None
    resources: Callable[[], AbstractAsyncContextManager[Any]] | None = None
    name: str | None = None
    version: str = ""

    def __post_init__(self) -> None:
        """Check name and version early, because a wrong one would change every fingerprint."""
        object.__setattr__(self, "timeout", as_timeout(self.timeout))
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be a str or None, got {self.name!r}")
        if isinstance(self.fn, type) and _has_instances_for_a_stage(self.fn):
            name = self.fn.__name__
            raise TypeError(f"expected an object, got the class {name}: pass {name}(...)")
        check_version(self.version)

    @property
    def function(self) -> StageFunction:
        """
        The stage's function, if it is not a Store.

        Raises:
            TypeError: it is not a function.
        """
        if not callable(self.fn):
            path = isinstance(self.fn, str | os.PathLike)
            hint = f"; for a store in that file pass store=SqliteStore({self.fn!r})" if path else ""
            raise TypeError(f"a stage is a function, a Stage or None, got {self.fn!r}{hint}")
        return self.fn

    @property
    def is_plain(self) -> bool:
        """Whether it is a sync function without settings of its own."""
        return not declared_async(self.function) and not self._own

    def plan(self, function: StageFunction, **defaults: Any) -> BatchSettings[Any, Any]:
        """Settings of a processor of `function`: this stage's own, or else the defaults."""
        if check_process_fn(function):
            defaults.pop("executor", None)
        settings = defaults | self._own
        limiters = as_limiters(settings.pop("rate_limiter", None))
        return BatchSettings(function, check_process_fn(function), limiters=limiters, **settings)

    @property
    def _own(self) -> dict[str, Any]:
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: value
            for name, value in own.items()
            if name not in ("fn", "name", "version") and value is not None
        }


def check_version(version: object) -> None:
    """Raise TypeError for a version that is not a str: 1 and "1" would be two versions."""
    if not isinstance(version, str):
        raise TypeError(f"version must be a str, got {version!r}: pass {str(version)!r}")


def declared_async(function: StageFunction) -> bool:
    """Whether a stage's function is async; generator functions are allowed too."""
    return not inspect.isgeneratorfunction(function) and check_process_fn(function)


def as_stage(
    given: StageFunction | Stage | None, default: StageFunction, *, may_yield: bool = False
) -> Stage:
    """
    Turn a stage argument into a Stage.

    An object with an `as_stage` method, such as `OpenAIEmbedder`, provides its own Stage.

    Raises:
        TypeError: it is neither a function nor a Stage.
    """
    if given is not None and not isinstance(given, Stage):
        make = getattr(given, "as_stage", None)
        given = make() if callable(make) else given
    stage = given if isinstance(given, Stage) else Stage(default if given is None else given)
    (declared_async if may_yield else check_process_fn)(stage.function)  # refuses what yields
    return stage


def _has_instances_for_a_stage(kind: type) -> bool:
    """Whether the instances of a class are callable or stores, unlike those of `str`."""
    return any(not {"__call__", "upsert"}.isdisjoint(vars(each)) for each in kind.__mro__)


def check_parameters(stage: Stage, *names: str) -> None:
    """
    Refuse a function that cannot be called with the arguments of its stage.

    Otherwise each of its calls would fail, and those of a store after all texts were embedded.

    Args:
        stage: the stage of the function; one with `resources` passes a further argument, and is not
            checked.
        names: the names of the arguments.

    Raises:
        TypeError: it takes fewer arguments, or requires more.
    """
    if stage.resources is not None:
        return
    try:
        # A decorator may add arguments of its own to those of the function that it wraps.
        signature = inspect.signature(stage.function, follow_wrapped=False)
    except ValueError:  # a builtin that does not say
        return
    try:
        signature.bind(*names)
    except TypeError as error:
        raise TypeError(
            f"expected a function of ({', '.join(names)}), got {stage.function!r} with "
            f"{signature}: {error}"
        ) from None


# ── fingerprints: what counts as changed ────────────────────────────────────────────────────────
#
# A document is its text and metadata, and the way it was loaded and chunked. An embedder is known
# by its name or model, or else by its code. Fingerprints are texts, so that a store can keep them;
# a comparison that gives None could not decide.

_OURS: Final = __name__.partition(".")[0]

_ABOUT_CALLS: Final = frozenset(
    """api auth batch cache client concurrency cookies credentials debug delay device devices
    executor headers http key limiter limits log logger logging parallel password pool progress
    proxies proxy rate requests retries retry rps seconds secret session sleep threads timeout
    timeouts token tqdm user verbose wait workers""".split()  # noqa: SIM905  # as text
)
"""Words in names of settings that are about how calls are made, and do not change vectors."""


def function_name(function: StageFunction) -> str:
    """
    Return a name for a function that is the same in every process.

    It is the `fingerprint` or `name` that the function, or a method's object, says of itself; else
    its qualified name, with the `model` or `model_name` of its object.
    """
    owner = _owner_of(function)
    if (own := _said_by(owner, "fingerprint", "name")) is not None:
        return own
    name = ".".join(_qualified(function))
    model = _said_by(owner, "model", "model_name")
    return name if model is None else f"{name}({model})"


def known_function(function: StageFunction) -> str:
    """
    Return a text that changes when a function does, as far as every Python can tell.

    It is what the function says of itself; else its name, with a digest of its code and settings.
    """
    if (own := _said_by(_owner_of(function), "fingerprint", "name")) is not None:
        return own
    taken = fingerprint_of(function).without_unknown()
    return f"{function_name(function)}#{taken.digest()}"


def _owner_of(function: StageFunction) -> object:
    """Return the object whose method a function is, through partials; else itself."""
    inner = without_partials(function)
    owner = attribute(inner, "__self__")
    return inner if owner is None or is_a(owner, ModuleType) else owner


def without_partials(function: StageFunction) -> Any:
    """Return the function inside of partials."""
    while isinstance(function, partial):
        function = function.func
    return function


def _said_by(owner: object, *attributes: str) -> str | None:
    """Return the first of these attributes that is a text, or None."""
    values = (attribute(owner, name) for name in attributes)
    return next((str(value) for value in values if is_a(value, str) and value), None)


def _qualified(function: StageFunction) -> tuple[str, str]:
    """Return the module and the qualified name of a function; of a method, its own object's."""
    function = without_partials(function)
    if inspect.ismethod(function):
        owner = function.__self__
        kind = owner if isinstance(owner, type) else type(owner)
        return kind.__module__, f"{kind.__qualname__}.{function.__name__}"
    named = function if hasattr(function, "__qualname__") else type(function)
    return getattr(named, "__module__", None) or "builtins", named.__qualname__


@dataclass
class StageFingerprint:
    """
    What a stage's function was when a processor was made of it.

    Args:
        name: what tells its function from others, whatever becomes of its code.
        function: its code and settings; with a name or version of the stage's own, that stands in
            place of the code.
    """

    name: str
    function: FunctionFingerprint

    @cached_property
    def text(self) -> str:
        """The fingerprint as a short text, for `is_same_digest`."""
        return self.function.digest()

    @property
    def is_known(self) -> bool:
        """Whether every Python can compare all of it."""
        return is_same_digest(self.text, self.text) is True and "bytecode" not in self.text

    @property
    def settings(self) -> str:
        """Name and settings, without the code."""
        return f"{self.name}#{self.function.without_code().digest()}"


def stage_fingerprint(
    function: StageFunction,
    *,
    name: str | None = None,
    version: str = "",
    sources: Sources | None = None,
) -> StageFingerprint:
    """Return the fingerprint of a stage that loads or chunks."""
    said = _said_by(_owner_of(function), "fingerprint")
    if said is None:
        taken = fingerprint_of(function, sources=sources)
    else:  # ours say what they are, and what they were made with
        taken = fingerprint_of(function, sources=sources, with_code=False).with_value(
            "the fingerprint", said
        )
    if name or version:
        taken = taken.without_code().with_value("the version", (name, version))
    return StageFingerprint(name or function_name(function), taken)


@dataclass
class StagesFingerprint:
    """
    What the stages before the store were when a processor was made.

    Args:
        load: the fingerprint of the load stage.
        chunk: that of the chunk stage.
        loaders: the version of our own loaders.
        embedder: the digest of the embedder, for a store that does not know whose vectors it
            holds; empty for one that does.
    """

    load: StageFingerprint
    chunk: StageFingerprint
    loaders: int
    embedder: str = ""

    @cached_property
    def text(self) -> str:
        """The common part of the fingerprints of all documents."""
        return f"{self.loaders}/{self.load.text}/{self.chunk.text}/{self.embedder}"

    @property
    def unknown(self) -> list[str]:
        """The stages whose code not every Python can compare, with the names of their functions."""
        stages = {"load": self.load, "chunk": self.chunk}
        return [f"{name}={stage.name}" for name, stage in stages.items() if not stage.is_known]

    def of(self, document: Document) -> str:
        """Return the fingerprint of a document that goes through these stages."""
        return fingerprint_of_document(document, self.text)

    @staticmethod
    def holds(stored: str | None, now: str) -> bool | None:
        """
        Compare the fingerprints of a stored document; None if that cannot be decided.

        Args:
            stored: the fingerprint that it was stored with, or None.
            now: the fingerprint that it would be stored with.
        """
        content, _, before = (stored or "").partition("/")
        new_content, _, after = now.partition("/")
        return content == new_content and _are_same_stages(before, after)


@lru_cache(maxsize=64)
def _are_same_stages(before: str, after: str) -> bool | None:
    """Compare the common parts of two documents' fingerprints; None if that is undecided."""
    loaders, *stages = before.split("/")
    new_loaders, *new_stages = after.split("/")
    if loaders != new_loaders or len(stages) != len(new_stages):
        return False
    same = set(map(is_same_digest, stages, new_stages))
    return False if False in same else None if None in same else True


def fingerprint_of_document(document: Document, stages: str) -> str:
    """The fingerprint of a document that goes through stages with this text."""
    return f"{content_digest(document)}/{stages}"


def content_digest(document: Document) -> str:
    """Digest of a document's text and metadata."""
    metadata = sorted(_lasting(document).items(), key=lambda item: str(item[0]))  # of any types
    digest = blake2b(repr(metadata).encode(errors="surrogatepass"), digest_size=16)
    digest.update(document.text.encode(errors="surrogatepass"))
    return digest.hexdigest()


def _lasting(document: Document) -> Mapping[str, object]:
    """Metadata without the file's date and size, which may change while its content does not."""
    match document.metadata:
        case {"mtime": float(), "size": int(), **rest} if document.source is not None:
            return rest
        case metadata:
            return metadata


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """
    The identity of an embedder, and so of its vectors.

    Args:
        name: the embedder's name, or else that of its function.
        named_by: "itself" or "stage" if it has a name, so that its code is not compared; else
            empty.
        version: the version given for it; compared in place of the code if it has no name.
        function: its settings; without a name, its code as well.
        dimension: the length of its vectors, if it is known before the first one.
        is_versioned: whether the version was given to this embedder alone; then another version is
            another embedder.
    """

    name: str
    named_by: str
    version: str
    function: FunctionFingerprint
    dimension: int | None = None
    is_versioned: bool = False

    @property
    def digest(self) -> str:
        """The identity as a short text, for `is_same_digest`."""
        function = self.function.without_code() if self.version else self.function
        return function.with_value(
            "the embedder", [self.named_by and self.name, self.version]
        ).digest()

    @property
    def for_other_stores(self) -> str:
        """A name that differs between embedders, for a store that only keeps names."""
        if self.named_by and not self.version:
            return self.name
        return f"{self.name}#{blake2b(self.digest.encode(), digest_size=6).hexdigest()}"

    @property
    def job(self) -> str:
        """Its part of a job's key in a journal: name, version and bound arguments."""
        bound = self.function.without_code()
        if self.named_by:
            bound = bound.keeping(lambda part: part.startswith(("the argument", "the model")))
        return f"{self.name}/{self.version}#{bound.digest()}"

    def to_json(self) -> str:
        """Text that a store keeps next to the name and the dimension."""
        return json.dumps([self.named_by, self.version, self.function.to_json()])

    @classmethod
    def from_json(cls, name: str, text: str) -> EmbedderIdentity:
        """
        Identity that a store has kept; without a text, only the name is compared.

        Raises:
            ValueError: the text is not an identity.
        """
        if not text:
            return cls(name, "itself", "", FunctionFingerprint(name, {}))
        named_by, version, function = json.loads(text)
        return cls(name, named_by, version, FunctionFingerprint.from_json(function))

    def changes_since(self, before: EmbedderIdentity) -> list[str] | None:
        """Differences from the embedder of stored vectors; None if they cannot be compared."""
        if self.named_by or before.named_by:
            return self._changes_of_named(before)
        if before.version and before.version == self.version:
            return differences(before.function.without_code(), self.function.without_code())
        if before.version and self.is_versioned:
            return [f"the version: {before.version!r} -> {self.version!r}"]
        if found := differences(before.function, self.function):
            return found
        is_same = is_same_digest(before.function.digest(), self.function.digest())
        return [] if is_same else None

    def _changes_of_named(self, before: EmbedderIdentity) -> list[str]:
        """Differences between two embedders of which at least one has a name."""
        if not (self.named_by and before.named_by) or self.name != before.name:
            return [f"the embedder: {before.name!r} -> {self.name!r}"]
        found = []
        if self.version != before.version:
            found.append(f"the version: {before.version!r} -> {self.version!r}")
        # A setting that only one of them has comes from new code.
        common = self.function.parts.keys() & before.function.parts.keys()
        settings = [one.function.keeping(common.__contains__) for one in (before, self)]
        return found + differences(*settings)


def embedder_identity(
    function: StageFunction,
    *,
    name: str | None = None,
    version: str = "",
    version_of_all: str = "",
    sources: Sources | None = None,
    is_compared: bool = True,
) -> EmbedderIdentity:
    """
    Make the identity of an embedder.

    Another `version` is another embedder; `version_of_all` replaces code in comparisons. The code
    of one that is not compared is left out, because it takes some milliseconds to read.
    """
    owner = _owner_of(function)
    own, model = _said_by(owner, "name"), _said_by(owner, "model", "model_name")
    dimension = attribute(owner, "dimension")
    known: int | None = dimension if type(dimension) is int else None
    if not (name or own or model):
        taken = FunctionFingerprint("", {})
        if is_compared:
            taken = fingerprint_of(function, is_left_out=_is_about_calls, sources=sources)
        shown = taken.name or _qualified(function)[1]
        return EmbedderIdentity(
            shown, "", version or version_of_all, taken, known, is_versioned=bool(version)
        )
    version = version or _said_by(owner, "version") or ""
    settings = FunctionFingerprint("", {})
    is_ours = module_of(type(owner)).partition(".")[0] == _OURS  # whose names say everything
    if is_compared and not is_ours:
        settings = fingerprint_of(
            function, is_left_out=_is_about_calls, sources=sources, with_code=False
        )
    if model is not None:
        settings = settings.with_value("the model", model)
    named = name or own or f"{_qualified(function)[1]}({model})"
    named_by = "stage" if name else "itself"
    return EmbedderIdentity(named, named_by, version, settings, known, is_versioned=True)


def _is_about_calls(name: str) -> bool:
    """Whether a setting of this name is about how calls are made, not about their results."""
    return not _ABOUT_CALLS.isdisjoint(re.split(r"[\W_]+", name.lower()))
