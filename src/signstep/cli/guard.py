"""``signstep guard``: a model in production, guarded. Its commands are of two words: ``signstep guard serve``."""

import json as json_text
import math
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.groups import DataOptions, MachineOptions, ModelOptions, ThreatOptions, request_of, spread
from signstep.cli.terminal import aside, noted, say, told
from signstep.cli.work import output_folder
from signstep.demo import demo
from signstep.domains import IMAGES
from signstep.domains import domain as find_domain
from signstep.domains.image.case import defended, opened_model
from signstep.domains.image.declared import declared
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.guard.app import make_app
from signstep.guard.attackers import NAMES
from signstep.guard.bodies import Limits, Wanted
from signstep.guard.calibrating import Terms, calibrate, open_guard
from signstep.guard.calibration import Calibration as Calibrated
from signstep.guard.challenge import Battle, challenge, rows_of
from signstep.guard.decide import Rules
from signstep.guard.facts import gathered, settings_of
from signstep.guard.identity import Proxies, new_key, revoke
from signstep.guard.logfile import LogFile
from signstep.guard.reading import alarm_line, existing, export, line, logged, review, since
from signstep.guard.report import report_json, report_page
from signstep.guard.rows import Decided
from signstep.guard.service import Offered, Service
from signstep.guard.serving import refuse_host, server
from signstep.guard.store import Keep, Store
from signstep.guard.tables import MOST
from signstep.guard.ui import add_ui
from signstep.guard.webhook import Webhook
from signstep.io.files import write_whole
from signstep.messages import Arg
from signstep.model.declaration import Model

StoreUrl = Annotated[
    str, typer.Option(help="Where decisions and keys are: sqlite:///FILE, or postgresql://USER@HOST/NAME.")
]
Calibration = Annotated[Path, typer.Argument(help="The folder that guard calibrate wrote.")]
_STORE = "sqlite:///guard.db"
_FOLDER = Path("signstep-guard")

_GUARD = """A model in production that refuses, asks a person, notices who is probing it, and says so.

guard calibrate: measures clean inputs, and promises a rate of false alarms.

guard serve: answers over HTTP, on this machine by default.

guard log: decisions and alarms.

guard review: the queue of inputs that a person is to see.

guard challenge: attacks the running service, and says what it noticed.

guard report: promised and measured rates, alarms, lines of standards.

guard key: makes and revokes API keys.

Example:

  signstep guard calibrate --help
"""


@app.command("guard", short_help="A model in production that refuses, and notices who is probing it.", help=_GUARD)
def guard(context: typer.Context) -> None:
    """Show what there is."""
    told(context.get_help())


_CALIBRATE = """Measure clean inputs, and promise a rate of false alarms.

Detectors are fitted and calibrated on clean rows of the deployment, in the order in which a client may send them. The
folder holds them, the band in which the true rate lies, and what clean inputs look like; it is for its owner's eyes.

Examples:

  signstep guard calibrate

  signstep guard calibrate --model mynet:build --weights w.safetensors --data clean.npz --reject 0.01 --review 0.02
"""


@app.command("guard calibrate", short_help="Measure clean inputs; promise a rate of false alarms.", help=_CALIBRATE)
@spread
def guard_calibrate(
    model: ModelOptions,
    data: DataOptions,
    machine: MachineOptions,
    detector: Annotated[
        list[str] | None, typer.Option(help="A detector with options, such as squeeze:bits=4; may be repeated.")
    ] = None,
    reject: Annotated[float, typer.Option(help="Share of clean inputs that may be rejected.")] = 0.01,
    review_: Annotated[float, typer.Option("--review", help="Share that may be sent to a person beside those.")] = 0.0,
    by_class: Annotated[
        bool, typer.Option("--by-class", help="Promise the rates for each answer of the model.")
    ] = False,
    low_confidence: Annotated[
        float, typer.Option(help="Answers below this largest probability go to a person; 0 for none.")
    ] = 0.0,
    box: o.BoxText = None,
    seed: o.Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder of the calibration.")] = _FOLDER,
) -> None:
    """Calibrate."""
    where, quiet = machine.ready(), aside()
    ends = o.box_of(box, None)
    request = replace(request_of(model, data), threat="linf:0", box=ends)  # nothing is attacked here
    case = find_domain(IMAGES.name).case(request)
    say(quiet, *case.said)
    terms = Terms(tuple(detector or ("confidence",)), reject, review_, by_class, low_confidence, ends, seed)
    with output_folder(out, marks=("calibration.json",)) as folder:
        found = calibrate(case.model.to(where), case.batches, terms)
        found.save(folder)
    told(str(found))
    say(quiet, f"calibration: {out}; serve it with signstep guard serve {out} and the same model")


