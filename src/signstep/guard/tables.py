"""The tables of the store, and what is asked of them. Every value travels as a parameter, never as text of SQL."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from signstep.errors import MissingExtraError
from signstep.guard.rows import shown

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table

MOST = 10_000  # rows of one answer


@dataclass(frozen=True)
class Tables:
    """The tables.

    Attributes:
        decisions: a row for each input.
        alarms: a row for each alarm.
        keys: API keys, hashed.
        notes: what else is kept by name, as JSON: the last challenge.
        all: of them.
    """

    decisions: "Table"
    alarms: "Table"
    keys: "Table"
    notes: "Table"
    all: "MetaData"

    def make(self, engine: "Engine") -> None:
        """Make those that are not there."""
        self.all.create_all(engine)

    def prune(self, connection: "Connection", oldest: float, rows: int, input_bytes: int) -> int:
        """Drop what is older, or beyond so many rows or bytes of inputs; how many decisions went."""
        from sqlalchemy import func, select

        table = self.decisions
        gone = connection.execute(table.delete().where(table.c.at < oldest)).rowcount
        connection.execute(self.alarms.delete().where(self.alarms.c.at < oldest))
        last = connection.execute(select(table.c.seq).order_by(table.c.seq.desc()).offset(rows).limit(1)).scalar()
        if last is not None:
            gone += connection.execute(table.delete().where(table.c.seq <= last)).rowcount
        held = select(table.c.seq, func.length(table.c.input)).where(table.c.input.is_not(None))
        total = 0
        for seq, size in connection.execute(held.order_by(table.c.seq.desc())):
            total += size
            if total > input_bytes:
                connection.execute(
                    table.update().where(table.c.seq <= seq, table.c.input.is_not(None)).values(input=None)
                )
                break
        return int(gone)

    def log(
        self,
        *,
        client: str | None = None,
        since: float | None = None,
        low: bool = False,
        queue: str | None = None,
        ident: str | None = None,
        flagged: bool = False,
        limit: int = 100,
    ) -> Any:
        """A statement for decisions, the latest first."""
        from sqlalchemy import select

        table = self.decisions
        found = select(table)
        for column, value in (
            (table.c.client, None if client is None else shown(client)),
            (table.c.queue, queue),
            (table.c.id, ident),
        ):
            if value is not None:
                found = found.where(column == value)
        if since is not None:
            found = found.where(table.c.at >= since)
        if low:
            found = found.where(table.c.low.is_(True))
        if flagged:
            found = found.where(table.c.flagged.is_(True))
        return found.order_by(table.c.seq.desc()).limit(min(limit, MOST))

    def alarm_log(self, *, since: float | None = None, limit: int = 100) -> Any:
        """A statement for alarms, the latest first."""
        from sqlalchemy import select

        found = select(self.alarms)
        if since is not None:
            found = found.where(self.alarms.c.at >= since)
        return found.order_by(self.alarms.c.seq.desc()).limit(min(limit, MOST))

    def clients(self, limit: int = 100) -> Any:
        """A statement for clients with their counts, those most often flagged first."""
        from sqlalchemy import case, func, select

        table = self.decisions
        flagged = func.sum(case((table.c.flagged.is_(True), 1), else_=0)).label("flagged")
        low = func.sum(case((table.c.low.is_(True), 1), else_=0)).label("low")
        found = select(table.c.client, func.count().label("inputs"), flagged, low, func.max(table.c.at).label("last"))
        return found.group_by(table.c.client).order_by(flagged.desc(), table.c.client).limit(min(limit, MOST))

    def sums(self) -> Any:
        """A statement for one row: decisions, flagged, waiting for a person, seen by one; the first's time."""
        from sqlalchemy import case, func, select

        table = self.decisions

        def number(condition: Any) -> Any:
            return func.sum(case((condition, 1), else_=0))

        return select(
            func.count().label("decisions"),
            number(table.c.flagged.is_(True)).label("flagged"),
            number(table.c.queue == "open").label("queue"),
            number(table.c.queue == "done").label("reviewed"),
            func.min(table.c.at).label("first"),
        ).select_from(table)

    def alarm_counts(self) -> Any:
        """A statement for the number of alarms by kind."""
        from sqlalchemy import func, select

        return select(self.alarms.c.kind, func.count().label("count")).group_by(self.alarms.c.kind)

    def key_count(self) -> Any:
        """A statement for the number of keys that count."""
        from sqlalchemy import func, select

        return select(func.count().label("count")).select_from(self.keys).where(self.keys.c.revoked.is_(None))

    def counts(self, since: float = 0.0) -> Any:
        """A statement for the number of decisions by action."""
        from sqlalchemy import func, select

        table = self.decisions
        return (
            select(table.c.action, table.c.decided, func.count().label("inputs"))
            .where(table.c.at >= since)
            .group_by(table.c.action, table.c.decided)
        )


def made_tables() -> Tables:
    """The tables, not yet in any database.

    Raises:
        MissingExtraError: the extra guard is not installed.
    """
    try:
        import sqlalchemy as sql
    except ImportError as error:
        raise MissingExtraError("sqlalchemy", "guard") from error
    known = sql.MetaData()
    number = sql.BigInteger().with_variant(sql.Integer(), "sqlite")  # that SQLite counts up by itself
    decisions = sql.Table(
        "guard_decisions",
        known,
        sql.Column("seq", number, primary_key=True, autoincrement=True),
        sql.Column("id", sql.String(32), nullable=False, unique=True),
        sql.Column("at", sql.Double(), nullable=False, index=True),
        sql.Column("client", sql.Text(), nullable=False, index=True),
        sql.Column("action", sql.String(8), nullable=False),
        sql.Column("decided", sql.String(8), nullable=False),
        sql.Column("label", sql.BigInteger()),
        sql.Column("name", sql.Text(), nullable=False),
        sql.Column("confidence", sql.Double()),
        sql.Column("p_value", sql.Double()),
        sql.Column("detector", sql.Text(), nullable=False),
        sql.Column("reasons", sql.Text(), nullable=False),
        sql.Column("flagged", sql.Boolean(), nullable=False),
        sql.Column("low", sql.Boolean(), nullable=False),
        sql.Column("digest", sql.String(64), nullable=False),
        sql.Column("input", sql.LargeBinary()),
        sql.Column("fingerprint", sql.String(32), nullable=False),
        sql.Column("queue", sql.String(8), nullable=False, index=True),
        sql.Column("reviewed", sql.BigInteger()),
        sql.Column("reviewer", sql.Text(), nullable=False),
    )
    alarms = sql.Table(
        "guard_alarms",
        known,
        sql.Column("seq", number, primary_key=True, autoincrement=True),
        sql.Column("at", sql.Double(), nullable=False, index=True),
        sql.Column("kind", sql.String(32), nullable=False),
        sql.Column("client", sql.Text(), nullable=False),
        sql.Column("text", sql.Text(), nullable=False),
        sql.Column("decision", sql.String(32), nullable=False),
    )
    keys = sql.Table(
        "guard_keys",
        known,
        sql.Column("id", sql.String(16), primary_key=True),
        sql.Column("hash", sql.String(64), nullable=False),
        sql.Column("name", sql.Text(), nullable=False),
        sql.Column("role", sql.String(8), nullable=False),
        sql.Column("made", sql.Double(), nullable=False),
        sql.Column("revoked", sql.Double()),
    )
    notes = sql.Table(
        "guard_notes",
        known,
        sql.Column("name", sql.String(64), primary_key=True),
        sql.Column("value", sql.Text(), nullable=False),
    )
    return Tables(decisions, alarms, keys, notes, known)