_SERVE = """Answer over HTTP: plain JSON and images at /predict, the Open Inference Protocol v2 at /v2, pages at /ui.

Listens on this machine alone unless --host says otherwise. The model is named as for guard calibrate. Other weights
than those that were calibrated begin in shadow: everything is decided and logged, nothing is withheld.

Whoever reaches the port may ask, unless --keys-only; signstep guard key makes keys, also those for /ui. There is no TLS
here: put a proxy in front, and name it with --trust-proxy and --client-header, or else all its clients are one.

Examples:

  signstep guard serve signstep-guard

  signstep guard serve signstep-guard --model mynet:build --weights w.safetensors --store sqlite:///guard.db --keys-only
"""


@app.command("guard serve", short_help="Answer over HTTP, guarded.", help=_SERVE)
@spread
def guard_serve(
    model: ModelOptions,
    machine: MachineOptions,
    calibration: Calibration = _FOLDER,
    store: StoreUrl = _STORE,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free.", min=0, max=65535)] = 8080,
    name: Annotated[str, typer.Option(help="What the model is called in the paths /v2/models/NAME.")] = "model",
    shadow: Annotated[bool, typer.Option("--shadow", help="Decide and log, and withhold nothing.")] = False,
    fail: Annotated[str, typer.Option(help="What cannot be judged: closed refuses it, open answers it.")] = "closed",
    held: Annotated[str, typer.Option(help="An answer that a person is to see: withhold or mark it.")] = "withhold",
    suspects: Annotated[str, typer.Option(help="Inputs of clients under an alarm: log, review or reject.")] = "log",
    keys_only: Annotated[bool, typer.Option("--keys-only", help="Refuse requests without a key.")] = False,
    tell: Annotated[
        bool, typer.Option("--tell", help="Tell clients reasons and p-values; that helps attackers.")
    ] = False,
    scores: Annotated[bool, typer.Option("--scores", help="Tell clients all scores; that helps attackers.")] = False,
    fields: Annotated[str | None, typer.Option(help="Names of a record's numbers, in order: age,income,...")] = None,
    resize: Annotated[bool, typer.Option("--resize", help="Make images of another size the model's.")] = False,
    rate: Annotated[float, typer.Option(help="Inputs a second of one client, on average; 0 for no bound.")] = 0.0,
    trust_proxy: Annotated[
        list[str] | None,
        typer.Option(help="Network of your proxy, which says who asks; may be repeated."),
    ] = None,
    client_header: Annotated[str, typer.Option(help="Header in which it says so, such as X-Forwarded-For.")] = "",
    secure_cookie: Annotated[
        bool,
        typer.Option(
            "--secure-cookie", help="The cookie of /ui is for https alone; it is anyway where --trust-proxy says https."
        ),
    ] = False,
    metrics: Annotated[
        str, typer.Option(help="Who may read /metrics: local for this machine and keys, key, all or none.")
    ] = "local",
    webhook: Annotated[str | None, typer.Option(help="Address that gets each alarm as JSON.")] = None,
    keep_inputs: Annotated[str, typer.Option(help="Inputs that the store keeps: flagged, all or none.")] = "flagged",
    keep_days: Annotated[float, typer.Option(help="Days that decisions are kept.")] = 90.0,
    log: Annotated[
        Path | None, typer.Option(help="File for alarms, troubles and refusals, a line each; stderr gets them without.")
    ] = None,
    log_mb: Annotated[float, typer.Option(help="Megabytes of --log from which on the next file is begun.")] = 10.0,
    log_files: Annotated[int, typer.Option(help="Full files of --log that are kept; the oldest is dropped.")] = 5,
) -> None:
    """Serve."""
    where, quiet = machine.ready(), aside()
    refuse_host(host)
    if not name.isidentifier():
        raise InputError(Arg("name", name), remedy="pass letters, digits and _")
    rules = Rules(shadow=shadow, fail=cast("Any", fail), review=cast("Any", held), suspects=cast("Any", suspects))
    keep, limits = Keep(days=keep_days, inputs=keep_inputs), Limits(rate=rate)
    proxies = Proxies.of(trust_proxy or (), client_header)
    listener = None if webhook is None else Webhook(webhook)
    logged_to = None if log is None else LogFile(log, log_mb=log_mb, log_files=log_files, said=noted)
    opened = open_guard(calibration, _deployed(model, calibration).to(where), store=store, rules=rules, keep=keep)
    shape = opened.shape
    assert shape is not None
    named = tuple(part.strip() for part in fields.split(",")) if fields else ()
    if named and (len(named) != math.prod(shape) or len(set(named)) < len(named)):
        raise InputError(
            Arg("fields", fields),
            f"does not name each of the {math.prod(shape)} numbers once",
            remedy="name them in order",
        )
    if listener is not None:
        opened.heard.alarms.append(listener)
    offered = Offered(
        name, Wanted(shape, named, resize), keys_only, tell, scores, metrics=metrics, secure_cookie=secure_cookie
    )
    service = Service(opened, offered, limits, proxies)
    app_of = make_app(service)
    if opened.store is not None:
        add_ui(app_of, service, opened.store)
        settings_of(service, webhook=webhook is not None).keep(opened.store)
    running = server(app_of, limits, host=host, port=port)
    if logged_to is not None:
        logged_to.begin()
    say(quiet, *_opening(service))
    if keys_only and store:
        say(quiet, f"a key is made with: signstep guard key NAME --store {store}")
    try:
        running.run()
    finally:  # a signal ends it, after what waited was answered
        if listener is not None:
            listener.close()
        if logged_to is not None:
            logged_to.end()


def _opening(service: Service) -> list[str]:
    guarded = service.guard
    lines = [f"guarding: {guarded.model.title}, weights {guarded.digest[:12]}"]
    lines += [] if guarded.band is None else [f"promise: {guarded.band}"]
    chart = guarded.watch.watching.flags
    lines.append(f"alarms: a client is named at a score of {chart.height}, falsely once in {chart.length:.2g} inputs")
    if guarded.held or guarded.rules.shadow:
        why = ", ".join([*(["--shadow"] if guarded.rules.shadow else []), *guarded.held])
        lines.append(f"shadow: nothing is withheld ({why})")
    return lines


def _deployed(given: ModelOptions, calibration: Path) -> Model:
    """The model that is named, behind its defences, or that of the demonstration."""
    request = request_of(given)
    if request.model is not None:
        model = opened_model(request)
        return defended(request, model, Calibrated.load(calibration).ends) if request.defend else model
    if request.defend:
        raise InputError(Arg("defend"), "needs a model", remedy=("pass", Arg("model")))
    if request.weights is not None:
        raise InputError(Arg("weights", str(request.weights)), "needs a model", remedy=("pass", Arg("model")))
    show = demo()
    return declared(request, Model(show.model, mode=request.mode, name=show.description))


_LOG = """Decisions, the latest first; with --alarms alarms.

Examples:

  signstep guard log --low-confidence --since 2h

  signstep guard log --client "key 3f9a0c12b7de" --json
"""


@app.command("guard log", short_help="Decisions and alarms of a guard.", help=_LOG)
def guard_log(
    store: StoreUrl = _STORE,
    client: Annotated[str | None, typer.Option(help="Of this client alone, as the log names it.")] = None,
    since_: Annotated[
        str | None, typer.Option("--since", help="From then on: 90s, 2h, 3d, or a time such as 2026-11-30T10:00.")
    ] = None,
    low_confidence: Annotated[bool, typer.Option("--low-confidence", help="Those with unsure answers alone.")] = False,
    flagged: Annotated[bool, typer.Option("--flagged", help="Those that were flagged alone.")] = False,
    alarms: Annotated[bool, typer.Option("--alarms", help="Alarms instead of decisions.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=MOST)] = 100,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the log."""
    start = None if since_ is None else since(since_)
    held = Store(existing(store))
    try:
        if alarms:
            found = held.read(held.tables.alarm_log(since=start, limit=limit))
            told(json_text.dumps(found, indent=1) if json else "\n".join(map(alarm_line, found)) or "no alarms")
            return
        asked = held.tables.log(client=client, since=start, low=low_confidence, flagged=flagged, limit=limit)
        rows = [Decided.of(row) for row in held.read(asked)]
        told(json_text.dumps(logged(rows), indent=1) if json else "\n".join(map(line, rows)) or "no decisions")
    finally:
        held.close()


_REVIEW = """The queue of inputs that a person is to see; with an id and --label one leaves it.

Reviewed inputs can be taken away as .npz with --export; nothing flows back into a model or a calibration by itself.

Examples:

  signstep guard review

  signstep guard review 0123456789abcdef --label 3

  signstep guard review --export reviewed.npz
"""


@app.command("guard review", short_help="The queue of inputs that a person is to see.", help=_REVIEW)
def guard_review(
    decision: Annotated[str | None, typer.Argument(help="The id of a decision in the queue.")] = None,
    store: StoreUrl = _STORE,
    label: Annotated[
        int | None, typer.Option(help="The right label, by its number; none leaves it unlabelled.")
    ] = None,
    reviewer: Annotated[str, typer.Option(help="Who says so.")] = "",
    export_: Annotated[Path | None, typer.Option("--export", help="Write reviewed inputs and labels there.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=MOST)] = 100,
) -> None:
    """Review."""
    if label is not None and decision is None:
        raise InputError(Arg("label", label), "is of which decision?", remedy="pass its id before it")
    held = Store(existing(store))
    try:
        if export_ is not None:
            told(f"{export(held, export_)} reviewed inputs: {export_}")
        elif decision is not None:
            if not review(held, decision, label, reviewer):
                raise InputError(f"no decision {decision} is in the queue", remedy="see signstep guard review")
            told(f"reviewed: {decision}")
        else:
            rows = [Decided.of(row) for row in held.read(held.tables.log(queue="open", limit=limit))]
            told("\n".join(map(line, rows)) or "the queue is empty")
    finally:
        held.close()


_CHALLENGE = """Attack your own guard, as a client of the running service with keys of its own.

Attackers: fgsm and pgd from a surrogate, square and hop by queries, oracle uses rejections, many spreads over 20 keys,
slow hides among clean inputs. Reported: success before the first alarm, queries, what each layer caught, and what the
same service does to clean traffic. The store is the service's own; the model is the attackers' surrogate.

Examples:

  signstep guard challenge --examples 3 --queries 100

  signstep guard challenge --url http://127.0.0.1:8080 --model mynet:build --weights w.safetensors --data clean.npz
  --threat linf:8/255 --out challenged
"""


@app.command("guard challenge", short_help="Attack your own guard.", help=_CHALLENGE)
@spread
def guard_challenge(
    model: ModelOptions,
    data: DataOptions,
    threat: ThreatOptions,
    machine: MachineOptions,
    url: Annotated[str, typer.Option(help="Of the running service.")] = "http://127.0.0.1:8080",
    store: StoreUrl = _STORE,
    attacker: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(NAMES)}; may be repeated.")] = None,
    examples: Annotated[int, typer.Option(help="Inputs that each attacker starts from.", min=1, max=1000)] = 5,
    queries: Annotated[int, typer.Option(help="Queries for each of them, at most.", min=1, max=100_000)] = 200,
    clean: Annotated[int, typer.Option(help="Inputs of clean traffic.", min=1, max=MOST)] = 100,
    seed: o.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for challenge.json.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead of the table.")] = False,
) -> None:
    """Challenge."""
    where, quiet = machine.ready(), aside()
    case = find_domain(IMAGES.name).case(request_of(model, data, threat))
    say(quiet, *case.said)
    x, y = rows_of(case.batches, case.model, examples + clean + 20)
    if not isinstance(case.threat, ThreatModel):
        raise InputError(Arg("threat"), "is not of one tensor", remedy="pass linf:8/255, say")
    with ExitStack() as held:
        folder = None if out is None else held.enter_context(output_folder(out, marks=("challenge.json",)))
        opened = held.enter_context(closing(Store(existing(store))))
        attackers = tuple(attacker or NAMES)
        surrogate = case.model.to(where)
        found = challenge(Battle(url, opened, surrogate, x, y, case.threat, attackers, examples, queries, clean, seed))
        if folder is not None:
            write_whole(folder / "challenge.json", found.to_json() + "\n")
    told(found.to_json() if json else str(found))


_REPORT = """What the guard says of itself: promised and measured rates, alarms, the last challenge, lines of standards.

Each line of OWASP AISVS 1.0, MITRE ATLAS and NIST AI 100-2 says "covered by X, evidence Y" or "not covered". No
compliance is claimed. Writes guard.html and guard.json.

Example:

  signstep guard report --out signstep-guard-report
"""


@app.command("guard report", short_help="What the guard says of itself, by lines of standards.", help=_REPORT)
def guard_report(
    store: StoreUrl = _STORE,
    out: Annotated[Path, typer.Option(help="Folder for guard.html and guard.json.")] = Path("signstep-guard-report"),
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON too.")] = False,
) -> None:
    """Report."""
    with closing(Store(existing(store))) as held:
        facts = gathered(held)
    with output_folder(out, marks=("guard.json",)) as folder:
        write_whole(folder / "guard.html", report_page(facts))
        write_whole(folder / "guard.json", report_json(facts) + "\n")
    told(report_json(facts) if json else f"report: {out / 'guard.html'}")


_KEY = """Make an API key, or revoke one by its id. A key is shown once; the store keeps its hash alone.

Examples:

  signstep guard key shop

  signstep guard key alice --role person

  signstep guard key --revoke 3f9a0c12b7de
"""


@app.command("guard key", short_help="Make and revoke API keys.", help=_KEY)
def guard_key(
    name: Annotated[str | None, typer.Argument(help="Whom it is for.")] = None,
    store: StoreUrl = _STORE,
    role: Annotated[
        str, typer.Option(help="client asks the model; person also sees /ui; metrics reads /metrics alone.")
    ] = "client",
    revoke_: Annotated[str | None, typer.Option("--revoke", help="The id of a key that counts no longer.")] = None,
) -> None:
    """Make or revoke a key."""
    if (name is None) == (revoke_ is None):
        raise InputError("a key is made for somebody, or revoked", remedy=("pass a name, or", Arg("revoke")))
    held = Store(store)
    try:
        if revoke_ is not None:
            if not revoke(held, revoke_):
                raise InputError(Arg("revoke", revoke_), "is the id of no key that counts", remedy="see the log")
            noted(f"revoked: {revoke_}")
            return
        told(new_key(held, cast("str", name), role))
    finally:
        held.close()
